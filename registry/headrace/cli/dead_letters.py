"""`headrace dead-letters`: see the commands that could not be applied, and replay them."""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
import msgspec

from headrace.cli.options import json_option, print_json, with_settings
from headrace.registry.settings import Settings

if TYPE_CHECKING:
    from headrace.sync.dead_letters import ListedLetter

COMMAND_SHOWN_MAX = 120
"""Characters of a command in the listing for people; `--json` holds all bytes."""


@click.group()
def command() -> None:
    """List or replay commands that could not be applied."""


@command.command("list")
@click.option("--code", "codes", multiple=True, help="Only letters of this reason; repeatable.")
@click.option("--limit", type=click.IntRange(min=1), help="Stop after this many letters.")
@with_settings("commands")
@json_option
def list_(codes: tuple[str, ...], limit: int | None, settings: Settings, as_json: bool) -> None:
    """Print dead letters, oldest first: where each came from, why, and its bytes."""
    asyncio.run(_list(codes, limit, settings, as_json=as_json))


@command.command("replay")
@with_settings("commands")
@json_option
def replay_(settings: Settings, as_json: bool) -> None:
    """Append the letters that were not replayed yet to the topics they came from.

    Mend their cause first: a command that still cannot be applied becomes a new dead letter.
    """
    replayed = asyncio.run(_replay(settings))
    if as_json:
        print_json({"replayed": replayed})
    else:
        click.echo(f"{replayed:,} commands replayed")


async def _list(
    codes: tuple[str, ...], limit: int | None, settings: Settings, *, as_json: bool
) -> None:
    from headrace.cli.engines import open_commands
    from headrace.sync.dead_letters import list_letters

    command_log = open_commands(settings.commands)
    shown: list[ListedLetter] = []
    try:
        async for listed in list_letters(command_log.dead_letters()):
            if codes and listed.letter.code not in codes:
                continue
            shown.append(listed)
            if not as_json:
                click.echo(_for_people(listed))
            if len(shown) == limit:
                break
    finally:
        await command_log.close()
    if as_json:
        print_json([_for_programs(listed) for listed in shown])
    else:
        click.echo(f"{len(shown):,} dead letters", err=True)


async def _replay(settings: Settings) -> int:
    from headrace.cli.engines import open_commands
    from headrace.sync.dead_letters import replay

    command_log = open_commands(settings.commands)
    try:
        return await replay(
            command_log.dead_letters(), command_log.producer(), on_left_out=_say_left_out
        )
    finally:
        await command_log.close()


def _say_left_out(listed: ListedLetter) -> None:
    source = listed.letter.source
    why = "it is no dead letter"
    if listed.letter.command_bytes is not None:
        why = (
            f"its letter holds {len(listed.letter.value):,} of {listed.letter.command_bytes:,} "
            "bytes; the command is on its topic as long as that is kept"
        )
    click.echo(f"{source.topic}/{source.partition}/{source.offset}  not replayed: {why}", err=True)


def _for_people(listed: ListedLetter) -> str:
    letter = listed.letter
    died_at = datetime.fromtimestamp(letter.died_at_ms / 1000, UTC).isoformat(timespec="seconds")
    place = f"{letter.source.topic}/{letter.source.partition}/{letter.source.offset}"
    replayed = "  replayed" if listed.replayed else ""
    text = letter.value.decode("utf-8", "backslashreplace")
    shown = text if len(text) <= COMMAND_SHOWN_MAX else f"{text[:COMMAND_SHOWN_MAX]}…"
    return f"{died_at}  {place}  {letter.code}{replayed}\n  {letter.message}\n  {shown!r}"


def _for_programs(listed: ListedLetter) -> dict[str, object]:
    letter = listed.letter
    return {
        "source": msgspec.to_builtins(letter.source),
        "code": letter.code,
        "message": letter.message,
        "key_base64": base64.b64encode(letter.key).decode(),
        "command_base64": base64.b64encode(letter.value).decode(),
        "command_bytes": letter.command_bytes or len(letter.value),
        "died_at_ms": letter.died_at_ms,
        "replayed": listed.replayed,
    }

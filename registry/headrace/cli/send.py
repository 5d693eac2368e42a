"""`headrace send`: append commands from JSON lines to the command log."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import IO, TYPE_CHECKING

import click

from headrace.cli.options import json_option, print_json, with_settings
from headrace.registry.settings import Settings

if TYPE_CHECKING:
    from headrace.sync.ports import Topic
    from headrace.sync.send import RefusedLine

EXIT_REFUSED = 1
PROGRESS_INTERVAL_S = 0.2


class _Progress:
    """Counts, and a line on a terminal's standard error that tells them."""

    def __init__(self) -> None:
        self.appended = 0
        self.refused: list[RefusedLine] = []
        self._started_s = time.monotonic()
        self._due_s = self._started_s + PROGRESS_INTERVAL_S
        self._shown = False

    def count(self, appended: int, refused: list[RefusedLine]) -> None:
        self.appended += appended
        self.refused += refused
        if time.monotonic() >= self._due_s and sys.stderr.isatty():
            self._due_s = time.monotonic() + PROGRESS_INTERVAL_S
            self._shown = True
            click.echo(f"\r{self.sentence()}", nl=False, err=True)

    def sentence(self) -> str:
        elapsed_s = max(time.monotonic() - self._started_s, 1e-6)
        rate = f"{self.appended / elapsed_s:,.0f} commands/s"
        return f"{self.appended:,} commands appended, {len(self.refused):,} refused, {rate}"

    def finish(self) -> None:
        if self._shown:
            click.echo(err=True)


@click.command()
@click.argument("source", metavar="FILE|-", type=click.File("rb"))
@click.option(
    "--topic",
    type=click.Choice(["realtime", "bulk"]),
    default="realtime",
    show_default=True,
    help="Topic of the command log to append to.",
)
@with_settings("online", "commands")
@json_option
def command(source: IO[bytes], topic: Topic, settings: Settings, as_json: bool) -> int:
    """Append commands, one JSON object a line, to the command log.

    Lines that the live catalog cannot apply are named and left out; the others are appended.
    Exits 1 when a line was refused.
    """
    progress = _Progress()
    try:
        asyncio.run(_send(source, topic, settings, progress))
    finally:
        progress.finish()
    if as_json:
        print_json({"appended": progress.appended, "refused": progress.refused})
    else:
        for refused in progress.refused:
            place = f"{source.name}:{refused.line}"
            click.echo(f"{place}  {refused.code}  {refused.message}", err=True)
        click.echo(progress.sentence(), err=True)
    return EXIT_REFUSED if progress.refused else 0


async def _send(source: IO[bytes], topic: Topic, settings: Settings, progress: _Progress) -> None:
    from headrace.cli.engines import load_catalog, open_commands
    from headrace.sync.send import send_lines

    catalog = await load_catalog(settings.online)
    command_log = open_commands(settings.commands)
    try:
        await send_lines(source, command_log.producer(), catalog, topic, on_chunk=progress.count)
    finally:
        await command_log.close()

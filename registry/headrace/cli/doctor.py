"""`headrace doctor`: whether every engine that the settings name is there and fit for its part."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

import click

from headrace.cli.options import json_option, print_json, with_settings
from headrace.registry.errors import SettingsError
from headrace.registry.settings import Settings

if TYPE_CHECKING:
    from headrace.cli.doctor_finding import Finding

EXIT_UNFIT: Final = 1
LIMIT_S: Final = 10.0
MARKS: Final = {True: "ok  ", False: "FAIL", None: "skip"}


@click.command()
@json_option
@with_settings("online", "cache", "commands", "offline")
def command(as_json: bool, settings: Settings) -> int:
    """Check each engine: reachable, version, clock, permissions, schema, and how it is set up.

    One line a check, with the fix where one fails. An engine that does not answer is given 10
    seconds. Exits 1 when any check fails.
    """
    findings = asyncio.run(_examine(settings))
    failed = sum(finding.ok is False for finding in findings)
    if as_json:
        print_json(findings)
    else:
        _print(findings)
        click.echo(f"{len(findings)} checks, {failed} failed", err=True)
    return EXIT_UNFIT if failed else 0


async def _examine(settings: Settings) -> list[Finding]:
    """The checks of all engines, in the order in which data flows."""
    found = await asyncio.gather(
        _within_limit("online", _online(settings)),
        _within_limit("cache", _cache(settings)),
        _within_limit("commands", _commands(settings)),
        _within_limit("offline", _offline(settings)),
    )
    return [finding for part in found for finding in part]


async def _within_limit(
    part: str, examination: Coroutine[Any, Any, list[Finding]]
) -> list[Finding]:
    """What was found; a URL that names no engine, or one that never answers, is a finding too."""
    from headrace.cli.doctor_finding import Finding

    try:
        async with asyncio.timeout(LIMIT_S):
            return await examination
    except SettingsError as error:
        fix = f"mend it in headrace.yaml, HEADRACE_{part.upper()} or --{part}"
        return [Finding(part=part, check="settings", ok=False, detail=str(error), fix=fix)]
    except TimeoutError:
        detail = f"no answer within {LIMIT_S:g} s"
        fix = "look whether its machine is overloaded or its network drops packets"
        return [Finding(part=part, check="reachable", ok=False, detail=detail, fix=fix)]


# A client is imported for an engine in use only: each role installs only its extra.


async def _online(settings: Settings) -> list[Finding]:
    from headrace.cli.doctor_files import examine_embedded
    from headrace.cli.engines import ONLINE_SCHEMES, parse_url

    online = parse_url("online", settings.online, ONLINE_SCHEMES)
    if online.scheme != "scylla":
        return await examine_embedded("online", online)
    from headrace.cli.doctor_online import examine_scylla

    return await examine_scylla(settings.online)


async def _cache(settings: Settings) -> list[Finding]:
    from headrace.cli.engines import cache_of

    cache = cache_of(settings)
    if cache is None:
        return []
    from headrace.cli.doctor_cache import examine_cache

    return await examine_cache(cache)


async def _commands(settings: Settings) -> list[Finding]:
    from headrace.cli.doctor_files import examine_embedded
    from headrace.cli.engines import COMMAND_SCHEMES, kafka_url, parse_url

    commands = parse_url("commands", settings.commands, COMMAND_SCHEMES)
    if commands.scheme != "kafka":
        return await examine_embedded("commands", commands)
    url = kafka_url(settings.commands)
    from headrace.cli.doctor_log import examine_kafka

    return await examine_kafka(url)


async def _offline(settings: Settings) -> list[Finding]:
    from headrace.cli.doctor_files import examine_embedded
    from headrace.cli.engines import OFFLINE_SCHEMES, parse_url

    return await examine_embedded(
        "offline", parse_url("offline", settings.offline, OFFLINE_SCHEMES)
    )


def _print(findings: list[Finding]) -> None:
    parts = max(len(finding.part) for finding in findings)
    checks = max(len(finding.check) for finding in findings)
    for finding in findings:
        line = f"{MARKS[finding.ok]}  {finding.part:<{parts}}  {finding.check:<{checks}}"
        click.echo(f"{line}  {finding.detail}")
        if finding.fix:
            click.echo(f"      {'fix:':>{parts}}  {finding.fix}")

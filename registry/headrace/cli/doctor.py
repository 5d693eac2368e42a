"""`headrace doctor`: whether every engine that the settings name is there and fit for its part."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

import click

from headrace.cli.options import json_option, print_json, with_settings
from headrace.registry.settings import Settings

if TYPE_CHECKING:
    from headrace.cli.doctor_finding import Finding

EXIT_UNFIT: Final = 1
MARKS: Final = {True: "ok  ", False: "FAIL", None: "skip"}


@click.command()
@json_option
@with_settings("online", "cache", "commands", "offline")
def command(as_json: bool, settings: Settings) -> int:
    """Check each engine: reachable, version, clock, permissions, schema, and how it is set up.

    One line a check, with the fix where one fails. Exits 1 when any does.
    """
    from headrace.cli.logs import quiet_clients

    quiet_clients()
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
    from headrace.cli.doctor_files import examine_embedded
    from headrace.cli.engines import (
        COMMAND_SCHEMES,
        OFFLINE_SCHEMES,
        ONLINE_SCHEMES,
        cache_of,
        kafka_url,
        parse_url,
    )

    online = parse_url("online", settings.online, ONLINE_SCHEMES)
    commands = parse_url("commands", settings.commands, COMMAND_SCHEMES)
    offline = parse_url("offline", settings.offline, OFFLINE_SCHEMES)
    cache = cache_of(settings)
    examinations: list[Coroutine[Any, Any, list[Finding]]] = []
    # A client is imported for an engine in use only: each role installs only its extra.
    if online.scheme == "scylla":
        from headrace.cli.doctor_online import examine_scylla

        examinations.append(examine_scylla(settings.online))
    else:
        examinations.append(examine_embedded("online", online))
    if cache is not None:
        from headrace.cli.doctor_cache import examine_cache

        examinations.append(examine_cache(cache))
    if commands.scheme == "kafka":
        from headrace.cli.doctor_log import examine_kafka

        examinations.append(examine_kafka(kafka_url(settings.commands)))
    else:
        examinations.append(examine_embedded("commands", commands))
    examinations.append(examine_embedded("offline", offline))
    found = await asyncio.gather(*examinations)
    return [finding for part in found for finding in part]


def _print(findings: list[Finding]) -> None:
    parts = max(len(finding.part) for finding in findings)
    checks = max(len(finding.check) for finding in findings)
    for finding in findings:
        line = f"{MARKS[finding.ok]}  {finding.part:<{parts}}  {finding.check:<{checks}}"
        click.echo(f"{line}  {finding.detail}")
        if finding.fix:
            click.echo(f"      {'fix:':>{parts}}  {finding.fix}")

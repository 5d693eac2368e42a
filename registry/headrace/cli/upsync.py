"""`headrace upsync`: changed rows of the offline store → bulk commands."""

from __future__ import annotations

import asyncio
import secrets
import sys
from typing import TYPE_CHECKING, Final

import click

from headrace.cli.options import json_option, print_json, with_settings
from headrace.registry.settings import Settings

if TYPE_CHECKING:
    from headrace.registry.catalog import CatalogDocument, Group
    from headrace.sync.upsync import Upsync, UpsyncOptions, UpsyncReport

RATE_OF_NO_LIMIT: Final = 0.0


@click.command()
@click.argument("groups", nargs=-1, metavar="GROUP...")
@click.option("--all", "every", is_flag=True, help="Every group that declares upsync.")
@click.option("--full", is_flag=True, help="Send every latest row, changed or not.")
@click.option("--dry-run", is_flag=True, help="Count what would be sent and send nothing.")
@click.option(
    "--rate",
    type=click.FloatRange(min=0),
    default=RATE_OF_NO_LIMIT,
    help="Most rows a second; 0 sets no limit.  [default: 0]",
)
@json_option
@with_settings("online", "commands", "offline")
def command(
    groups: tuple[str, ...],
    every: bool,
    full: bool,
    dry_run: bool,
    rate: float,
    as_json: bool,
    settings: Settings,
) -> None:
    """Send the changed rows of each GROUP from the offline store to the command log.

    A run that was interrupted goes on where it stopped.
    """
    from headrace.sync.upsync import UpsyncOptions

    if every == bool(groups):
        raise click.UsageError("name the groups, or give --all (and not both)")
    options = UpsyncOptions(full=full, dry_run=dry_run)
    reports = asyncio.run(_upsync(settings, groups, options, rate))
    if as_json:
        print_json(reports)


async def _upsync(
    settings: Settings, names: tuple[str, ...], options: UpsyncOptions, rate: float
) -> list[UpsyncReport]:
    from headrace.cli.engines import open_commands, open_offline, open_online
    from headrace.cli.live import live_catalog
    from headrace.sync.rate_limit import RateLimiter
    from headrace.sync.upsync import Upsync
    from headrace.sync.upsync_encoding import command_encoder

    online = await open_online(settings.online)
    offline = open_offline(settings.offline)
    command_log = open_commands(settings.commands)
    try:
        catalog, document = await live_catalog(online)
        upsync = Upsync(
            reader=offline,
            encode=command_encoder(catalog),
            producer=command_log.producer(),
            state=online.sync_state(),
            pace=RateLimiter(rate) if rate > RATE_OF_NO_LIMIT else None,
        )
        return [await _run(upsync, group, options) for group in _chosen(document, names)]
    finally:
        await command_log.close()
        offline.close()
        await online.close()


def _chosen(document: CatalogDocument, names: tuple[str, ...]) -> list[Group]:
    from headrace.cli.live import group_named

    if not names:
        return [group for group in document.groups if group.upsync.enabled]
    chosen = [group_named(document, name) for name in dict.fromkeys(names)]
    for group in chosen:
        if not group.upsync.enabled:
            raise click.UsageError(
                f"`{group.name}` does not declare `upsync: {{enabled: true}}`; nothing was sent"
            )
    return chosen


async def _run(upsync: Upsync, group: Group, options: UpsyncOptions) -> UpsyncReport:
    from headrace.cli.progress import ProgressLine
    from headrace.sync.clock import steady_clock_ms, wall_clock_ms

    line = ProgressLine(group.name, sys.stderr, steady_clock_ms)
    report = await upsync.run(
        group, options, run_id=secrets.token_hex(8), now_ms=wall_clock_ms(), progress=line
    )
    line.finish(_sentence(report, line.rows_per_s(report.sent), dry_run=options.dry_run))
    return report


def _sentence(report: UpsyncReport, rows_per_s: float, *, dry_run: bool) -> str:
    of = f"of {report.scanned:,} latest rows"
    if dry_run:
        return f"{report.feature_group}: would send {report.changed:,} {of}"
    resumed = ", resuming an interrupted run" if report.resumed else ""
    rate = f", {rows_per_s:,.0f} rows/s" if report.sent else ""
    return f"{report.feature_group}: sent {report.sent:,} {of}{rate}{resumed}"

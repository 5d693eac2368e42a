"""`headrace worker`: the production roles of the writing side, one process each."""

from __future__ import annotations

import asyncio
import signal

import click

from headrace.cli.logs import log_json_lines
from headrace.cli.options import with_settings
from headrace.registry.settings import Settings


@click.group()
def command() -> None:
    """Run one production role: write, downsync."""


@command.command("write")
@click.option(
    "--bulk-rate",
    type=click.FloatRange(min=1),
    help="Most bulk commands a second; without it there is no limit.",
)
@click.option(
    "--metrics-port", type=click.IntRange(1, 65_535), help="Serve Prometheus metrics on this port."
)
@with_settings("online", "cache", "commands")
def write(bulk_rate: float | None, metrics_port: int | None, settings: Settings) -> None:
    """Write commands of the log to the online store until SIGTERM or Ctrl-C.

    Several may run; they share the log's partitions. Stopping finishes the batch in hand.
    """
    log_json_lines()
    asyncio.run(_write(settings, bulk_rate, metrics_port))


async def _write(settings: Settings, bulk_rate: float | None, metrics_port: int | None) -> None:
    from prometheus_client import CollectorRegistry, start_http_server

    from headrace.cli.engines import check_cache, open_commands, open_online
    from headrace.registry.watch import CatalogWatcher
    from headrace.sync.clock import wall_clock_ms
    from headrace.sync.telemetry import SyncTelemetry
    from headrace.sync.writer_role import WriterRole

    check_cache(settings.cache)
    registry = CollectorRegistry()
    if metrics_port is not None:
        start_http_server(metrics_port, addr="127.0.0.1", registry=registry)
    command_log = open_commands(settings.commands)
    online = open_online(settings.online)
    watcher = CatalogWatcher(online.catalog_reader(), wall_clock_ms)
    role = WriterRole(
        command_log,
        online.writer(),
        watcher,
        SyncTelemetry(registry),
        bulk_rows_per_s=bulk_rate,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, role.stop)
    watching = asyncio.create_task(watcher.run())
    try:
        await role.run()
    finally:
        watching.cancel()
        await command_log.close()
        online.close()


@command.command("downsync")
@click.option(
    "--metrics-port", type=click.IntRange(1, 65_535), help="Serve Prometheus metrics on this port."
)
@with_settings("online", "commands", "offline")
def downsync(metrics_port: int | None, settings: Settings) -> None:
    """Write sampled real-time commands to the offline store until SIGTERM or Ctrl-C.

    It follows the writer: a command is handled once the writer has committed it.
    """
    log_json_lines()
    asyncio.run(_downsync(settings, metrics_port))


async def _downsync(settings: Settings, metrics_port: int | None) -> None:
    from prometheus_client import CollectorRegistry, start_http_server

    from headrace.cli.engines import open_commands, open_offline, open_online
    from headrace.registry.watch import CatalogWatcher
    from headrace.sync.clock import wall_clock_ms
    from headrace.sync.downsync import DOWNSYNC_GROUP, Downsync, DownsyncPorts
    from headrace.sync.downsync_telemetry import DownsyncTelemetry

    registry = CollectorRegistry()
    if metrics_port is not None:
        start_http_server(metrics_port, addr="127.0.0.1", registry=registry)
    command_log = open_commands(settings.commands)
    online = open_online(settings.online)
    offline = open_offline(settings.offline)
    watcher = CatalogWatcher(online.catalog_reader(), wall_clock_ms)
    ports = DownsyncPorts(
        consumer=command_log.consumer("realtime", DOWNSYNC_GROUP),
        catalog=watcher,
        online=online.merged_records(),
        offline=offline,
        state=online.sync_state(),
    )
    role = Downsync(ports, DownsyncTelemetry(registry))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, role.stop)
    watching = asyncio.create_task(watcher.run())
    try:
        await role.run()
    finally:
        watching.cancel()
        await command_log.close()
        offline.close()
        online.close()

"""`headrace worker`: the production roles of the writing side, one process each."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Protocol

import click

from headrace.cli.logs import log_json_lines, log_settings
from headrace.cli.options import AnyFunction, with_settings
from headrace.registry.settings import Settings

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from headrace.registry.watch import CatalogWatcher
    from headrace.sync.ports import CacheInvalidator


def metrics_option(function: AnyFunction) -> AnyFunction:
    """`--metrics-port`, for every role that has no HTTP server of its own."""
    return click.option(
        "--metrics-port",
        type=click.IntRange(1, 65_535),
        help="Serve Prometheus metrics on this port.",
    )(function)


@click.group()
def command() -> None:
    """Run one production role: write, downsync."""


@command.command("write")
@click.option(
    "--bulk-rate",
    type=click.FloatRange(min=1),
    help="Most bulk commands a second; without it there is no limit.",
)
@metrics_option
@with_settings("online", "cache", "commands")
def write(bulk_rate: float | None, metrics_port: int | None, settings: Settings) -> None:
    """Write commands of the log to the online store until SIGTERM or Ctrl-C.

    Several may run; they share the log's partitions. Stopping finishes the batch in hand; a second
    signal ends it at once.
    """
    from headrace.cli.engines import cache_of

    cache_of(settings)
    log_json_lines()
    log_settings(settings)
    asyncio.run(_write(settings, bulk_rate, metrics_port))


async def _write(settings: Settings, bulk_rate: float | None, metrics_port: int | None) -> None:
    from headrace.cli.engines import open_commands, open_online_when_up
    from headrace.registry.watch import CatalogWatcher
    from headrace.sync.clock import wall_clock_ms
    from headrace.sync.telemetry import SyncTelemetry
    from headrace.sync.writer_role import WriterRole

    registry = _metrics(metrics_port)
    async with contextlib.AsyncExitStack() as opened:
        online = open_online_when_up(settings.online)
        opened.push_async_callback(online.close)
        for collector in online.collectors():
            registry.register(collector)
        command_log = open_commands(settings.commands)
        opened.push_async_callback(command_log.close)
        watcher = CatalogWatcher(online.catalog_reader(), wall_clock_ms)
        role = WriterRole(
            command_log,
            online.writer(),
            watcher,
            SyncTelemetry(registry),
            invalidator=invalidator(settings, opened),
            bulk_rows_per_s=bulk_rate,
        )
        await _run(role, watcher)


def invalidator(settings: Settings, opened: contextlib.AsyncExitStack) -> CacheInvalidator | None:
    """What empties the cache after a write, None without a cache; closed with `opened`."""
    from headrace.cli.engines import cache_of

    cache = cache_of(settings)
    if cache is None:
        return None
    if cache.cluster:
        from headrace.sync.stores.redis_cluster import RedisClusterInvalidator

        clustered = RedisClusterInvalidator(cache)
        opened.push_async_callback(clustered.close)
        return clustered
    from headrace.sync.stores.redis import RedisInvalidator

    made = RedisInvalidator(cache)
    opened.push_async_callback(made.close)
    return made


@command.command("downsync")
@metrics_option
@with_settings("online", "commands", "offline")
def downsync(metrics_port: int | None, settings: Settings) -> None:
    """Write sampled real-time commands to the offline store until SIGTERM or Ctrl-C.

    It follows the writer: a command is handled once the writer has committed it. A second signal
    ends it at once.
    """
    log_json_lines()
    log_settings(settings)
    asyncio.run(_downsync(settings, metrics_port))


async def _downsync(settings: Settings, metrics_port: int | None) -> None:
    from headrace.cli.engines import open_commands, open_offline, open_online_when_up
    from headrace.registry.watch import CatalogWatcher
    from headrace.sync.clock import wall_clock_ms
    from headrace.sync.downsync import DOWNSYNC_GROUP, Downsync, DownsyncPorts
    from headrace.sync.downsync_telemetry import DownsyncTelemetry

    registry = _metrics(metrics_port)
    telemetry = DownsyncTelemetry(registry)
    async with contextlib.AsyncExitStack() as opened:
        online = open_online_when_up(settings.online)
        opened.push_async_callback(online.close)
        for collector in online.collectors():
            registry.register(collector)
        offline = open_offline(settings.offline)
        opened.callback(offline.close)
        command_log = open_commands(settings.commands)
        opened.push_async_callback(command_log.close)
        watcher = CatalogWatcher(online.catalog_reader(), wall_clock_ms)
        ports = DownsyncPorts(
            consumer=command_log.consumer("realtime", DOWNSYNC_GROUP),
            catalog=watcher,
            online=online.merged_records(),
            offline=offline,
            state=online.sync_state(),
        )
        role = Downsync(ports, telemetry)
        await _run(role, watcher)


class Role(Protocol):
    """A loop that ends itself after `stop`."""

    async def run(self) -> None: ...

    def stop(self) -> None: ...


async def _run(role: Role, watcher: CatalogWatcher) -> None:
    from headrace.cli.stopping import StopSignals

    watching = asyncio.create_task(watcher.run())
    try:
        with StopSignals(role.stop):
            await role.run()
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


def _metrics(port: int | None) -> CollectorRegistry:
    """The metrics of this process; served on `port` of the loopback address, if given."""
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry()
    if port is not None:
        start_http_server(port, addr="127.0.0.1", registry=registry)
    return registry

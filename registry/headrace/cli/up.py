"""`headrace up`: gateway, writer and downsync in one process, on the embedded engines."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headrace.cli.options import with_settings
from headrace.registry.errors import SettingsError
from headrace.registry.settings import Settings

if TYPE_CHECKING:
    from headrace.cli.engines import CommandEngine, OnlineEngine
    from headrace.cli.gateway_role import GatewayRole
    from headrace.cli.lmdb import LmdbEngine
    from headrace.registry.watch import CatalogWatcher
    from headrace.sync.downsync import Downsync
    from headrace.sync.downsync_telemetry import DownsyncTelemetry
    from headrace.sync.offline.duckdb import DuckdbOfflineStore
    from headrace.sync.telemetry import SyncTelemetry
    from headrace.sync.writer_role import WriterRole


@click.command()
@with_settings("registry", "online", "cache", "commands", "offline", "gateway.host", "gateway.port")
def command(settings: Settings) -> None:
    """Run everything in this process until SIGTERM or Ctrl-C, then drain.

    Where no catalog is live yet, the registry is applied first. Stopping finishes requests and the
    batches in hand.
    """
    import uvloop

    from headrace.cli.engines import cache_of
    from headrace.cli.logs import log_json_lines, log_settings
    from headrace.gateway.serve import listen

    if settings.gateway.workers != 1:
        raise SettingsError(
            f"`gateway.workers: {settings.gateway.workers}`: `headrace up` is one process; "
            "run `headrace serve` and `headrace worker` for more"
        )
    cache_of(settings)
    listener = listen(settings.gateway.host, settings.gateway.port)
    log_json_lines()
    log_settings(settings)
    uvloop.run(_up(settings, listener))


async def _up(settings: Settings, listener: socket.socket) -> None:
    from headrace.cli.engines import open_commands, open_lmdb, open_offline

    online = open_lmdb(settings.online)
    try:
        await _apply_first(settings, online)
        commands = open_commands(settings.commands)
        try:
            offline = open_offline(settings.offline)
            try:
                await _run(settings, listener, online, commands, offline)
            finally:
                offline.close()
        finally:
            await commands.close()
    finally:
        await online.close()


async def _apply_first(settings: Settings, online: OnlineEngine) -> None:
    """Publish the registry as the first generation; a live catalog is left as it is."""
    if await online.catalog_reader().generation() > 0:
        return
    from headrace.cli.apply import apply_registry
    from headrace.cli.plan import checked_registry

    await apply_registry(checked_registry(Path(settings.registry)), online)


async def _run(
    settings: Settings,
    listener: socket.socket,
    online: LmdbEngine,
    commands: CommandEngine,
    offline: DuckdbOfflineStore,
) -> None:
    from prometheus_client import CollectorRegistry

    from headrace.cli.gateway_role import GatewayRole, now_ms
    from headrace.cli.stopping import StopSignals
    from headrace.registry.watch import CatalogWatcher
    from headrace.sync.downsync_telemetry import DownsyncTelemetry
    from headrace.sync.telemetry import SyncTelemetry

    metrics = CollectorRegistry()
    watcher = CatalogWatcher(online.catalog_reader(), now_ms)
    writer = _writer(online, commands, watcher, SyncTelemetry(metrics))
    downsync = _downsync(online, commands, watcher, offline, DownsyncTelemetry(metrics))
    gateway = GatewayRole(
        settings.gateway, online, commands.producer(), watcher=watcher, metrics=metrics
    )
    with StopSignals(gateway.stop):
        await run_together(gateway, listener, watcher, [writer, downsync])


def _writer(
    online: OnlineEngine,
    commands: CommandEngine,
    watcher: CatalogWatcher,
    telemetry: SyncTelemetry,
) -> WriterRole:
    from headrace.sync.writer_role import WriterRole

    return WriterRole(commands, online.writer(), watcher, telemetry)


def _downsync(
    online: OnlineEngine,
    commands: CommandEngine,
    watcher: CatalogWatcher,
    offline: DuckdbOfflineStore,
    telemetry: DownsyncTelemetry,
) -> Downsync:
    from headrace.sync.downsync import DOWNSYNC_GROUP, Downsync, DownsyncPorts

    return Downsync(
        DownsyncPorts(
            consumer=commands.consumer("realtime", DOWNSYNC_GROUP),
            catalog=watcher,
            online=online.merged_records(),
            offline=offline,
            state=online.sync_state(),
        ),
        telemetry,
    )


async def run_together(
    gateway: GatewayRole,
    listener: socket.socket,
    watcher: CatalogWatcher,
    workers: list[WriterRole | Downsync],
) -> None:
    """Run all until the gateway stops; then the workers stop in the order of the data's flow.

    A worker that fails makes the gateway drain; its error is raised when all have ended.
    """
    watching = asyncio.create_task(watcher.run())
    tasks = [asyncio.create_task(_then(worker.run(), gateway.stop)) for worker in workers]
    try:
        await gateway.run(listener)
        for worker, task in zip(workers, tasks, strict=True):
            worker.stop()
            await asyncio.wait([task])
        for task in tasks:
            task.result()
    finally:
        for task in (watching, *tasks):
            task.cancel()
        await asyncio.gather(watching, *tasks, return_exceptions=True)


async def _then(work: Awaitable[None], at_the_end: Callable[[], None]) -> None:
    try:
        await work
    finally:
        at_the_end()

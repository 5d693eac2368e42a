"""The gateway put together: engine, catalog watch, command log and server over opened engines."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import click
from prometheus_client import CollectorRegistry

from headrace.cli.lmdb import LmdbEngine
from headrace.cli.log_appender import LogAppender
from headrace.codec import ReadEngine, SystemClock
from headrace.gateway.app import Ports, create_app
from headrace.gateway.catalog_in_force import CatalogInForce
from headrace.gateway.handover import Inbox
from headrace.gateway.limits import Limits
from headrace.gateway.ports import DirectReads, PartState
from headrace.gateway.serve import GatewayServer
from headrace.gateway.stores.lmdb_reads import LmdbReads
from headrace.registry.settings import GatewaySettings
from headrace.registry.watch import CatalogWatcher

if TYPE_CHECKING:
    from headrace.cli.scylla import ScyllaEngine
    from headrace.gateway.cached.reads import StoreReads
    from headrace.registry.cache_url import CacheUrl
    from headrace.sync.ports import CommandProducer


now_ms = SystemClock()
"""Milliseconds since the epoch: the clock of every role."""

FIRST_LOOK_LIMIT_S = 2.0
FIRST_LOOK_PAUSE_S = 0.05


class GatewayRole:
    """One gateway process. `run` serves until `stop`, then drains.

    Made within the event loop. `cache` stands before a networked store and never before the
    embedded one.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        online: LmdbEngine | ScyllaEngine,
        producer: CommandProducer | None,
        *,
        cache: CacheUrl | None = None,
        watcher: CatalogWatcher | None = None,
        metrics: CollectorRegistry | None = None,
    ) -> None:
        engine = ReadEngine(keys_max=settings.keys_max)
        self._shares_watcher = watcher is not None
        self._watcher = watcher or CatalogWatcher(online.catalog_reader(), now_ms)
        self._in_force = in_force = CatalogInForce(self._watcher)
        # The engine first: no route may name a generation that reads are not made under.
        self._watcher.subscribe(lambda live: engine.install(live.compiled))
        self._watcher.subscribe(lambda live: in_force.install(live.compiled, live.document))
        self._late: StoreReads | None = None
        self._appender = None if producer is None else LogAppender(producer)
        at_once: LmdbReads | None = None
        direct: DirectReads
        if isinstance(online, LmdbEngine):
            at_once, direct = LmdbReads(engine, online.store), (engine, online.store)
        else:
            from headrace.gateway.cached.reads import StoreReads

            deadline_ms = settings.default_deadline_ms
            self._late = StoreReads(
                engine, in_force, online.rows(), cache, now_ms, default_deadline_ms=deadline_ms
            )
            direct = self._late.direct
        metrics = metrics or CollectorRegistry()
        for collector in online.collectors():
            metrics.register(collector)
        ports = Ports(
            engine=at_once,
            late=self._late,
            direct=direct,
            in_force=in_force,
            clock=now_ms,
            envelope_schema=ReadEngine.envelope_schema(),
            appender=self._appender,
            inspector=online.inspector(),
            tiers=None if self._late is None else self._late.tiers,
            metrics=metrics,
            parts=self._parts,
        )
        limits = Limits(body_bytes_max=settings.body_bytes_max)
        app = create_app(ports, limits, compression=settings.compression)
        self._server = GatewayServer(app)

    def _parts(self) -> list[PartState]:
        caches = [] if self._late is None else self._late.parts()
        parts = [PartState("online store", self._watcher.unreachable), *caches]
        if self._appender is not None:
            parts.append(PartState("command log", self._appender.problem))
        return parts

    def stop(self) -> None:
        """Unready at once, then drain."""
        self._server.stop()

    async def run(self, callers: socket.socket | Inbox) -> None:
        """Serve those who call a bound socket, or come by an inbox, until `stop` and drained."""
        if self._late is not None:
            self._late.open()
        await self._look_first()
        self._announce(callers)
        watching = [] if self._shares_watcher else [asyncio.create_task(self._watcher.run())]
        if self._appender is not None:
            watching.append(asyncio.create_task(self._appender.watch()))
        try:
            if isinstance(callers, Inbox):
                await self._server.serve_from(callers)
            else:
                await self._server.serve_on(callers)
        finally:
            for task in watching:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            if self._late is not None:
                await self._late.close()

    async def _look_first(self) -> None:
        """Look for the catalog before any caller is taken, for as long as a session needs to open.

        A worker that replaces another must not take callers from its siblings before it can answer
        them. A store that is down is not waited for any longer.
        """
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + FIRST_LOOK_LIMIT_S
        await self._watcher.refresh()
        while (
            self._watcher.unreachable is not None
            and not self._server.should_exit
            and loop.time() < give_up_s
        ):
            await asyncio.sleep(FIRST_LOOK_PAUSE_S)
            await self._watcher.refresh()

    def _announce(self, callers: socket.socket | Inbox) -> None:
        catalog = (
            f"catalog generation {self._in_force.generation}"
            if self._in_force.loaded
            else self._in_force.why_missing()
        )
        click.echo(f"serving on {place_of(callers)} ({catalog})", err=True)
        click.echo("no access.yaml: only direct loopback callers are answered", err=True)


def place_of(callers: socket.socket | Inbox) -> str:
    """The URL that callers use."""
    host, port = callers.address if isinstance(callers, Inbox) else callers.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

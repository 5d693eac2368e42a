"""A real writer process on SQLite and LMDB that can be told where to die, or to freeze.

Started through multiprocessing's fork server, which has everything imported already: a start costs
milliseconds, so a test can afford dozens of them. The signal is sent by the process to itself at a
named point, or by a thread of it at a random moment inside a store write.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry

from headrace.codec import Catalog, CommandBatch, LmdbStore
from headrace.registry.catalog import CatalogDocument, encode_document
from headrace.registry.watch import CatalogWatcher
from headrace.sync.clock import wall_clock_ms
from headrace.sync.logs.sqlite import SqliteCommandLog
from headrace.sync.ports import (
    BATCH_BYTES_MAX,
    CommandConsumer,
    DeadLetter,
    DeadLetters,
    LogRecord,
    OnlineWriter,
    PartitionId,
    Topic,
)
from headrace.sync.stores.lmdb import LmdbOnlineWriter
from headrace.sync.telemetry import SyncTelemetry
from headrace.sync.writer import WRITER_GROUP, Writer, WriterLimits, WriterPorts

POINTS = (
    "before poll",
    "after poll",
    "before bury",
    "after bury",
    "before store",
    "inside store",
    "after store",
    "before commit",
    "after commit",
)


class Plan(msgspec.Struct, frozen=True):
    """Where the signal strikes: when the process comes to `point` for the `visit`-th time.

    Without a point it never strikes.
    """

    point: str | None = None
    visit: int = 1
    delay_us: int = 0
    """How far into the store write `inside store` strikes."""
    signal_number: int = signal.SIGKILL
    rows_max: int = 40
    session_ms: int = 10_000


class Reaper:
    """Counts visits to the planned point and strikes at the planned one."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._visits = 0

    def visit(self, point: str) -> None:
        if self._is_due(point):
            os.kill(os.getpid(), self._plan.signal_number)

    def strike_during(self, point: str) -> None:
        """Strike from another thread, a planned number of microseconds from now."""
        if self._is_due(point):
            threading.Thread(target=self._strike, daemon=True).start()

    def _is_due(self, point: str) -> bool:
        if point != self._plan.point:
            return False
        self._visits += 1
        return self._visits == self._plan.visit

    def _strike(self) -> None:
        time.sleep(self._plan.delay_us / 1e6)
        os.kill(os.getpid(), self._plan.signal_number)


class MortalConsumer:
    """The real consumer with a reaper at its side."""

    def __init__(self, consumer: CommandConsumer, reaper: Reaper) -> None:
        self._reaper = reaper
        self._consumer = consumer
        self.heartbeat = consumer.heartbeat
        self.assignment = consumer.assignment
        self.committed = consumer.committed
        self.lag = consumer.lag
        self.close = consumer.close

    async def poll(
        self, *, rows_max: int, wait_ms: int, bytes_max: int = BATCH_BYTES_MAX
    ) -> list[LogRecord]:
        self._reaper.visit("before poll")
        records = await self._consumer.poll(rows_max=rows_max, wait_ms=wait_ms, bytes_max=bytes_max)
        if records:
            self._reaper.visit("after poll")
        return records

    async def commit(self, offsets: Mapping[PartitionId, int]) -> None:
        self._reaper.visit("before commit")
        await self._consumer.commit(offsets)
        self._reaper.visit("after commit")


class MortalDeadLetters:
    def __init__(self, dead_letters: DeadLetters, reaper: Reaper) -> None:
        self._reaper = reaper
        self._dead_letters = dead_letters
        self.read = dead_letters.read
        self.replayed = dead_letters.replayed
        self.mark_replayed = dead_letters.mark_replayed

    async def append(self, letters: Sequence[DeadLetter]) -> None:
        self._reaper.visit("before bury")
        await self._dead_letters.append(letters)
        self._reaper.visit("after bury")


class MortalStore:
    def __init__(self, store: OnlineWriter, reaper: Reaper) -> None:
        self._store = store
        self._reaper = reaper

    async def store(self, batch: CommandBatch, catalog: Catalog, *, now_ms: int) -> None:
        self._reaper.visit("before store")
        self._reaper.strike_during("inside store")
        await self._store.store(batch, catalog, now_ms=now_ms)
        self._reaper.visit("after store")


class FixedCatalogReader:
    """A `CatalogReader` of one generation."""

    def __init__(self, document: CatalogDocument) -> None:
        self._document = document

    async def generation(self) -> int:
        return self._document.generation

    async def load(self) -> bytes | None:
        return encode_document(self._document)


def run_writer(folder: Path, catalog: CatalogDocument, plan: Plan) -> None:
    """Write the real-time topic of `folder` until the plan's end or SIGTERM."""
    asyncio.run(_run(folder, catalog, plan))


async def _run(folder: Path, catalog: CatalogDocument, plan: Plan) -> None:
    reaper = Reaper(plan)
    command_log = SqliteCommandLog(folder / "commands.db")
    store = LmdbStore(str(folder / "online"))
    topic: Topic = "realtime"
    consumer = command_log.consumer(topic, WRITER_GROUP, session_ms=plan.session_ms)
    writer = Writer(
        topic,
        WriterPorts(
            consumer=MortalConsumer(consumer, reaper),
            dead_letters=MortalDeadLetters(command_log.dead_letters(), reaper),
            store=MortalStore(LmdbOnlineWriter(store), reaper),
            catalog=CatalogWatcher(FixedCatalogReader(catalog), wall_clock_ms),
        ),
        SyncTelemetry(CollectorRegistry()).topic(topic),
        limits=WriterLimits(rows_max=plan.rows_max, age_max_ms=0, wait_ms=50),
        draw=random.random,
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, writer.stop)
    await writer.run()
    await command_log.close()
    store.close()

"""Both loops over one store: bulk never keeps real time waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry
from room_commands import OBJECT, START_MS, Command, document

from headrace.codec import Catalog, CommandBatch
from headrace.registry.catalog import encode_document
from headrace.registry.watch import CatalogWatcher
from headrace.sync.logs.memory import MemoryCommandLog
from headrace.sync.stores.memory import MemoryOnlineStore, MemoryOnlineWriter
from headrace.sync.telemetry import SyncTelemetry
from headrace.sync.writer import WRITER_GROUP
from headrace.sync.writer_role import BULK_LIMITS, WriterRole

NOW_MS = START_MS + 100_000_000
REALTIME_ROOM = 1_000_000


class FixedCatalog:
    """A `CatalogReader` of one generation."""

    async def generation(self) -> int:
        return 1

    async def load(self) -> bytes | None:
        return encode_document(document())


class OneAtATime:
    """A store that writes one batch after the other, as LMDB does, and tells about each."""

    def __init__(self) -> None:
        self.batch_sizes: list[int] = []
        self.keys: set[bytes] = set()
        self._writer = MemoryOnlineWriter(MemoryOnlineStore())
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()

    async def store(self, batch: CommandBatch, catalog: Catalog, *, now_ms: int) -> None:
        async with self._turn:
            await self._writer.store(batch, catalog, now_ms=now_ms)
            self.batch_sizes.append(batch.mutation_count)
            self.keys.update(batch.touched_keys())
            self._changed.set()

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Look again after every batch."""
        async with asyncio.timeout(10):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


def _records(rooms: Sequence[int]) -> list[tuple[bytes, bytes]]:
    commands = [
        Command(OBJECT, "UPDATE", room, START_MS + room, {"viewers": room}) for room in rooms
    ]
    return [(command.key, command.payload) for command in commands]


def _role(log: MemoryCommandLog, store: OneAtATime, bulk_rows_per_s: float | None) -> WriterRole:
    return WriterRole(
        log,
        store,
        CatalogWatcher(FixedCatalog(), lambda: NOW_MS),
        SyncTelemetry(CollectorRegistry()),
        bulk_rows_per_s=bulk_rows_per_s,
    )


def _committed(log: MemoryCommandLog, topic: str) -> int:
    written = log.positions[WRITER_GROUP]
    return sum(offset for (name, _), offset in written.items() if name == topic)


async def test_a_real_time_command_waits_for_a_few_bulk_batches_at_most() -> None:
    """However much bulk is waiting (design 3)."""
    catalog = Catalog(encode_document(document()))
    awaited = catalog.encode_key(OBJECT, {"room_id": REALTIME_ROOM})
    log, store = MemoryCommandLog(), OneAtATime()
    await log.producer().append("bulk", _records(range(40_000)))
    role = _role(log, store, bulk_rows_per_s=None)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(role.run())
        await store.wait_for(lambda: len(store.batch_sizes) >= 3)
        batches_before = len(store.batch_sizes)
        await log.producer().append("realtime", _records([REALTIME_ROOM]))
        await store.wait_for(lambda: awaited in store.keys)
        batches_meanwhile = len(store.batch_sizes) - 1 - batches_before
        role.stop()
    assert batches_meanwhile <= 4
    assert max(store.batch_sizes) == BULK_LIMITS.rows_max
    assert _committed(log, "bulk") < 40_000


async def test_a_rate_limit_holds_for_bulk_and_not_for_real_time() -> None:
    log, store = MemoryCommandLog(), OneAtATime()
    await log.producer().append("bulk", _records(range(1_000)))
    await log.producer().append("realtime", _records(range(2_000, 4_000)))
    role = _role(log, store, bulk_rows_per_s=1.0)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(role.run())
        await store.wait_for(lambda: sum(store.batch_sizes) >= 2_000)
        role.stop()
    assert _committed(log, "realtime") == 2_000
    assert _committed(log, "bulk") <= 10

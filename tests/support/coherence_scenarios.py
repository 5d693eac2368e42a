"""Interleavings that break what is built wrongly, each played exactly: ports held, then let go.

Every one of `SCENARIOS` also runs against the product as it is; the checker must find nothing then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from coherence import LEVEL, NAME, Key
from coherence_workload import Workload, fresh_keys
from coherent_cluster import (
    BRIEF,
    BRIEF_TTL_MS,
    EVENTS_MAX,
    LOCAL_TTL_MS,
    NEAR,
    PATIENT_RULES,
    PLAYS,
    RULES,
    USER_NUMBERS,
    USERS,
    Cluster,
    Design,
    document,
)
from store_reads import now_ms, until

from headrace.codec import Catalog, CommandBatch
from headrace.gateway.ports import Cells, RowReader, Unreachable
from headrace.loadtest.fault_proxy import Pass, Refuse
from headrace.registry.catalog import CatalogDocument, Schema, ValueField
from headrace.sync.ports import CacheInvalidator, OnlineWriter

MIXED_OPERATIONS = 2_500
RANK = "rank"


class Gate:
    """Open, or holding whoever comes."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._free = 0
        self.waiting = 0
        self.passed = 0

    def close(self, *, after: int = 0) -> None:
        """Hold everyone but the next `after`."""
        self._open.clear()
        self._free = after

    def open(self) -> None:
        self._open.set()

    async def pass_by(self) -> None:
        if self._free:
            self._free -= 1
        elif not self._open.is_set():
            self.waiting += 1
            await self._open.wait()
            self.waiting -= 1
        self.passed += 1


class HeldRows:
    """A store's rows, held after they were read."""

    def __init__(self, rows: RowReader, gate: Gate) -> None:
        self._rows = rows
        self._gate = gate

    async def fetch(
        self, catalog: Catalog, wanted: Sequence[tuple[bytes, int | None]], *, limit_ms: int
    ) -> list[Cells | Unreachable]:
        outcomes = await self._rows.fetch(catalog, wanted, limit_ms=limit_ms)
        await self._gate.pass_by()
        return outcomes


class HeldStore:
    """Writes, held before they reach the store."""

    def __init__(self, writer: OnlineWriter, gate: Gate) -> None:
        self._writer = writer
        self._gate = gate

    async def store(self, batch: CommandBatch, catalog: Catalog, *, now_ms: int) -> None:
        await self._gate.pass_by()
        await self._writer.store(batch, catalog, now_ms=now_ms)


class HeldInvalidator:
    """Invalidations, held before they reach the cache."""

    def __init__(self, invalidator: CacheInvalidator, gate: Gate) -> None:
        self._invalidator = invalidator
        self._gate = gate

    async def invalidate(self, keys: Sequence[bytes]) -> None:
        await self._gate.pass_by()
        await self._invalidator.invalidate(keys)


class Play:
    """A cluster's gates and one fresh key; `cluster` is set once it is open."""

    cluster: Cluster

    def __init__(self, design: Design) -> None:
        self.rows: list[Gate] = []
        """By gateway."""
        self.store = Gate()
        self.invalidation = Gate()
        self.key: Key = (USERS, next(USER_NUMBERS))

        def rows(port: RowReader) -> RowReader:
            self.rows.append(Gate())
            return HeldRows(design.rows(port), self.rows[-1])

        if design.rules is RULES:
            design = msgspec.structs.replace(
                design, rules=PATIENT_RULES, document=document(PATIENT_RULES)
            )

        def store(port: OnlineWriter) -> OnlineWriter:
            return HeldStore(design.store(port), self.store)

        def invalidator(port: CacheInvalidator) -> CacheInvalidator:
            return HeldInvalidator(design.invalidator(port), self.invalidation)

        self.design = msgspec.structs.replace(
            design, rows=rows, store=store, invalidator=invalidator
        )

    async def read(self, gateway: int, *keys: Key, reader: str = "reader") -> None:
        await self.cluster.read(reader, keys or (self.key,), gateway)

    async def cached(self, gateway: int, *keys: Key) -> None:
        """Read until the cache holds the keys."""
        await self.read(gateway, *keys, reader="first")
        await self.filled(gateway)

    async def filled(self, gateway: int = 0) -> None:
        """Wait until a gateway neither reads nor fills."""
        reads = self.cluster.gateways[gateway].reads
        await until(lambda: reads.counters()["keys_under_way"] == 0)

    def slow_read(self, gateway: int, *keys: Key) -> asyncio.Task[None]:
        """A read of another reader that stays with the store's answer."""
        self.rows[gateway].close()
        return asyncio.create_task(self.read(gateway, *keys, reader=f"slow at {gateway}"))

    async def holding(self, gateway: int) -> None:
        """Wait until the store has answered that read."""
        await until(lambda: self.rows[gateway].waiting > 0)

    async def let_go(self, gateway: int, slow: asyncio.Task[None]) -> None:
        self.rows[gateway].open()
        await slow
        await self.filled(gateway)


Scenario = Callable[[Play], Awaitable[None]]


async def mixed(play: Play) -> None:
    """Everything at once, seeded."""
    keys = fresh_keys(4)
    await Workload(play.cluster, keys, operations=MIXED_OPERATIONS).run()


async def write_after_fill(play: Play) -> None:
    """Cached, written, read."""
    await play.cluster.write_through(play.key)
    await play.cached(0)
    await play.cluster.write_through(play.key)
    await play.read(0)


async def write_during_read(play: Play) -> None:
    """A reader holds the older value while it is written; then it may fill."""
    await play.cluster.write_through(play.key)
    slow = play.slow_read(0)
    await play.holding(0)
    await play.cluster.write_through(play.key)
    await play.let_go(0, slow)
    await play.read(1)


async def at_rest(play: Play) -> None:
    """The same, and then nobody reads: what is cached is compared with the store."""
    await play.cluster.write_through(play.key)
    await play.cached(1)
    await play.cluster.write_through(play.key)
    slow = play.slow_read(0)
    await play.holding(0)
    await play.cluster.write_through(play.key)
    await play.let_go(0, slow)
    await play.cluster.audit([play.key])


async def absent_during_write(play: Play) -> None:
    """The same with a row that was not there."""
    slow = play.slow_read(0)
    await play.holding(0)
    await play.cluster.write_through(play.key)
    await play.let_go(0, slow)
    await play.read(1)


async def two_leases(play: Play) -> None:
    """A reader holds the older value, its lease is gone, another has taken the next."""
    await play.cluster.write_through(play.key)
    slow = play.slow_read(0)
    await play.holding(0)
    await play.cluster.write_through(play.key)
    slower = play.slow_read(1)
    await play.holding(1)
    await play.let_go(0, slow)
    await play.let_go(1, slower)
    await play.read(2)


async def departed_flight(play: Play) -> None:
    """A reader comes after the write, while an older read of its key is under way."""
    await play.cluster.write_through(play.key)
    slow = play.slow_read(0)
    await play.holding(0)
    await play.cluster.write_through(play.key)
    joined = play.cluster.gateways[0].reads.counters()["joined"]
    late = asyncio.create_task(play.read(0, reader="late"))
    await until(lambda: play.cluster.gateways[0].reads.counters()["joined"] > joined)
    await play.let_go(0, slow)
    await late


async def seen_before_invalidation(play: Play) -> None:
    """A reader sees a write that is not invalidated yet, then an older fill lands."""
    await play.cluster.write_through(play.key)
    slow = play.slow_read(0)
    await play.holding(0)
    play.invalidation.close()
    written = await play.cluster.write(play.key, fields=(LEVEL, NAME))
    await until(lambda: play.cluster.stored(play.key, written))
    await play.read(1)
    await play.let_go(0, slow)
    await play.read(1)
    play.invalidation.open()


async def event_seen_before_invalidation(play: Play) -> None:
    """The same with a History."""
    play.key = (PLAYS, play.key[1])
    await seen_before_invalidation(play)


async def fill_before_store_write(play: Play) -> None:
    """A command has come to the writer, its store write takes time, readers go on."""
    await play.cluster.write_through(play.key)
    await play.cached(0)
    play.store.close()
    written = await play.cluster.write(play.key, fields=(LEVEL, NAME))
    await until(lambda: play.store.waiting > 0)
    await play.cached(0)
    play.store.open()
    await until(lambda: play.cluster.acknowledged(play.key, written))
    await play.read(1)


async def between_store_calls(play: Play) -> None:
    """Whatever a writer stores first is read before it stores more."""
    await play.cluster.write_through(play.key)
    passed = play.store.passed
    play.store.close(after=1)
    written = await play.cluster.write(play.key, fields=(LEVEL, NAME))
    await until(lambda: play.store.passed > passed)
    await until(lambda: play.store.waiting > 0 or play.cluster.acknowledged(play.key, written))
    await play.read(0)
    play.store.open()


async def writers_without_cache(play: Play) -> None:
    """The writers cannot reach the cache, which still holds what they overwrote."""
    await play.cluster.write_through(play.key)
    await play.cached(0)
    proxy = play.cluster.proxies[-1]
    proxy.fault = Refuse()
    written = await play.cluster.write(play.key, fields=(LEVEL, NAME))
    await until(lambda: play.cluster.stored(play.key, written))
    await play.read(1)
    for _ in range(20):  # Whoever commits without the invalidation has done so by now.
        await play.read(1)
    proxy.fault = Pass()


async def store_outage(play: Play) -> None:
    """One gateway cannot reach the store."""
    await play.cluster.write_through(play.key)
    play.cluster.store_outage(play.cluster.rows[0], begins=True)
    await play.read(0)
    play.cluster.store_outage(play.cluster.rows[0], begins=False)


async def expiry(play: Play) -> None:
    """A row read before and after its end, and the life that its block was given."""
    key = (BRIEF, play.key[1])
    at_ms = await play.cluster.write_through(key, late_ms=BRIEF_TTL_MS - 700)
    await play.cached(0, key)
    await play.cluster.audit([key])
    await until(lambda: now_ms() > at_ms + BRIEF_TTL_MS)
    await play.read(0, key)
    await play.read(1, key)


async def late_write(play: Play) -> None:
    """An older event comes after a newer one."""
    await play.cluster.write_through(play.key)
    await play.cluster.write_through(play.key, late_ms=100)
    await play.read(0)


async def partial_write(play: Play) -> None:
    """One field of a record is set anew."""
    await play.cluster.write_through(play.key)
    await play.cluster.write_through(play.key, fields=(LEVEL,))
    await play.read(0)


async def two_keys(play: Play) -> None:
    """Two rows in one request, from the store and from the cache."""
    keys: list[Key] = [play.key, (USERS, next(USER_NUMBERS))]
    for key in keys:
        await play.cluster.write_through(key)
    await play.cached(0, *keys)
    await play.read(0, *keys)


async def one_of_two_written_during_read(play: Play) -> None:
    """A reader holds the older values of two rows while the second is written; then it may fill."""
    keys: list[Key] = [play.key, (USERS, next(USER_NUMBERS))]
    for key in keys:
        await play.cluster.write_through(key)
    slow = play.slow_read(0, *keys)
    await play.holding(0)
    await play.cluster.write_through(keys[1])
    await play.let_go(0, slow)
    await play.read(1, *keys)


async def one_of_two_seen_before_invalidation(play: Play) -> None:
    """A reader sees the write of the second of two rows before its invalidation, then an older fill
    of both lands."""
    keys: list[Key] = [play.key, (USERS, next(USER_NUMBERS))]
    for key in keys:
        await play.cluster.write_through(key)
    slow = play.slow_read(0, *keys)
    await play.holding(0)
    play.invalidation.close()
    written = await play.cluster.write(keys[1], fields=(LEVEL, NAME))
    await until(lambda: play.cluster.stored(keys[1], written))
    await play.read(1, *keys)
    await play.let_go(0, slow)
    await play.read(1, *keys)
    play.invalidation.open()


async def kept_in_process(play: Play) -> None:
    """A row that a gateway may keep for a while is written; the while passes."""
    key = (NEAR, play.key[1])
    await play.cluster.write_through(key)
    await play.cached(0, key)
    await play.read(0, key)
    await play.cluster.write_through(key)
    await play.read(0, key)
    over_ms = now_ms() + LOCAL_TTL_MS + 1
    await until(lambda: now_ms() > over_ms)
    await play.read(0, key)


async def kept_and_written(play: Play) -> None:
    """Cached, read from there, written, read."""
    await play.cluster.write_through(play.key)
    await play.cached(0)
    await play.read(0)
    await play.cluster.write_through(play.key)
    await play.read(0)


async def history(play: Play) -> None:
    """More events than are kept, from the store and from the cache."""
    key = (PLAYS, play.key[1])
    for _ in range(EVENTS_MAX + 2):
        await play.cluster.write_through(key)
    await play.cached(0, key)
    await play.read(1, key)


async def deleted(play: Play) -> None:
    """A cached row and a cached History are deleted."""
    keys: list[Key] = [play.key, (PLAYS, play.key[1])]
    for key in keys:
        await play.cluster.write_through(key)
    await play.cached(0, *keys)
    for key in keys:
        await play.cluster.write_through(key, fields=())
    await play.read(0, *keys)


async def two_generations(play: Play) -> None:
    """A gateway of an older generation reads a row that names a field it does not know."""
    await play.cluster.write_through(play.key, fields=(LEVEL, NAME, RANK))
    await play.cluster.write_through(play.key, fields=(RANK,))
    await play.cluster.read("older", [play.key], 0, fields=(LEVEL, NAME))
    await play.filled()
    await play.read(1)


def kept_longer(local_ttl_ms: int) -> Design:
    """Gateways keep every row in the process for longer than its group declares."""
    longer = {
        name: msgspec.structs.replace(rules, local_ttl_ms=local_ttl_ms)
        for name, rules in PATIENT_RULES.items()
    }
    return Design(rules=PATIENT_RULES, document=document(longer))


def newer_document() -> CatalogDocument:
    """The next generation, in which users have a rank."""
    made = document(PATIENT_RULES)
    rank = ValueField(id=3, name=RANK, type="Long", default=0)
    groups = tuple(
        msgspec.structs.replace(
            group,
            schemas=(
                *group.schemas,
                Schema(ordinal=2, fields=(*group.schemas[0].fields, rank)),
            ),
        )
        for group in made.groups
    )
    return msgspec.structs.replace(made, generation=2, groups=groups)


def two_generations_design() -> Design:
    """The writers and two gateways are of the newer generation, one gateway is not."""
    rules = {
        name: msgspec.structs.replace(rule, fields=(LEVEL, NAME, RANK))
        for name, rule in PATIENT_RULES.items()
    }
    return Design(document=newer_document(), older=document(PATIENT_RULES), rules=rules)


SCENARIOS: tuple[Scenario, ...] = (
    write_after_fill,
    write_during_read,
    at_rest,
    absent_during_write,
    two_leases,
    departed_flight,
    seen_before_invalidation,
    event_seen_before_invalidation,
    fill_before_store_write,
    between_store_calls,
    writers_without_cache,
    store_outage,
    expiry,
    late_write,
    partial_write,
    two_keys,
    one_of_two_written_during_read,
    one_of_two_seen_before_invalidation,
    kept_in_process,
    kept_and_written,
    history,
    deleted,
    two_generations,
)

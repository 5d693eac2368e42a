"""Bugs that coherent caches are known for, planted from outside: in ports, scripts, subclasses.

Nothing in the product knows of them. Each names the scenario that must show it and the promise that
the checker must find broken.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import coherence_scenarios as scenarios
import msgspec
import pytest
from codec_bytes import crc32c, open_block, open_cell
from coherence import LEVEL, NAME
from coherence_scenarios import Scenario
from coherent_cluster import Design
from planted_scripts import (
    FILL_ABSENT_ALWAYS,
    FILL_BY_THE_FIRST_LEASE,
    FILL_UNLESS_ANOTHERS,
    FILL_WITHOUT_OBSERVATION,
    UNCONDITIONAL_FILL,
)
from store_reads import now_ms

from headrace.codec import (
    CachedReads,
    Catalog,
    CommandBatch,
    Placement,
    ReadEngine,
    encode_commands,
)
from headrace.gateway.cached import flights, reads
from headrace.gateway.cached.flights import Boarded, Flights, Wanted
from headrace.gateway.cached.scripts import Script
from headrace.gateway.ports import Cells, RowReader, Unreachable
from headrace.registry.cache_url import CacheUrl
from headrace.sync import writer as writer_module
from headrace.sync.batch import Batch
from headrace.sync.errors import CacheUnavailable
from headrace.sync.ports import CacheInvalidator, LogRecord
from headrace.sync.writer import Writer

Patch = Callable[[pytest.MonkeyPatch], None]


class PlantedBug(msgspec.Struct, kw_only=True):
    """One wrong part, where it shows, and as what."""

    name: str
    scenario: Scenario
    rules: frozenset[str]
    design: Design = msgspec.field(default_factory=Design)
    patch: Patch = lambda patch: None


def script(name: str, text: Script) -> Patch:
    """Another script in the place of one."""
    return lambda patch: patch.setattr(flights, name, text)


def of_flights(kind: type[Flights]) -> Patch:
    """Other flights."""
    return lambda patch: patch.setattr(reads, "Flights", kind)


class OneToken:
    """`secrets`, drawn once."""

    @staticmethod
    def token_bytes(count: int) -> bytes:
        return b"x" * count


class TrustingFlights(Flights):
    """Who comes late takes the outcome as if it had come in time."""

    def board(
        self, catalog: Catalog, wanted: Sequence[Wanted], *, due_s: float, alone: bool
    ) -> list[Boarded]:
        boarded = super().board(catalog, wanted, due_s=due_s, alone=alone)
        return [(slot, flight, False) for slot, flight, _ in boarded]


class SilentFlights(Flights):
    """Who lacks the lease keeps what it saw to itself."""

    async def observe(self, seen: Sequence[tuple[bytes, bytes]]) -> None:
        """Nothing."""


class ShortSightedFlights(Flights):
    """Who lacks several leases tells what it saw of the first row."""

    async def observe(self, seen: Sequence[tuple[bytes, bytes]]) -> None:
        await super().observe(seen[:1])


class LonelyFlights(Flights):
    """All readers but the first ask the store alone, as the last try of a read does."""

    anyone = False

    def board(
        self, catalog: Catalog, wanted: Sequence[Wanted], *, due_s: float, alone: bool
    ) -> list[Boarded]:
        alone = alone or LonelyFlights.anyone
        LonelyFlights.anyone = True
        return super().board(catalog, wanted, due_s=due_s, alone=alone)


class SilentLonelyFlights(LonelyFlights):
    """And they tell the cache nothing."""

    async def observe(self, seen: Sequence[tuple[bytes, bytes]]) -> None:
        """Nothing."""


def lonely(kind: type[LonelyFlights]) -> Patch:
    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(LonelyFlights, "anyone", False)
        patch.setattr(reads, "Flights", kind)

    return plant


class Rows:
    """Rows that something happens to."""

    def __init__(self, rows: RowReader) -> None:
        self._rows = rows

    async def fetch(
        self, catalog: Catalog, wanted: Sequence[tuple[bytes, int | None]], *, limit_ms: int
    ) -> list[Cells | Unreachable]:
        outcomes = await self._rows.fetch(catalog, wanted, limit_ms=limit_ms)
        return self.spoil(catalog, wanted, outcomes)

    def spoil(
        self,
        catalog: Catalog,
        wanted: Sequence[tuple[bytes, int | None]],
        outcomes: list[Cells | Unreachable],
    ) -> list[Cells | Unreachable]:
        return [self.spoil_one(outcome) for outcome in outcomes]

    def spoil_one(self, outcome: Cells | Unreachable) -> Cells | Unreachable:
        return outcome


class OutageIsMissing(Rows):
    """A store out of reach holds no rows, it seems."""

    def spoil_one(self, outcome: Cells | Unreachable) -> Cells | Unreachable:
        return Cells([]) if isinstance(outcome, Unreachable) else outcome


class OutageIsDefault(Rows):
    """A store out of reach holds defaults, it seems."""

    def spoil(
        self,
        catalog: Catalog,
        wanted: Sequence[tuple[bytes, int | None]],
        outcomes: list[Cells | Unreachable],
    ) -> list[Cells | Unreachable]:
        return [
            Cells([(0, self._defaults(catalog, key))])
            if isinstance(outcome, Unreachable)
            else outcome
            for (key, _), outcome in zip(wanted, outcomes, strict=True)
        ]

    def _defaults(self, catalog: Catalog, key: bytes) -> bytes:
        group, keys = catalog.decode_key(key)
        values = {LEVEL: 7, NAME: "", "_last_updated_at_ms": now_ms()}
        command = {"feature_name": group, "method": "UPDATE", "keys": keys, "values": values}
        batch = encode_commands(catalog, [msgspec.json.encode(command)], now_ms=now_ms())
        return batch.mutations()[0].cell


class RowsInWrongOrder(Rows):
    """Answers come to the wrong keys."""

    def spoil(
        self,
        catalog: Catalog,
        wanted: Sequence[tuple[bytes, int | None]],
        outcomes: list[Cells | Unreachable],
    ) -> list[Cells | Unreachable]:
        return outcomes[::-1]


class RowsWithoutPatches(Rows):
    """The fold leaves out fields that were set on their own."""

    def spoil_one(self, outcome: Cells | Unreachable) -> Cells | Unreachable:
        if isinstance(outcome, Unreachable):
            return outcome
        return Cells([cell for cell in outcome.cells if cell[0] == 0])


class RowsOfKnownSchemas(Rows):
    """Cells of a newer generation are left out instead of asking for it."""

    def spoil(
        self,
        catalog: Catalog,
        wanted: Sequence[tuple[bytes, int | None]],
        outcomes: list[Cells | Unreachable],
    ) -> list[Cells | Unreachable]:
        return [
            Cells([cell for cell in outcome.cells if self._is_known(catalog, *cell)])
            if isinstance(outcome, Cells)
            else outcome
            for outcome in outcomes
        ]

    def _is_known(self, catalog: Catalog, field: int, cell: bytes) -> bool:
        newest_field = 3 if catalog.generation > 1 else 2
        return field <= newest_field and (
            field > 0 or catalog.avro_schema(open_cell(cell).fingerprint) is not None
        )


class ShortHistories(Rows):
    """A request's limit decides what is read, and so what is cached."""

    async def fetch(
        self, catalog: Catalog, wanted: Sequence[tuple[bytes, int | None]], *, limit_ms: int
    ) -> list[Cells | Unreachable]:
        short = [(key, None if events is None else 2) for key, events in wanted]
        return await self._rows.fetch(catalog, short, limit_ms=limit_ms)


class AlwaysOut(Rows):
    """A store that is there is said to be out of reach."""

    def spoil_one(self, outcome: Cells | Unreachable) -> Cells | Unreachable:
        return Unreachable("so it seems")


class DamagedCells(Rows):
    """A bit of every cell is flipped."""

    def spoil_one(self, outcome: Cells | Unreachable) -> Cells | Unreachable:
        if isinstance(outcome, Unreachable):
            return outcome
        return Cells([(field, cell[:-1] + bytes([cell[-1] ^ 1])) for field, cell in outcome.cells])


class OldestFirst(Rows):
    """Events come in the order in which they became true."""

    def spoil_one(self, outcome: Cells | Unreachable) -> Cells | Unreachable:
        return outcome if isinstance(outcome, Unreachable) else Cells(outcome.cells[::-1])


class NoInvalidation:
    """The cache is never told of a write."""

    def __init__(self, invalidator: CacheInvalidator) -> None:
        self._invalidator = invalidator

    async def invalidate(self, keys: Sequence[bytes]) -> None:
        """Nothing."""


class ForgivingInvalidation(NoInvalidation):
    """A cache that cannot be reached is as good as invalidated."""

    async def invalidate(self, keys: Sequence[bytes]) -> None:
        try:
            await self._invalidator.invalidate(keys)
        except CacheUnavailable:
            return


class BlocksOnly(NoInvalidation):
    """Leases outlive the write."""

    async def invalidate(self, keys: Sequence[bytes]) -> None:
        from redis.asyncio import Redis

        host, port = BlocksOnly.node
        placement = Placement([f"{host}:{port}"], epoch=1)
        async with Redis(host=host, port=port) as redis:
            await redis.delete(*(placement.block_key(key) for key in keys))

    node: tuple[str, int] = ("", 0)
    """Where the cache is; set by `blocks_only`."""


def blocks_only(patch: pytest.MonkeyPatch) -> None:
    """Learn the node from the first gateway's cache."""
    original = CacheUrl.parse

    def parse(text: str) -> CacheUrl:
        url = original(text)
        patch.setattr(BlocksOnly, "node", (url.nodes[0].host, url.nodes[0].port))
        return url

    patch.setattr(CacheUrl, "parse", parse)


class CommitsFirst(Writer):
    """Offsets are committed before the store has the writes."""

    async def _store(self, batch: Batch) -> None:
        await self._ports.consumer.commit(batch.next_offsets)
        await super()._store(batch)


class InvalidatesFirst(Writer):
    """The cache is told before the store has the writes."""

    async def _store(self, batch: Batch) -> None:
        encoded, _ = batch.decoded()
        if self._ports.invalidator is not None:
            await self._ports.invalidator.invalidate(encoded.touched_keys())
        await super()._store(batch)
        batch.keys = ()


class OrdersByArrival(Writer):
    """Writes count from when they come, not from when they became true."""

    async def _encode(self, catalog: Catalog, payloads: Sequence[bytes]) -> CommandBatch:
        commands: list[dict[str, Any]] = [msgspec.json.decode(payload) for payload in payloads]
        for command in commands:
            command["values"]["_last_updated_at_ms"] = now_ms()
        return await super()._encode(catalog, [msgspec.json.encode(each) for each in commands])


class SplitsRecords(Writer):
    """A whole record is written field by field."""

    async def _write(
        self,
        records: Sequence[LogRecord],
        encoded: CommandBatch,
        catalog: Catalog,
    ) -> None:
        for field in (LEVEL, NAME):
            commands = [msgspec.json.decode(record.value) for record in records]
            for command in commands:
                kept = (field, "_last_updated_at_ms")
                command["values"] = {name: command["values"][name] for name in kept}
            part = await self._encode(catalog, [msgspec.json.encode(each) for each in commands])
            await super()._write(records, part, catalog)


class BlindReads:
    """`CachedReads` whose checks are off: what came wrongly gets the right digest and checksum."""

    def __init__(
        self, engine: ReadEngine, placement: Placement, *, local_bytes_max: int = 0
    ) -> None:
        self._reads = CachedReads(engine, placement, local_bytes_max=local_bytes_max)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reads, name)

    def feed(self, node: int, received: bytes, *, now_ms: int) -> Any:
        return self._reads.feed(node, spoiled_reply(received, self.spoil), now_ms=now_ms)

    @staticmethod
    def spoil(blocks: list[bytes]) -> list[bytes]:
        return blocks


class BlindToKeys(BlindReads):
    """Two rows of one reply change places."""

    @staticmethod
    def spoil(blocks: list[bytes]) -> list[bytes]:
        return [
            resealed(own, others[14:])
            for own, others in zip(blocks, blocks[1:] + blocks[:1], strict=True)
        ]


class BlindToDamage(BlindReads):
    """A bit of the last value is flipped."""

    @staticmethod
    def spoil(blocks: list[bytes]) -> list[bytes]:
        return [resealed(block, block[14:-1] + bytes([block[-1] ^ 1])) for block in blocks]


def resealed(own: bytes, rest: bytes) -> bytes:
    """A block of the same key around other contents."""
    assert open_block(own)
    head, digest = own[:2], own[6:14]
    return head + struct.pack("<I", crc32c(head + digest + rest)) + digest + rest


BLOCK_BYTES_MIN = 30
"""Of a block's header (semantics 7)."""


def spoiled_reply(received: bytes, spoil: Callable[[list[bytes]], list[bytes]]) -> bytes:
    """A lone reply of blocks only, spoiled; anything else as it came."""
    lines = received.split(b"\r\n", 1)
    if not lines[0].startswith(b"*") or not received.endswith(b"\r\n"):
        return received
    blocks: list[bytes] = []
    start = len(lines[0]) + 2
    for _ in range(int(lines[0][1:])):
        end = received.find(b"\r\n", start)
        if received[start : start + 1] != b"$" or received[start + 1 : start + 2] == b"-":
            return received
        length = int(received[start + 1 : end])
        if length < BLOCK_BYTES_MIN:  # What a script answers.
            return received
        blocks.append(received[end + 2 : end + 2 + length])
        start = end + length + 4
    if start != len(received):
        return received
    parts = [b"$%d\r\n%b\r\n" % (len(block), block) for block in spoil(blocks)]
    return lines[0] + b"\r\n" + b"".join(parts)


def blind(kind: type[BlindReads]) -> Patch:
    return lambda patch: patch.setattr(reads, "CachedReads", kind)


def slow_clock() -> int:
    """A gateway's clock that is a minute behind."""
    return now_ms() - 60_000


def released_at_once(patch: pytest.MonkeyPatch) -> None:
    """Held offsets are committed without waiting for older blocks to end."""

    def no_time(keys: Iterable[bytes], times_ms: Mapping[int, int]) -> int:
        return 0

    patch.setattr(writer_module, "longest_hold_ms", no_time)


def whole_life(patch: pytest.MonkeyPatch) -> None:
    """Every block lives as long as the cache's ttl, whatever its row has left."""

    def minute(ttl_ms: int) -> int:
        return 60_000

    patch.setattr(reads, "jittered", minute)


STALE, LOST = frozenset({"stale"}), frozenset({"lost"})

PLANTED = (
    PlantedBug(
        name="fill without lease",
        scenario=scenarios.write_during_read,
        rules=STALE,
        patch=script("FILL", UNCONDITIONAL_FILL),
    ),
    PlantedBug(
        name="fill without lease, at random",
        scenario=scenarios.mixed,
        rules=frozenset({"stale", "lost", "backwards"}),
        design=Design(longest_lag_ms=25),
        patch=script("FILL", UNCONDITIONAL_FILL),
    ),
    PlantedBug(
        name="fill without lease, seen at rest",
        scenario=scenarios.at_rest,
        rules=frozenset({"incoherent"}),
        patch=script("FILL", UNCONDITIONAL_FILL),
    ),
    PlantedBug(
        name="fill after the lease is lost",
        scenario=scenarios.write_during_read,
        rules=STALE,
        patch=script("FILL", FILL_UNLESS_ANOTHERS),
    ),
    PlantedBug(
        name="absent rows cached without lease",
        scenario=scenarios.absent_during_write,
        rules=LOST,
        patch=script("FILL", FILL_ABSENT_ALWAYS),
    ),
    PlantedBug(
        name="lease tokens not random",
        scenario=scenarios.two_leases,
        rules=STALE,
        patch=lambda patch: patch.setattr(flights, "secrets", OneToken),
    ),
    PlantedBug(
        name="departed flight joined",
        scenario=scenarios.departed_flight,
        rules=STALE,
        patch=of_flights(TrustingFlights),
    ),
    PlantedBug(
        name="observation not told",
        scenario=scenarios.seen_before_invalidation,
        rules=frozenset({"backwards"}),
        patch=of_flights(SilentFlights),
    ),
    PlantedBug(
        name="observation of events not told",
        scenario=scenarios.event_seen_before_invalidation,
        rules=frozenset({"backwards"}),
        patch=of_flights(SilentFlights),
    ),
    PlantedBug(
        name="observation not heeded",
        scenario=scenarios.seen_before_invalidation,
        rules=frozenset({"backwards"}),
        patch=script("FILL", FILL_WITHOUT_OBSERVATION),
    ),
    PlantedBug(
        name="observation of a last try not told",
        scenario=scenarios.seen_before_invalidation,
        rules=frozenset({"backwards"}),
        patch=lonely(SilentLonelyFlights),
    ),
    PlantedBug(
        name="one lease taken for all of a call",
        scenario=scenarios.one_of_two_written_during_read,
        rules=STALE,
        patch=script("FILL", FILL_BY_THE_FIRST_LEASE),
    ),
    PlantedBug(
        name="observation of the first row told alone",
        scenario=scenarios.one_of_two_seen_before_invalidation,
        rules=frozenset({"backwards"}),
        patch=of_flights(ShortSightedFlights),
    ),
    PlantedBug(
        name="commit before store write",
        scenario=scenarios.fill_before_store_write,
        rules=STALE,
        design=Design(writer=CommitsFirst),
    ),
    PlantedBug(
        name="invalidation before store write",
        scenario=scenarios.fill_before_store_write,
        rules=STALE,
        design=Design(writer=InvalidatesFirst),
    ),
    PlantedBug(
        name="no invalidation",
        scenario=scenarios.write_after_fill,
        rules=STALE,
        design=Design(invalidator=NoInvalidation),
    ),
    PlantedBug(
        name="no invalidation of deletes",
        scenario=scenarios.deleted,
        rules=STALE,
        design=Design(invalidator=NoInvalidation),
    ),
    PlantedBug(
        name="lease not invalidated",
        scenario=scenarios.write_during_read,
        rules=STALE,
        design=Design(invalidator=BlocksOnly),
        patch=blocks_only,
    ),
    PlantedBug(
        name="failed invalidation taken as done",
        scenario=scenarios.writers_without_cache,
        rules=STALE,
        design=Design(invalidator=ForgivingInvalidation),
    ),
    PlantedBug(
        name="held offsets released at once",
        scenario=scenarios.writers_without_cache,
        rules=STALE,
        patch=released_at_once,
    ),
    PlantedBug(
        name="order from arrival",
        scenario=scenarios.late_write,
        rules=STALE,
        design=Design(writer=OrdersByArrival),
    ),
    PlantedBug(
        name="ttl from arrival",
        scenario=scenarios.expiry,
        rules=frozenset({"expired"}),
        design=Design(writer=OrdersByArrival),
    ),
    PlantedBug(
        name="block served past its end",
        scenario=scenarios.expiry,
        rules=frozenset({"expired"}),
        design=Design(clock=slow_clock),
    ),
    PlantedBug(
        name="block given a life past its end",
        scenario=scenarios.expiry,
        rules=frozenset({"life"}),
        patch=whole_life,
    ),
    PlantedBug(
        name="swapped rows, digests unchecked",
        scenario=scenarios.two_keys,
        rules=frozenset({"never written"}),
        patch=blind(BlindToKeys),
    ),
    PlantedBug(
        name="garbled bytes, checksums unchecked",
        scenario=scenarios.two_keys,
        rules=frozenset({"never written"}),
        patch=blind(BlindToDamage),
    ),
    PlantedBug(
        name="store answers to the wrong keys",
        scenario=scenarios.two_keys,
        rules=frozenset({"never written"}),
        design=Design(rows=RowsInWrongOrder),
    ),
    PlantedBug(
        name="record written field by field",
        scenario=scenarios.between_store_calls,
        rules=frozenset({"torn"}),
        design=Design(writer=SplitsRecords),
    ),
    PlantedBug(
        name="patches left out of the fold",
        scenario=scenarios.partial_write,
        rules=STALE,
        design=Design(rows=RowsWithoutPatches),
    ),
    PlantedBug(
        name="fill under an older generation",
        scenario=scenarios.two_generations,
        rules=LOST,
        design=msgspec.structs.replace(scenarios.two_generations_design(), rows=RowsOfKnownSchemas),
    ),
    PlantedBug(
        name="outage answered as missing",
        scenario=scenarios.store_outage,
        rules=LOST,
        design=Design(rows=OutageIsMissing),
    ),
    PlantedBug(
        name="outage answered with defaults",
        scenario=scenarios.store_outage,
        rules=frozenset({"never written"}),
        design=Design(rows=OutageIsDefault),
    ),
    PlantedBug(
        name="outage told without one",
        scenario=scenarios.partial_write,
        rules=frozenset({"unavailable"}),
        design=Design(rows=AlwaysOut),
    ),
    PlantedBug(
        name="cells damaged on their way",
        scenario=scenarios.partial_write,
        rules=frozenset({"corrupt"}),
        design=Design(rows=DamagedCells),
    ),
    PlantedBug(
        name="events oldest first",
        scenario=scenarios.history,
        rules=frozenset({"disorder"}),
        design=Design(rows=OldestFirst),
    ),
    PlantedBug(
        name="rows kept in process beyond local_ttl",
        scenario=scenarios.kept_in_process,
        rules=STALE,
        design=scenarios.kept_longer(60_000),
    ),
    PlantedBug(
        name="rows kept in process without local_ttl",
        scenario=scenarios.kept_and_written,
        rules=STALE,
        design=scenarios.kept_longer(60_000),
    ),
    PlantedBug(
        name="history cut short by a limited fill",
        scenario=scenarios.history,
        rules=LOST,
        design=Design(rows=ShortHistories),
    ),
)

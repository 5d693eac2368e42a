"""The writer's loop: order of stages, poison, retries, held commits, stopping."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from room_commands import (
    HISTORY,
    MAX_EVENTS,
    OBJECT,
    POISONS,
    START_MS,
    Command,
    commands,
    document,
    expected_events,
    expected_objects,
    poison,
)

from headrace.codec import Catalog, CommandBatch
from headrace.registry.catalog import CatalogDocument, encode_document
from headrace.registry.watch import CatalogWatcher
from headrace.sync.dead_letters import list_letters, replay
from headrace.sync.errors import CacheUnavailable, LogUnavailable, StoreRefused, StoreUnavailable
from headrace.sync.logs.memory import MemoryCommandLog, MemoryConsumer, MemoryDeadLetters
from headrace.sync.ports import (
    BATCH_BYTES_MAX,
    Coordinates,
    DeadLetter,
    LogRecord,
    PartitionId,
)
from headrace.sync.stores.memory import MemoryOnlineStore
from headrace.sync.telemetry import SyncTelemetry
from headrace.sync.writer import WRITER_GROUP, Writer, WriterLimits, WriterPorts

NOW_MS = START_MS + 1_000_000
ROOMS = 30


class Reader:
    """A `CatalogReader` whose generation a test can change."""

    def __init__(self, published: CatalogDocument | None) -> None:
        self.published = published
        self.looks = 0
        self.failures = 0

    async def generation(self) -> int:
        self.looks += 1
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("the catalog is out of reach")
        return self.published.generation if self.published else 0

    async def load(self) -> bytes | None:
        return encode_document(self.published) if self.published else None


class Journal:
    """What happened, in order: the stages as the ports saw them."""

    def __init__(self) -> None:
        self.entries: list[str] = []
        self._changed = asyncio.Event()

    def note(self, entry: str) -> None:
        self.entries.append(entry)
        self._changed.set()

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Look again after every entry."""
        async with asyncio.timeout(10):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


class NotingConsumer(MemoryConsumer):
    """The memory consumer, noting what it does; its commits can fail."""

    def __init__(self, log: MemoryCommandLog, journal: Journal) -> None:
        super().__init__(log, "realtime", WRITER_GROUP, "writer")
        self.commit_failures = 0
        self._journal = journal

    async def poll(
        self, *, rows_max: int, wait_ms: int, bytes_max: int = BATCH_BYTES_MAX
    ) -> list[LogRecord]:
        records = await super().poll(rows_max=rows_max, wait_ms=wait_ms, bytes_max=bytes_max)
        self._journal.note("poll" if records else "empty poll")
        return records

    async def heartbeat(self) -> None:
        await super().heartbeat()
        self._journal.note("heartbeat")

    async def commit(self, offsets: Mapping[PartitionId, int]) -> None:
        if self.commit_failures:
            self.commit_failures -= 1
            raise LogUnavailable("away")
        await super().commit(offsets)
        self._journal.note("commit")


class NotingDeadLetters(MemoryDeadLetters):
    """The memory dead letters, noting what they get."""

    def __init__(self, log: MemoryCommandLog, journal: Journal) -> None:
        super().__init__(log)
        self._journal = journal

    async def append(self, letters: Sequence[DeadLetter]) -> None:
        await super().append(letters)
        self._journal.note("bury")


class Store:
    """The memory store; can be down for a while, or refuse one room for good."""

    def __init__(self, journal: Journal) -> None:
        self.rows = MemoryOnlineStore()
        self.failures = 0
        self.refused_key: bytes | None = None
        self.rows_written = 0
        self.on_store: Callable[[], Awaitable[None]] | None = None
        self._journal = journal

    async def store(self, batch: CommandBatch, catalog: Catalog, *, now_ms: int) -> None:
        if self.failures:
            self.failures -= 1
            self._journal.note("store down")
            raise StoreUnavailable("down")
        if self.refused_key in batch.touched_keys():
            raise StoreRefused("a row of this key can never be stored")
        if self.on_store is not None:
            await self.on_store()
        self.rows.apply(batch)
        self.rows_written += batch.mutation_count
        self._journal.note("store")


class Cache:
    """An invalidator that can be down."""

    def __init__(self, journal: Journal) -> None:
        self.down = False
        self.dead: frozenset[bytes] = frozenset()
        """Keys of a node that is dead, while others are alive."""
        self.invalidated: list[bytes] = []
        self._journal = journal

    async def invalidate(self, keys: Sequence[bytes]) -> None:
        if self.down:
            self._journal.note("cache down")
            raise CacheUnavailable("refused", keys)
        self.invalidated += [key for key in keys if key not in self.dead]
        if left := [key for key in keys if key in self.dead]:
            raise CacheUnavailable("one node refused", left)
        self._journal.note("invalidate")


class Bench:
    """A writer on memory engines and the real codec, with a clock that stands still."""

    def __init__(self, *, published: CatalogDocument | None, cache: bool = False) -> None:
        self.journal = Journal()
        self.log = MemoryCommandLog(now_ms=lambda: NOW_MS)
        self.reader = Reader(published)
        self.store = Store(self.journal)
        self.cache = Cache(self.journal) if cache else None
        self.registry = CollectorRegistry()
        self.telemetry = SyncTelemetry(self.registry).topic("realtime")
        self.steady_ms = 0
        self.consumer = NotingConsumer(self.log, self.journal)
        self.ports = WriterPorts(
            consumer=self.consumer,
            dead_letters=NotingDeadLetters(self.log, self.journal),
            store=self.store,
            catalog=CatalogWatcher(self.reader, lambda: NOW_MS),
            invalidator=self.cache,
        )
        self.limits = WriterLimits(rows_max=500, age_max_ms=0, wait_ms=5, held_keys_max=40)

    def writer(self) -> Writer:
        return Writer(
            "realtime",
            self.ports,
            self.telemetry,
            limits=self.limits,
            now_ms=lambda: NOW_MS,
            steady_ms=lambda: self.steady_ms,
            draw=lambda: 0.0,
        )

    async def send(self, stream: Sequence[Command]) -> None:
        await self.send_bytes([(command.key, command.payload) for command in stream])

    async def send_bytes(self, records: Sequence[tuple[bytes, bytes]]) -> list[Coordinates]:
        return await self.log.producer().append("realtime", records)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Writer]:
        writer = self.writer()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(writer.run())
            yield writer
            writer.stop()

    async def write_all(self) -> None:
        """Run a writer until the log is committed to its end."""
        async with self.running():
            await self.journal.wait_for(lambda: self.lag == 0)

    @property
    def lag(self) -> int:
        committed = self.log.positions[WRITER_GROUP]
        records = self.log.records
        return sum(len(records[place]) - committed.get(place, 0) for place in list(records))

    @property
    def stages(self) -> list[str]:
        """The journal without what only keeps the writer in its group."""
        return [entry for entry in self.journal.entries if entry not in ("empty poll", "heartbeat")]

    def objects(self, catalog: Catalog) -> dict[int, dict[str, object]]:
        keys = [catalog.encode_key(OBJECT, {"room_id": room}) for room in range(ROOMS)]
        rows = self.store.rows.fetch_object(catalog, keys, now_ms=NOW_MS)
        return {room: row.values for room, row in enumerate(rows) if row is not None}

    def events(self, catalog: Catalog) -> dict[int, list[tuple[int, dict[str, object]]]]:
        keys = [catalog.encode_key(HISTORY, {"room_id": room}) for room in range(ROOMS)]
        rows = self.store.rows.fetch_history(catalog, keys, limit=MAX_EVENTS, now_ms=NOW_MS)
        return {room: events for room, events in enumerate(rows) if events}

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, {"topic": "realtime", **labels}) or 0.0


def _update(room_id: int, number: int = 0) -> Command:
    return Command(OBJECT, "UPDATE", room_id, START_MS + number, {"viewers": number})


@pytest.fixture
def catalog() -> Catalog:
    return Catalog(encode_document(document()))


@pytest.fixture
def bench() -> Bench:
    return Bench(published=document())


async def test_everything_on_the_log_ends_in_the_store(bench: Bench, catalog: Catalog) -> None:
    stream = commands(random.Random(1), 3_000, rooms=ROOMS)
    await bench.send(stream)
    await bench.write_all()
    assert bench.objects(catalog) == expected_objects(stream)
    assert bench.events(catalog) == expected_events(stream)


async def test_the_stages_follow_each_other_in_their_only_order() -> None:
    bench = Bench(published=document(), cache=True)
    await bench.send([_update(1)])
    await bench.send_bytes([(b"bad", b"{")])
    await bench.write_all()
    assert bench.stages == ["poll", "bury", "store", "invalidate", "commit"]


async def test_a_restart_without_commits_replays_harmlessly(bench: Bench, catalog: Catalog) -> None:
    stream = commands(random.Random(2), 2_000, rooms=ROOMS)
    await bench.send(stream)
    await bench.write_all()
    bench.log.positions.clear()
    bench.consumer = NotingConsumer(bench.log, bench.journal)
    bench.ports = msgspec.structs.replace(bench.ports, consumer=bench.consumer)
    await bench.write_all()
    assert bench.objects(catalog) == expected_objects(stream)
    assert bench.events(catalog) == expected_events(stream)


async def test_hostile_commands_all_become_dead_letters_and_good_ones_are_all_written(
    bench: Bench, catalog: Catalog
) -> None:
    """1 % of 20,000 messages are hostile: product 3."""
    draw = random.Random(3)
    stream = commands(draw, 19_800, rooms=ROOMS)
    records = [(command.key, command.payload) for command in stream]
    hostile = [poison(draw, number)[1] for number in range(200)]
    for payload in hostile:
        records.insert(draw.randrange(len(records)), (b"hostile", payload))
    placed = await bench.send_bytes(records)
    await bench.write_all()
    letters = [listed.letter async for listed in list_letters(bench.log.dead_letters())]
    expected = {
        place: payload
        for place, (key, payload) in zip(placed, records, strict=True)
        if key == b"hostile"
    }
    assert {letter.source: letter.value for letter in letters} == expected
    assert all(letter.code.isupper() and letter.message for letter in letters)
    assert bench.objects(catalog) == expected_objects(stream)
    assert bench.events(catalog) == expected_events(stream)


HOSTILE_KINDS = range(len(POISONS))


@pytest.mark.parametrize("kind", HOSTILE_KINDS, ids=[threat for threat, _ in POISONS])
async def test_one_hostile_command_is_buried_and_its_partition_goes_on(
    bench: Bench, catalog: Catalog, kind: int
) -> None:
    good = _update(7, 5)
    spoiled = POISONS[kind][1](_update(7, 7).payload, 7)
    await bench.send_bytes([(good.key, spoiled), (good.key, good.payload)])
    await bench.write_all()
    assert [letter.value for letter in bench.log.letters] == [spoiled]
    assert bench.objects(catalog)[7]["viewers"] == 5


async def test_a_name_the_catalog_lacks_is_looked_up_once_more_before_it_is_buried(
    catalog: Catalog,
) -> None:
    """The writer refreshes the catalog before dead-lettering an unknown group (semantics 21)."""
    bench = Bench(published=document(1, groups=[HISTORY]))
    await bench.ports.catalog.refresh()
    bench.reader.published = document(2)
    await bench.send([_update(1, 9)])
    await bench.write_all()
    assert bench.log.letters == []
    assert bench.objects(catalog)[1]["viewers"] == 9


async def test_a_catalog_out_of_reach_for_a_moment_makes_no_name_unknown(catalog: Catalog) -> None:
    bench = Bench(published=document(1, groups=[HISTORY]))
    await bench.ports.catalog.refresh()
    bench.reader.published = document(2)
    bench.reader.failures = 3
    await bench.send([_update(1, 9)])
    await bench.write_all()
    assert bench.log.letters == []
    assert bench.objects(catalog)[1]["viewers"] == 9


async def test_a_name_that_no_generation_knows_is_buried_after_one_look(bench: Bench) -> None:
    await bench.ports.catalog.refresh()
    looks = bench.reader.looks
    unknown = [_update(n).payload.replace(b"room-v1", b"room-v8") for n in range(50)]
    await bench.send_bytes([(b"k", payload) for payload in unknown])
    await bench.write_all()
    assert bench.reader.looks == looks + 1
    assert {letter.code for letter in bench.log.letters} == {"UNKNOWN_GROUP"}


async def test_without_a_catalog_nothing_is_buried_and_nothing_committed(catalog: Catalog) -> None:
    bench = Bench(published=None)
    await bench.send([_update(1, 9)])
    async with bench.running():
        await bench.journal.wait_for(lambda: bench.journal.entries.count("heartbeat") > 5)
        assert (bench.log.letters, bench.lag) == ([], 1)
        bench.reader.published = document()
        await bench.journal.wait_for(lambda: bench.lag == 0)
    assert bench.objects(catalog)[1]["viewers"] == 9


async def test_an_unavailable_store_is_tried_again_and_nothing_is_committed_meanwhile(
    bench: Bench, catalog: Catalog
) -> None:
    bench.store.failures = 5
    await bench.send([_update(1, 9)])
    await bench.write_all()
    assert bench.stages == ["poll", *["store down"] * 5, "store", "commit"]
    assert bench.objects(catalog)[1]["viewers"] == 9


async def test_the_writer_stays_in_its_group_while_the_store_is_down(bench: Bench) -> None:
    bench.store.failures = 5
    await bench.send([_update(1, 9)])
    await bench.write_all()
    between = bench.journal.entries
    downs = [index for index, entry in enumerate(between) if entry == "store down"]
    assert all("heartbeat" in between[a:b] for a, b in itertools.pairwise(downs))


async def test_a_commit_that_the_log_cannot_take_is_tried_again(bench: Bench) -> None:
    bench.consumer.commit_failures = 3
    await bench.send([_update(1)])
    await bench.write_all()
    assert bench.metric("headrace_writer_retries_total", stage="commit") == 3


async def test_a_commit_for_partitions_that_went_elsewhere_is_left_to_their_new_holder(
    bench: Bench,
) -> None:
    other = bench.log.consumer("realtime", WRITER_GROUP, member="another")
    await bench.send([_update(room) for room in range(ROOMS)])
    bench.store.on_store = other.heartbeat
    async with bench.running():
        await bench.journal.wait_for(
            lambda: bench.metric("headrace_writer_commits_total", outcome="refused") == 1
        )
        replayed = await other.poll(rows_max=1_000, wait_ms=0)
    assert 0 < len(replayed) < ROOMS
    assert bench.lag == len(replayed)


async def test_of_a_batch_the_store_refuses_only_the_culprits_are_buried(
    bench: Bench, catalog: Catalog
) -> None:
    bench.store.refused_key = catalog.encode_key(OBJECT, {"room_id": 5})
    await bench.send([_update(room, 9) for room in range(20)])
    await bench.write_all()
    (letter,) = bench.log.letters
    assert (letter.code, letter.value) == ("STORE_REFUSED", _update(5, 9).payload)
    assert sorted(bench.objects(catalog)) == [room for room in range(20) if room != 5]


async def test_stopping_finishes_the_batch_in_hand(bench: Bench) -> None:
    await bench.send([_update(room) for room in range(20)])
    async with bench.running() as writer:
        await bench.journal.wait_for(lambda: "poll" in bench.journal.entries)
        writer.stop()
    assert bench.stages == ["poll", "store", "commit"]
    assert bench.lag == 0


async def test_stopping_with_the_store_down_leaves_everything_to_the_next_writer(
    bench: Bench, catalog: Catalog
) -> None:
    bench.store.failures = 1_000_000
    await bench.send([_update(1, 9)])
    async with bench.running():
        await bench.journal.wait_for(lambda: "store down" in bench.journal.entries)
    assert bench.lag == 1
    bench.store.failures = 0
    bench.consumer = NotingConsumer(bench.log, bench.journal)
    bench.ports = msgspec.structs.replace(bench.ports, consumer=bench.consumer)
    await bench.write_all()
    assert bench.objects(catalog)[1]["viewers"] == 9


async def test_a_cache_that_is_down_holds_commits_but_not_writes() -> None:
    """Store writes never wait for the cache (semantics 18)."""
    bench = Bench(published=document(), cache=True)
    assert bench.cache is not None
    bench.cache.down = True
    async with bench.running():
        for number in range(3):
            await bench.send([_update(number)])
        await bench.journal.wait_for(lambda: bench.store.rows_written == 3)
        assert bench.lag == 3
        bench.cache.down = False
        bench.steady_ms += 10_000
        await bench.journal.wait_for(lambda: bench.lag == 0)
    assert len(bench.cache.invalidated) == 3


async def test_of_a_cache_with_a_dead_node_only_its_keys_are_held(catalog: Catalog) -> None:
    """Writes go on for longer than all keys together could be held (semantics 18)."""
    bench = Bench(published=document(), cache=True)
    assert bench.cache is not None
    bench.limits = msgspec.structs.replace(bench.limits, rows_max=10, held_keys_max=25)
    bench.cache.dead = frozenset([catalog.encode_key(OBJECT, {"room_id": 0})])
    async with bench.running():
        await bench.send([_update(room) for room in range(ROOMS)] * 3)
        await bench.journal.wait_for(lambda: bench.store.rows_written == 3 * ROOMS)
        await bench.journal.wait_for(
            lambda: bench.metric("headrace_writer_held_keys") <= 3 and bench.lag > 0
        )
        assert bench.cache.dead.isdisjoint(bench.cache.invalidated)
        bench.cache.dead = frozenset()
        bench.steady_ms += 10_000
        await bench.journal.wait_for(lambda: bench.lag == 0)
    assert len(set(bench.cache.invalidated)) == ROOMS


async def test_held_commits_go_when_no_older_block_can_exist_any_more() -> None:
    """1.1 × cache.ttl + local_ttl + 2 s after the store write (semantics 18); ttl is 10 min."""
    bench = Bench(published=document(), cache=True)
    assert bench.cache is not None
    bench.cache.down = True
    await bench.send([_update(1)])
    async with bench.running():
        await bench.journal.wait_for(lambda: "store" in bench.journal.entries)
        bench.steady_ms = 661_999
        empty_polls = bench.journal.entries.count("empty poll")
        await bench.journal.wait_for(
            lambda: bench.journal.entries.count("empty poll") > empty_polls + 3
        )
        assert bench.lag == 1
        bench.steady_ms = 662_000
        await bench.journal.wait_for(lambda: bench.lag == 0)
    assert bench.cache.invalidated == []


async def test_polling_pauses_when_too_many_keys_are_held() -> None:
    bench = Bench(published=document(), cache=True)
    assert bench.cache is not None
    bench.cache.down = True
    bench.limits = msgspec.structs.replace(bench.limits, rows_max=10, held_keys_max=25)
    await bench.send([_update(room) for room in range(ROOMS)] + [_update(9, 9)])
    async with bench.running():
        await bench.journal.wait_for(lambda: bench.stages.count("store") == 3)
        heartbeats = bench.journal.entries.count("heartbeat")
        await bench.journal.wait_for(
            lambda: bench.journal.entries.count("heartbeat") > heartbeats + 3
        )
        assert bench.stages.count("poll") == 3
        bench.cache.down = False
        bench.steady_ms += 10_000
        await bench.journal.wait_for(lambda: bench.lag == 0)


async def test_replaying_dead_letters_once_mended_writes_them_and_twice_changes_nothing(
    catalog: Catalog,
) -> None:
    bench = Bench(published=document(1, groups=[HISTORY]))
    stream = [_update(room, room) for room in range(ROOMS)]
    await bench.send(stream)
    await bench.write_all()
    assert len(bench.log.letters) == ROOMS
    bench.reader.published = document(2)
    bench.consumer = NotingConsumer(bench.log, bench.journal)
    bench.ports = msgspec.structs.replace(bench.ports, consumer=bench.consumer)
    for expected in (ROOMS, 0):
        assert await replay(bench.log.dead_letters(), bench.log.producer()) == expected
    await bench.write_all()
    assert bench.objects(catalog) == expected_objects(stream)
    assert len(bench.log.letters) == ROOMS


async def test_what_became_of_commands_is_counted(bench: Bench) -> None:
    await bench.send([_update(room) for room in range(20)])
    await bench.send_bytes([(b"k", b"{")])
    await bench.write_all()
    assert bench.metric("headrace_writer_commands_total", outcome="written") == 20
    assert bench.metric("headrace_writer_commands_total", outcome="dead") == 1
    assert bench.metric("headrace_writer_commits_total", outcome="done") == 1
    assert bench.metric("headrace_writer_batch_rows_sum") == 21
    for stage in ("decode", "bury", "store", "commit"):
        assert bench.metric("headrace_writer_stage_seconds_count", stage=stage) == 1


async def test_the_lag_counts_what_is_not_committed() -> None:
    bench = Bench(published=document(), cache=True)
    assert bench.cache is not None
    bench.cache.down = True
    await bench.send([_update(room) for room in range(20)])
    async with bench.running():
        await bench.journal.wait_for(lambda: bench.metric("headrace_writer_lag_rows") == 20)


async def test_the_delay_from_event_to_readable_is_measured_at_the_newest_event(
    bench: Bench,
) -> None:
    await bench.send([_update(1, 0), _update(2, 400_000), _update(3, 200_000)])
    await bench.write_all()
    assert bench.metric("headrace_writer_event_delay_seconds_sum") == 600.0

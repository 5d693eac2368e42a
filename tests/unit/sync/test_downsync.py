"""Downsync: each emitted command has exactly one offline row, whatever dies (semantics 25, 26)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Protocol, cast

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from headrace.codec import Catalog, encode_commands
from headrace.gateway.stores.memory import MemoryCatalogReader
from headrace.registry.catalog import (
    CatalogDocument,
    Downsync,
    Group,
    KeyField,
    Schema,
    ValueField,
    encode_document,
)
from headrace.registry.physical import CATALOG_DOCUMENT, CATALOG_GENERATION
from headrace.registry.watch import CatalogWatcher
from headrace.sync.downsync import DOWNSYNC_GROUP, DownsyncLimits, DownsyncPorts
from headrace.sync.downsync import Downsync as DownsyncJob
from headrace.sync.downsync_telemetry import DownsyncTelemetry
from headrace.sync.logs.memory import MemoryCommandLog, MemoryConsumer
from headrace.sync.offline.duckdb import DuckdbOfflineStore
from headrace.sync.offline.memory import MemoryOfflineStore
from headrace.sync.offline.ports import LogRange
from headrace.sync.offline.types import Rows
from headrace.sync.ports import BATCH_BYTES_MAX, Coordinates, LogRecord, MergedRecord, PartitionId
from headrace.sync.stores.memory import (
    MemoryMergedRecords,
    MemoryOnlineStore,
    MemoryOnlineWriter,
    MemorySyncState,
)
from headrace.sync.writer import WRITER_GROUP

START_MS = 1_700_000_000_000
MINUTE_MS = 60_000

SAMPLED = "live::sampled"
EVERY = "live::every"
EVENTS = "live::events"
QUIET = "live::quiet"


def make_group(group_id: int, name: str, downsync: Downsync, *, history: bool = False) -> Group:
    fields = (
        ValueField(id=1, name="level", type="Long", default=0),
        ValueField(id=2, name="mood", type="Text", nullable=True),
    )
    return Group(
        id=group_id,
        name=name,
        feature_type="History" if history else "Object",
        owner="o",
        keys=(KeyField(name="user_id", type="Long"),),
        schemas=(Schema(ordinal=1, fields=fields),),
        downsync=downsync,
    )


SAMPLED_POLICY = Downsync(enabled=True, min_interval_ms=MINUTE_MS, random_sampling_ratio=0.7)
DOCUMENT = CatalogDocument(
    generation=1,
    published_at_ms=1,
    groups=(
        make_group(1, SAMPLED, SAMPLED_POLICY),
        make_group(2, EVERY, Downsync(enabled=True)),
        make_group(3, EVENTS, Downsync(enabled=True, min_interval_ms=5_000), history=True),
        make_group(4, QUIET, Downsync(enabled=False)),
    ),
)
CATALOG = Catalog(encode_document(DOCUMENT))


class Crash(Exception):
    """The worker died here."""


class Fuse:
    """Burns at its n-th crossing."""

    def __init__(self, burns_at: int | None = None) -> None:
        self.burns_at = burns_at
        self.crossed = 0

    def cross(self) -> None:
        self.crossed += 1
        if self.crossed == self.burns_at:
            raise Crash


class FusedConsumer(MemoryConsumer):
    fuse = Fuse()

    async def commit(self, offsets: Mapping[PartitionId, int]) -> None:
        self.fuse.cross()
        await super().commit(offsets)
        self.fuse.cross()


class OfflineStore(Protocol):
    async def append(self, group: Group, rows: Rows, token: LogRange) -> None: ...

    async def stored(self, group: Group) -> Rows: ...


class FusedOffline:
    def __init__(self, store: OfflineStore, fuse: Fuse) -> None:
        self.store = store
        self.fuse = fuse

    async def append(self, group: Group, rows: Rows, token: LogRange) -> None:
        self.fuse.cross()
        await self.store.append(group, rows, token)
        self.fuse.cross()


class FusedState:
    def __init__(self, state: MemorySyncState, fuse: Fuse) -> None:
        self.state = state
        self.fuse = fuse

    async def get(self, name: str) -> bytes | None:
        return await self.state.get(name)

    async def put(self, name: str, value: bytes) -> None:
        self.fuse.cross()
        await self.state.put(name, value)
        self.fuse.cross()


class FusedRecords:
    def __init__(self, records: MemoryMergedRecords, fuse: Fuse) -> None:
        self.records = records
        self.fuse = fuse

    async def fetch(
        self, catalog: Catalog, keys: Sequence[bytes], *, now_ms: int
    ) -> list[MergedRecord | None]:
        self.fuse.cross()
        return await self.records.fetch(catalog, keys, now_ms=now_ms)


class Gate:
    """Stops a worker before each of its acts, until it is let through to the next."""

    def __init__(self) -> None:
        self.act = ""
        self.arrived = asyncio.Event()
        self.open = asyncio.Event()

    async def cross(self, act: str) -> None:
        self.act = act
        self.open.clear()
        self.arrived.set()
        await self.open.wait()


class Rival(MemoryConsumer):
    """A worker with its consumer and stores, that takes every partition for its own: frozen past
    its session, or not yet told that others have them."""

    def __init__(self, world: World, member: str, *, rows_max: int) -> None:
        super().__init__(world.log, "realtime", DOWNSYNC_GROUP, member)
        self.gate = Gate()
        self.offline = world.offline
        self.state = MemorySyncState(world.online)
        ports = DownsyncPorts(
            consumer=self,
            catalog=world.catalog,
            online=MemoryMergedRecords(world.online),
            offline=self,
            state=self,
        )
        limits = DownsyncLimits(rows_max=rows_max, linger_ms=0, wait_ms=1)
        telemetry = DownsyncTelemetry(CollectorRegistry())
        job = DownsyncJob(ports, telemetry, limits=limits, now_ms=lambda: world.now_ms)
        self.task = asyncio.create_task(job.run())

    def _share(self) -> frozenset[PartitionId]:
        return frozenset(self._partitions())

    async def poll(
        self, *, rows_max: int, wait_ms: int, bytes_max: int = BATCH_BYTES_MAX
    ) -> list[LogRecord]:
        await self.gate.cross("poll")
        return await super().poll(rows_max=rows_max, wait_ms=wait_ms, bytes_max=bytes_max)

    async def append(self, group: Group, rows: Rows, token: LogRange) -> None:
        await self.gate.cross("append")
        await self.offline.append(group, rows, token)

    async def get(self, name: str) -> bytes | None:
        await self.gate.cross("get")
        return await self.state.get(name)

    async def put(self, name: str, value: bytes) -> None:
        await self.gate.cross("put")
        await self.state.put(name, value)

    async def step(self) -> None:
        """Let it do the act it stands before, and go on to the next."""
        self.gate.arrived.clear()
        self.gate.open.set()
        await self.gate.arrived.wait()

    async def reach(self, act: str) -> None:
        """Let it go on until it stands before its next `act`."""
        await self.step()
        while self.gate.act != act:
            await self.step()

    async def die(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


async def rival(world: World, member: str, *, rows_max: int) -> Rival:
    worker = Rival(world, member, rows_max=rows_max)
    await worker.gate.arrived.wait()
    return worker


def command(
    group: str, user_id: int, at_ms: int, method: str = "UPDATE", **values: object
) -> dict[str, object]:
    return {
        "feature_name": group,
        "method": method,
        "keys": {"user_id": user_id},
        "values": {**values, "_last_updated_at_ms": at_ms},
    }


class World:
    """Log, stores and state, which outlive the workers."""

    def __init__(self, offline: OfflineStore | None = None, *, partition_count: int = 2) -> None:
        self.now_ms = START_MS + 3_600_000
        self.log = MemoryCommandLog(partition_count=partition_count, now_ms=lambda: self.now_ms)
        self.online = MemoryOnlineStore()
        self.metrics = CollectorRegistry()
        self.offline = offline or MemoryOfflineStore()
        self.publish(DOCUMENT)
        self.catalog = CatalogWatcher(MemoryCatalogReader(self.online.named), lambda: self.now_ms)

    def publish(self, document: CatalogDocument) -> None:
        self.online.named[CATALOG_GENERATION] = b"%d" % document.generation
        self.online.named[CATALOG_DOCUMENT] = encode_document(document)

    async def append(self, commands: Sequence[dict[str, object]]) -> None:
        records = [
            (f"{item['feature_name']}{item['keys']}".encode(), json.dumps(item).encode())
            for item in commands
        ]
        await self.log.producer().append("realtime", records)

    async def write(self, rows_max: int = 10_000) -> None:
        """The writer: applies what it has not committed yet, and commits."""
        consumer = self.log.consumer("realtime", WRITER_GROUP)
        records = await consumer.poll(rows_max=rows_max, wait_ms=1)
        batch = encode_commands(CATALOG, [record.value for record in records], now_ms=self.now_ms)
        await MemoryOnlineWriter(self.online).store(batch, CATALOG, now_ms=self.now_ms)
        for record in records:
            place = record.coordinates
            await consumer.commit({(place.topic, place.partition): place.offset + 1})
        await consumer.close()

    def worker(self, fuse: Fuse | None = None, *, rows_max: int = 10_000) -> DownsyncJob:
        fuse = fuse or Fuse()
        consumer = FusedConsumer(self.log, "realtime", DOWNSYNC_GROUP, "only")
        consumer.fuse = fuse
        ports = DownsyncPorts(
            consumer=consumer,
            catalog=self.catalog,
            online=FusedRecords(MemoryMergedRecords(self.online), fuse),
            offline=FusedOffline(self.offline, fuse),
            state=FusedState(MemorySyncState(self.online), fuse),
        )
        limits = DownsyncLimits(rows_max=rows_max, linger_ms=0, wait_ms=1)
        self.metrics = CollectorRegistry()
        telemetry = DownsyncTelemetry(self.metrics)
        return DownsyncJob(ports, telemetry, limits=limits, now_ms=lambda: self.now_ms)

    async def downsync(self, fuse: Fuse | None = None, *, rows_max: int = 10_000) -> None:
        """One worker until it finds nothing more to do, or dies."""
        worker = self.worker(fuse, rows_max=rows_max)
        while await worker.turn():
            pass

    async def rows(self, name: str) -> list[dict[str, object]]:
        group = next(group for group in DOCUMENT.groups if group.name == name)
        rows = (await self.offline.stored(group)).to_pylist()
        return sorted(rows, key=place_of)

    async def places(self) -> list[Coordinates]:
        """Coordinates of every offline row of every group, each as often as it stands there."""
        rows = [row for group in DOCUMENT.groups for row in await self.rows(group.name)]
        return sorted(place_of(row) for row in rows)

    def records(self) -> list[LogRecord]:
        return [record for partition in self.log.records.values() for record in partition]


def place_of(row: Mapping[str, object]) -> Coordinates:
    return Coordinates(
        cast("str", row["_command_topic"]),
        cast("int", row["_command_partition"]),
        cast("int", row["_command_offset"]),
    )


def reference(records: Sequence[LogRecord]) -> list[Coordinates]:
    """The rule of semantics 26 once more, straight from its text."""
    last: dict[tuple[str, int], int] = {}
    emitted: list[Coordinates] = []
    policies = {group.name: group.downsync for group in DOCUMENT.groups}
    ids = {group.name: group.id for group in DOCUMENT.groups}
    for record in records:
        parsed = json.loads(record.value)
        name, user_id = parsed["feature_name"], parsed["keys"]["user_id"]
        policy = policies[name]
        if not policy.enabled:
            continue
        if parsed["method"] == "DELETE":
            emitted.append(record.coordinates)
            continue
        at_ms = parsed["values"]["_last_updated_at_ms"]
        before = last.get((name, user_id))
        if before is not None and not at_ms >= before + policy.min_interval_ms:
            continue
        key = ids[name].to_bytes(4, "big") + (user_id + 2**63).to_bytes(8, "big")
        bucket = at_ms // max(policy.min_interval_ms, 1000)
        message = name.encode() + b"\x00" + key + bucket.to_bytes(8, "big", signed=True)
        digest = blake2b(message, key=b"headrace-downsync", digest_size=8).digest()
        if int.from_bytes(digest, "big") < policy.random_sampling_ratio * 2**64:
            emitted.append(record.coordinates)
            last[name, user_id] = at_ms
    return sorted(emitted)


def random_commands(seed: int, count: int) -> list[dict[str, object]]:
    """Commands of all groups, near each other in time, some late, some repeated, some deletes."""
    draw = random.Random(seed)
    commands: list[dict[str, object]] = []
    for step in range(count):
        name = draw.choice([SAMPLED, SAMPLED, EVERY, EVENTS, QUIET])
        at_ms = START_MS + step * 4_000 + draw.choice([0, 0, 0, -90_000, 1, 30_000])
        method = "APPEND" if name == EVENTS else "UPDATE"
        if draw.random() < 0.05:
            commands.append(command(name, draw.randrange(4), at_ms, "DELETE"))
        elif commands and draw.random() < 0.05:
            commands.append(draw.choice(commands))
        else:
            values: dict[str, object] = {"level": step} if draw.random() < 0.7 else {"mood": "glad"}
            commands.append(command(name, draw.randrange(4), at_ms, method, **values))
    return commands


async def test_the_row_is_the_merged_record_not_the_partial_command() -> None:
    world = World()
    await world.append(
        [command(EVERY, 1, START_MS, level=7), command(EVERY, 1, START_MS + 5, mood="glad")]
    )
    await world.write()
    await world.downsync()
    row = (await world.rows(EVERY))[-1]
    assert (row["user_id"], row["level"], row["mood"]) == (1, 7, "glad")
    assert (row["_source"], row["_deleted"]) == ("downsync", False)


async def test_event_times_of_record_and_command_are_told_apart() -> None:
    """`_event_time` is the newest cell's, `_command_event_time` the command's (semantics 25)."""
    world = World()
    newer = command(EVERY, 1, START_MS + 9_000, level=7)
    await world.append([command(EVERY, 1, START_MS, mood="glad"), newer])
    await world.write()
    await world.downsync()
    first = (await world.rows(EVERY))[0]
    assert stamp(first["_command_event_time"]) == START_MS
    assert stamp(first["_event_time"]) == START_MS + 9_000


def stamp(instant: object) -> int:
    return round(cast("float", instant.timestamp()) * 1000)  # type: ignore[attr-defined]  # a datetime


async def test_a_command_waits_until_the_writer_has_committed_it() -> None:
    world = World(partition_count=1)
    await world.append([command(EVERY, user, START_MS, level=user) for user in range(6)])
    await world.write(rows_max=2)
    worker = world.worker()
    assert await worker.turn() == 2
    assert await worker.turn() == 0
    assert [row["user_id"] for row in await world.rows(EVERY)] == [0, 1]
    await world.write()
    assert await worker.turn() == 4
    assert [row["user_id"] for row in await world.rows(EVERY)] == [0, 1, 2, 3, 4, 5]


async def test_a_delete_is_written_as_a_deleted_row_unsampled() -> None:
    world = World()
    deletes = [command(SAMPLED, user, START_MS, "DELETE") for user in range(30)]
    await world.append([*deletes, command(SAMPLED, 1, START_MS + 1, "DELETE")])
    await world.write()
    await world.downsync()
    rows = await world.rows(SAMPLED)
    assert len(rows) == 31
    assert {(row["_deleted"], row["level"], row["mood"]) for row in rows} == {(True, None, None)}


async def test_a_delete_row_stays_deleted_beside_an_update_of_its_key() -> None:
    world = World()
    update = command(EVERY, 1, START_MS + 10, level=3)
    await world.append([command(EVERY, 1, START_MS, "DELETE"), update])
    await world.write()
    await world.downsync()
    rows = await world.rows(EVERY)
    assert [(row["_deleted"], row["level"]) for row in rows] == [(True, None), (False, 3)]


async def test_an_update_whose_record_is_gone_has_a_deleted_row() -> None:
    world = World()
    await world.append(
        [command(EVERY, 1, START_MS, level=3), command(EVERY, 1, START_MS, "DELETE")]
    )
    await world.write()
    await world.downsync()
    assert [row["_deleted"] for row in await world.rows(EVERY)] == [True, True]


async def test_a_history_row_is_the_event_itself() -> None:
    world = World()
    events = [
        command(EVENTS, 1, START_MS + step * 10_000, "APPEND", level=step) for step in range(3)
    ]
    await world.append(events)
    await world.write()
    await world.downsync()
    rows = await world.rows(EVENTS)
    assert [(row["level"], row["mood"]) for row in rows] == [(0, None), (1, None), (2, None)]
    assert [stamp(row["_event_time"]) for row in rows] == [
        START_MS,
        START_MS + 10_000,
        START_MS + 20_000,
    ]


async def test_a_group_without_downsync_has_no_rows() -> None:
    world = World()
    await world.append([command(QUIET, 1, START_MS, level=1)])
    await world.write()
    await world.downsync()
    assert await world.rows(QUIET) == []


async def test_what_the_writer_refuses_has_no_row() -> None:
    world = World(partition_count=1)
    bad = [command(EVERY, 1, START_MS, level="much"), command("live::unknown", 1, START_MS)]
    await world.append([*bad, command(EVERY, 2, START_MS, level=1)])
    await world.write()
    await world.downsync()
    assert [row["user_id"] for row in await world.rows(EVERY)] == [2]


async def test_a_name_of_a_newer_catalog_is_looked_up_before_it_is_left_out() -> None:
    world = World()
    world.publish(CatalogDocument(generation=1, published_at_ms=1, groups=DOCUMENT.groups[:1]))
    await world.catalog.refresh()
    world.publish(msgspec.structs.replace(DOCUMENT, generation=2))
    await world.append([command(EVERY, 2, START_MS, level=1)])
    await world.write()
    await world.downsync()
    assert len(await world.rows(EVERY)) == 1


@pytest.mark.parametrize("rows_max", [1, 7, 10_000])
async def test_the_emitted_set_is_that_of_the_reference_algorithm(rows_max: int) -> None:
    """(reliability W12), however the log is cut into batches."""
    world = World()
    await world.append(random_commands(seed=11, count=400))
    await world.write()
    await world.downsync(rows_max=rows_max)
    emitted = await world.places()
    assert len(emitted) > 100
    assert emitted == reference(world.records())


async def test_no_two_emitted_changes_of_a_key_are_closer_than_the_interval() -> None:
    world = World()
    await world.append(random_commands(seed=12, count=600))
    await world.write()
    await world.downsync()
    times: defaultdict[object, list[int]] = defaultdict(list)
    for row in await world.rows(SAMPLED):
        if not row["_deleted"]:
            times[row["user_id"]].append(stamp(row["_command_event_time"]))
    gaps = [b - a for found in times.values() for a, b in pairwise(found)]
    assert len(gaps) > 20
    assert min(gaps) >= MINUTE_MS


async def test_a_worker_killed_at_any_act_leaves_one_row_a_command(tmp_path: Path) -> None:
    """(reliability W10): every act of a run is cut off once, before and after it took effect."""
    commands = random_commands(seed=13, count=36)
    counting, fuse = World(), Fuse()
    await counting.append(commands)
    await counting.write()
    await counting.downsync(fuse, rows_max=18)
    assert fuse.crossed > 20
    for burns_at in range(1, fuse.crossed + 1):
        world = World(DuckdbOfflineStore(tmp_path / str(burns_at)))
        await world.append(commands)
        await world.write()
        with pytest.raises(Crash):
            await world.downsync(Fuse(burns_at), rows_max=18)
        await world.downsync(rows_max=40)
        assert await world.places() == reference(world.records()), f"died at act {burns_at}"


async def test_a_worker_killed_again_and_again_leaves_one_row_a_command(tmp_path: Path) -> None:
    world = World(DuckdbOfflineStore(tmp_path))
    draw = random.Random(14)
    commands = random_commands(seed=14, count=300)
    for start in range(0, 300, 50):
        await world.append(commands[start : start + 50])
        await world.write(rows_max=draw.randrange(20, 80))
        for _ in range(4):
            try:
                await world.downsync(Fuse(draw.randrange(1, 12)), rows_max=draw.randrange(5, 60))
            except Crash:
                continue
    while any((await world.log.consumer("realtime", WRITER_GROUP).lag()).values()):
        await world.write()
    await world.downsync()
    assert await world.places() == reference(world.records())


async def test_a_redo_may_read_newer_values_but_writes_no_second_row() -> None:
    """(semantics 25)"""
    world = World(partition_count=1)
    await world.append([command(EVERY, 1, START_MS, level=1)])
    await world.write()
    with pytest.raises(Crash):
        await world.downsync(Fuse(4))
    assert [row["level"] for row in await world.rows(EVERY)] == [1]
    await world.append([command(EVERY, 1, START_MS + 5, level=2)])
    await world.write()
    await world.downsync()
    rows = await world.rows(EVERY)
    assert [(row["level"], row["_command_offset"]) for row in rows] == [(2, 0), (2, 1)]


async def test_a_second_worker_takes_over_without_doubling(tmp_path: Path) -> None:
    world = World(DuckdbOfflineStore(tmp_path))
    await world.append(random_commands(seed=15, count=120))
    await world.write()
    first = world.worker(rows_max=30)
    await first.turn()
    second = world.worker(rows_max=50)
    while await second.turn():
        pass
    assert await world.places() == reference(world.records())


async def overtaken(tmp_path: Path) -> tuple[World, Rival, Rival]:
    """A hundred commands in one partition, a worker with half of them and one with all."""
    world = World(DuckdbOfflineStore(tmp_path), partition_count=1)
    await world.append([command(EVERY, user, START_MS, level=user) for user in range(100)])
    await world.write()
    return world, await rival(world, "a", rows_max=50), await rival(world, "b", rows_max=100)


async def test_a_worker_that_wakes_late_takes_no_row_of_the_one_that_overtook_it(
    tmp_path: Path,
) -> None:
    world, late, other = await overtaken(tmp_path)
    await late.reach("append")
    await other.reach("poll")
    await late.reach("poll")
    for worker in (late, other):
        await worker.die()
    assert [place.offset for place in await world.places()] == list(range(100))


async def test_two_workers_between_append_and_note_lose_no_row(tmp_path: Path) -> None:
    world, first, second = await overtaken(tmp_path)
    await first.reach("put")
    await second.reach("append")
    await second.step()
    await first.reach("poll")
    await second.reach("poll")
    await second.reach("poll")
    for worker in (first, second):
        await worker.die()
    assert [place.offset for place in await world.places()] == list(range(100))


@pytest.mark.parametrize("seed", range(12))
async def test_workers_that_overtake_each_other_anywhere_leave_one_row_a_command(
    tmp_path: Path, seed: int
) -> None:
    """Two workers at a time, each act of theirs in random order, now and then one dies."""
    draw = random.Random(seed)
    world = World(DuckdbOfflineStore(tmp_path), partition_count=1)
    await world.append(random_commands(seed, 80))
    await world.write()
    workers = [await rival(world, str(turn), rows_max=draw.randrange(5, 40)) for turn in range(2)]
    for turn in range(2, 120):
        chosen = draw.randrange(2)
        await workers[chosen].step()
        if draw.random() < 0.05:
            await workers[chosen].die()
            workers[chosen] = await rival(world, str(turn), rows_max=draw.randrange(5, 40))
    for worker in workers:
        await worker.die()
    await world.downsync()
    assert await world.places() == reference(world.records())


async def test_emitted_and_left_out_commands_are_counted() -> None:
    world = World()
    await world.append(random_commands(seed=16, count=100))
    await world.write()
    await world.downsync()
    emitted, left_out = (
        world.metrics.get_sample_value("headrace_downsync_commands_total", {"outcome": outcome})
        for outcome in ("emitted", "left out")
    )
    assert (emitted, left_out) == (len(await world.places()), 100 - len(await world.places()))

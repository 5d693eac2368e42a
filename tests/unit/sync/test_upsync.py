"""Upsync sends each changed row once and ends in one state, however it dies (semantics 24)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from headrace.registry.catalog import Group, KeyField, Schema, Upsync, ValueField
from headrace.sync.offline.duckdb import DuckdbOfflineStore
from headrace.sync.offline.ports import ChangeQuery, ChangeSet, LogRange
from headrace.sync.offline.types import Rows, arrow_rows, declared_columns, system_columns
from headrace.sync.ports import Coordinates, Topic
from headrace.sync.upsync import Upsync as UpsyncJob
from headrace.sync.upsync import UpsyncOptions, UpsyncReport

DAY = datetime(2024, 5, 1, tzinfo=UTC)
DAY_MS = int(DAY.timestamp() * 1000)
CHUNK_ROWS = 10


class Crash(Exception):
    """The process died here."""


class Fuse:
    """Burns at its n-th crossing. Before and after each act of a port there is one."""

    def __init__(self, burns_at: int | None = None) -> None:
        self.burns_at = burns_at
        self.crossed = 0

    def cross(self) -> None:
        self.crossed += 1
        if self.crossed == self.burns_at:
            raise Crash


class Warehouse:
    """The embedded store with a fuse at every act."""

    def __init__(self, store: DuckdbOfflineStore, fuse: Fuse) -> None:
        self.store = store
        self.fuse = fuse

    async def prepare(self, group: Group, query: ChangeQuery) -> ChangeSet:
        self.fuse.cross()
        change = await self.store.prepare(group, query)
        self.fuse.cross()
        return change

    async def fetch(self, group: Group, run_id: str, *, first_row: int, rows: int) -> Rows:
        self.fuse.cross()
        return await self.store.fetch(group, run_id, first_row=first_row, rows=rows)

    async def settle(self, group: Group, run_id: str) -> None:
        self.fuse.cross()
        await self.store.settle(group, run_id)
        self.fuse.cross()

    async def release(self, group: Group, run_id: str) -> None:
        self.fuse.cross()
        await self.store.release(group, run_id)
        self.fuse.cross()


class Log:
    """Keeps every command that became durable."""

    def __init__(self) -> None:
        self.commands: list[tuple[bytes, bytes]] = []
        self.fuse = Fuse()

    async def append(
        self, topic: Topic, records: Sequence[tuple[bytes, bytes]]
    ) -> list[Coordinates]:
        assert topic == "bulk"
        self.fuse.cross()
        self.commands += records
        self.fuse.cross()
        return []

    async def reach(self) -> None: ...

    async def close(self) -> None: ...


class State:
    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.fuse = Fuse()

    async def get(self, name: str) -> bytes | None:
        return self.values.get(name)

    async def put(self, name: str, value: bytes) -> None:
        self.fuse.cross()
        self.values[name] = value
        self.fuse.cross()


class Steps:
    """Progress as it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def advance(self, rows_done: int, rows_total: int) -> None:
        self.told.append((rows_done, rows_total))


def encode(group: Group, rows: Rows) -> list[tuple[bytes, bytes]]:
    """One readable command a row: (key, everything)."""
    return [
        (str(row["user_id"]).encode(), json.dumps(row, default=str).encode())
        for row in rows.to_pylist()
    ]


class World:
    """An offline store, a log and a state that outlive the processes which work on them."""

    def __init__(self, root: Path, *, updated_at: str | None = None) -> None:
        self.root = root
        self.log = Log()
        self.state = State()
        self.clock_ms = DAY_MS
        self.batches = 0
        self.group = Group(
            id=1,
            name="live::user-stats-v1",
            feature_type="Object",
            owner="o",
            keys=(KeyField(name="user_id", type="Long"),),
            schemas=(
                Schema(ordinal=1, fields=(ValueField(id=1, name="level", type="Long", default=0),)),
            ),
            upsync=Upsync(enabled=True, incremental_update=True, updated_at=updated_at),
        )

    async def append(self, levels: dict[int, int], *, hours: int | None, seen: int = 0) -> None:
        rows = [
            {
                "user_id": user_id,
                "level": level,
                "seen_at": DAY + timedelta(hours=seen),
                "_event_time": None if hours is None else DAY + timedelta(hours=hours),
                "_source": "transform",
                "_deleted": False,
                "_ingested_at": DAY + timedelta(minutes=self.batches),
            }
            for user_id, level in levels.items()
        ]
        self.batches += 1
        columns = declared_columns(self.group) + system_columns()
        token = LogRange("seed", self.batches, 0, 1)
        await DuckdbOfflineStore(self.root).append(self.group, arrow_rows(columns, rows), token)

    async def upsync(
        self,
        *,
        full: bool = False,
        dry_run: bool = False,
        fuse: Fuse | None = None,
        steps: Steps | None = None,
    ) -> UpsyncReport:
        """One process: runs until it is done or dies."""
        fuse = fuse or Fuse()
        self.log.fuse = self.state.fuse = fuse
        self.clock_ms += 1000
        store = DuckdbOfflineStore(self.root)
        job = UpsyncJob(
            reader=Warehouse(store, fuse), encode=encode, producer=self.log, state=self.state
        )
        options = UpsyncOptions(full=full, dry_run=dry_run, chunk_rows=CHUNK_ROWS)
        try:
            return await job.run(
                self.group,
                options,
                run_id=f"run{self.clock_ms}",
                now_ms=self.clock_ms,
                progress=steps or Steps(),
            )
        finally:
            store.close()

    def pinned(self) -> list[Path]:
        return list(self.root.rglob("run-*.parquet"))

    def online(self) -> dict[bytes, bytes]:
        """What the commands leave behind: the newest per key (all tell their event time)."""
        newest: dict[bytes, bytes] = {}
        for key, value in self.log.commands:
            newest[key] = max(
                newest.get(key, value), value, key=lambda text: json.loads(text)["_event_time"]
            )
        return newest


async def test_a_first_run_sends_every_latest_row(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.append({user: user for user in range(35)}, hours=1)
    report = await world.upsync()
    assert (report.scanned, report.changed, report.sent) == (35, 35, 35)
    assert sorted(int(key) for key, _ in world.log.commands) == list(range(35))


async def test_unchanged_rows_are_not_rewritten(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.append({user: user for user in range(35)}, hours=1)
    await world.upsync()
    world.log.commands.clear()
    await world.append({3: 99}, hours=2)
    report = await world.upsync()
    assert (report.changed, [key for key, _ in world.log.commands]) == (1, [b"3"])
    assert (await world.upsync()).sent == 0


async def test_an_incremental_run_looks_only_above_its_mark(tmp_path: Path) -> None:
    world = World(tmp_path, updated_at="seen_at")
    await world.append({1: 1, 2: 2}, hours=0, seen=10)
    first = await world.upsync()
    assert first.mark_ms == DAY_MS + 10 * 3_600_000
    await world.append({3: 3}, hours=0, seen=5)
    await world.append({4: 4}, hours=0, seen=20)
    world.log.commands.clear()
    await world.upsync()
    assert [key for key, _ in world.log.commands] == [b"4"]


async def test_a_row_that_came_late_but_within_the_overlap_is_sent(tmp_path: Path) -> None:
    world = World(tmp_path, updated_at="seen_at")
    await world.append({1: 1}, hours=0, seen=10)
    await world.upsync()
    await world.append({2: 2}, hours=0, seen=9)
    assert (await world.upsync()).changed == 1


async def test_a_full_run_sends_everything_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.append({user: user for user in range(12)}, hours=1)
    await world.upsync()
    assert (await world.upsync(full=True)).sent == 12


async def test_full_incremental_and_interrupted_runs_end_in_equal_state(tmp_path: Path) -> None:
    """(reliability W7)"""
    worlds = {name: World(tmp_path / name) for name in ("full", "incremental", "interrupted")}
    for turn in range(4):
        for world in worlds.values():
            await world.append({user: user * turn for user in range(turn, 30 + turn)}, hours=turn)
        await worlds["full"].upsync(full=True)
        await worlds["incremental"].upsync()
        with pytest.raises(Crash):
            await worlds["interrupted"].upsync(fuse=Fuse(9 + turn))
        await worlds["interrupted"].upsync()
    assert worlds["incremental"].online() == worlds["full"].online()
    assert worlds["interrupted"].online() == worlds["full"].online()


async def count_fuses(root: Path) -> int:
    world, fuse = World(root), Fuse()
    await world.append({user: user for user in range(25)}, hours=None)
    await world.upsync(fuse=fuse)
    return fuse.crossed


async def test_a_run_killed_at_any_act_resumes_with_identical_commands(tmp_path: Path) -> None:
    """Rows without event time carry the snapshot time of the run's start (semantics 24)."""
    fuses = await count_fuses(tmp_path / "count")
    assert fuses > 20
    for burns_at in range(1, fuses + 1):
        world = World(tmp_path / str(burns_at))
        await world.append({user: user for user in range(25)}, hours=None)
        with pytest.raises(Crash):
            await world.upsync(fuse=Fuse(burns_at))
        await world.append(dict.fromkeys(range(100, 120), -1), hours=None)
        await world.upsync()
        sent = [(key, value) for key, value in world.log.commands if int(key) < 100]
        assert len(set(sent)) == 25, f"died at act {burns_at}: a command was repeated differently"
        assert len(sent) <= 25 + CHUNK_ROWS, f"died at act {burns_at}: more than a chunk repeated"


async def test_rows_that_came_during_an_interrupted_run_go_with_the_next(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.append({user: user for user in range(35)}, hours=1)
    with pytest.raises(Crash):
        await world.upsync(fuse=Fuse(12))
    await world.append({3: 99, 77: 7}, hours=2)
    assert (await world.upsync()).resumed
    assert (await world.upsync()).sent == 2
    assert json.loads(world.online()[b"3"])["level"] == 99


async def test_a_full_run_takes_the_place_of_an_interrupted_incremental_one(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.append({user: user for user in range(35)}, hours=1)
    await world.upsync()
    await world.append(dict.fromkeys(range(15), 0), hours=2)
    with pytest.raises(Crash):
        await world.upsync(fuse=Fuse(10))
    report = await world.upsync(full=True)
    assert (report.resumed, report.sent) == (False, 35)
    assert world.pinned() == []


async def test_a_dry_run_sends_nothing_and_remembers_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.append({1: 1, 2: 2}, hours=1)
    report = await world.upsync(dry_run=True)
    assert (report.changed, report.sent, world.log.commands) == (2, 0, [])
    assert world.state.values == {}
    assert (await world.upsync()).sent == 2


async def test_a_dry_run_leaves_an_interrupted_run_resumable(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.append({user: user for user in range(35)}, hours=None)
    with pytest.raises(Crash):
        await world.upsync(fuse=Fuse(14))
    before = list(world.log.commands)
    await world.upsync(dry_run=True)
    report = await world.upsync()
    assert report.resumed
    assert report.sent < 35
    assert len(set(before + world.log.commands)) == 35


async def test_progress_is_told_after_each_chunk(tmp_path: Path) -> None:
    world, steps = World(tmp_path), Steps()
    await world.append({user: user for user in range(25)}, hours=1)
    await world.upsync(steps=steps)
    assert steps.told == [(0, 25), (10, 25), (20, 25), (25, 25)]


async def test_the_state_between_runs_is_one_small_value(tmp_path: Path) -> None:
    world = World(tmp_path, updated_at="seen_at")
    await world.append({1: 1}, hours=0, seen=1)
    await world.upsync()
    (noted,) = world.state.values.values()
    assert json.loads(noted) == {"mark_ms": DAY_MS + 3_600_000, "run": None}

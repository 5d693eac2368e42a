"""kill -9 at any moment: nothing lost, nothing doubled, no offset ahead of a durable write.

A real writer process on SQLite and LMDB is killed dozens of times, at every named point of its loop
and at random moments inside store writes and from outside, while commands keep coming. After every
kill what is committed is compared with what is durable; in the end the store must equal the
reference and the dead letters must be the hostile commands, each once.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import signal
from collections.abc import AsyncIterator, Iterator
from itertools import cycle
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
from room_commands import (
    HISTORY,
    MAX_EVENTS,
    OBJECT,
    START_MS,
    Command,
    command_stream,
    document,
    expected_events,
    expected_objects,
    poison,
)
from writer_process import POINTS, Plan, run_writer

from headrace.codec import Catalog, LmdbStore
from headrace.registry.catalog import CatalogDocument, encode_document
from headrace.sync.dead_letters import list_letters
from headrace.sync.logs.sqlite import SqliteCommandLog
from headrace.sync.ports import Coordinates
from headrace.sync.writer import WRITER_GROUP

NOW_MS = START_MS + 10_000_000
KILLS_PER_POINT = 8
OUTSIDE_KILLS = 8
CHUNK = 40
BACKLOG_MAX = 400
PRELOADED = ["headrace.sync.writer", "headrace.sync.stores.lmdb", "headrace.sync.logs.sqlite"]
ROOMS = 40


class Stage:
    """The parent's side: appends commands, starts and kills writers, and checks what they left."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.draw = random.Random(seed)
        self.catalog_document: CatalogDocument = document()
        self.catalog = Catalog(encode_document(self.catalog_document))
        self.log = SqliteCommandLog(folder / "commands.db")
        self.producer = self.log.producer()
        self.writers = self.log.consumer("realtime", WRITER_GROUP)
        """Never polls, so it is no member; it only tells what the writers committed."""
        self.good: list[tuple[Coordinates, Command]] = []
        self.hostile: dict[Coordinates, bytes] = {}
        self.kills = 0
        self._stream = command_stream(self.draw, 200_000, rooms=ROOMS)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)

    def start(self, plan: Plan) -> ForkServerProcess:
        process = self._context.Process(
            target=run_writer, args=(self.folder, self.catalog_document, plan)
        )
        process.start()
        return process

    async def append(self) -> None:
        """A chunk of new commands, some earlier ones again, and a hostile one now and then."""
        fresh = [next(self._stream) for _ in range(CHUNK)]
        again = [self.draw.choice(self.good)[1] for _ in range(2) if self.good]
        chunk = fresh + again
        self.draw.shuffle(chunk)
        hostile = [poison(self.draw, len(self.hostile))[1]] if self.draw.random() < 0.5 else []
        records = [(command.key, command.payload) for command in chunk]
        records += [(b"hostile", payload) for payload in hostile]
        placed = await self.producer.append("realtime", records)
        self.good += zip(placed, chunk, strict=False)
        self.hostile |= zip(placed[len(chunk) :], hostile, strict=True)

    async def feed(self, process: ForkServerProcess) -> None:
        """Append a chunk, unless the writer is far enough behind as it is."""
        backlog = sum((await self.writers.lag()).values())
        if backlog < BACKLOG_MAX:
            await self.append()
        else:
            await asyncio.to_thread(process.join, 0.005)

    async def run_until_dead(self, plan: Plan) -> None:
        """Keep commands coming until the writer dies where the plan says."""
        process = self.start(plan)
        while process.is_alive():
            await self.feed(process)
        process.join()
        assert process.exitcode == -9, f"the writer ended by itself: {process.exitcode}"
        self.kills += 1

    async def kill_from_outside(self) -> None:
        """Kill at a random amount of progress, wherever the writer is then."""
        process = self.start(Plan(rows_max=self.draw.choice([5, 40, 200])))
        until = sum(await self.committed_offsets()) + self.draw.randrange(1, 300)
        while process.is_alive() and sum(await self.committed_offsets()) < until:
            await self.feed(process)
        process.kill()
        process.join()
        self.kills += 1

    async def drain(self, *, session_ms: int = 10_000) -> None:
        """Let a last writer finish everything, then stop it as an operator would."""
        process = self.start(Plan(rows_max=5_000, session_ms=session_ms))
        async with asyncio.timeout(30):
            while sum((await self.writers.lag()).values()):
                assert process.is_alive()
                await asyncio.to_thread(process.join, 0.02)
        await self.terminate(process)

    async def terminate(self, process: ForkServerProcess) -> None:
        process.terminate()
        await asyncio.to_thread(process.join)
        assert process.exitcode == 0

    async def check_the_store_equals_the_reference(self) -> None:
        stream = [command for _, command in self.good]
        store = LmdbStore(str(self.folder / "online"), read_only=True)
        try:
            objects = self.objects(store)
            histories = {room: self.history(store, room) for room in range(ROOMS)}
        finally:
            store.close()
        assert objects == expected_objects(stream)
        assert {room: found for room, found in histories.items() if found} == expected_events(
            stream
        )
        listed = [entry.letter async for entry in list_letters(self.log.dead_letters())]
        assert {letter.source: letter.value for letter in listed} == self.hostile

    async def committed_offsets(self) -> list[int]:
        return list((await self.writers.committed(WRITER_GROUP)).values())

    async def check_nothing_is_committed_that_is_not_durable(self) -> None:
        committed = await self.writers.committed(WRITER_GROUP)

        def is_committed(place: Coordinates) -> bool:
            return place.offset < committed.get((place.topic, place.partition), 0)

        done = [command for place, command in self.good if is_committed(place)]
        dead = {place for place in self.hostile if is_committed(place)}
        letters = {entry.letter.source async for entry in list_letters(self.log.dead_letters())}
        assert dead <= letters
        store = LmdbStore(str(self.folder / "online"), read_only=True)
        try:
            self._check_events(store, done)
            self._check_freshness(store, done)
        finally:
            store.close()

    def _check_events(self, store: LmdbStore, done: list[Command]) -> None:
        """Every committed event is there, unless any delete at all may have removed it."""
        deleted_at = {
            command.room_id: command.event_time_ms
            for command in sorted((c for _, c in self.good), key=lambda c: c.event_time_ms)
            if (command.group, command.method) == (HISTORY, "DELETE")
        }
        for room, events in expected_events(done).items():
            there = {at for at, _ in self.history(store, room)}
            wanted = {at for at, _ in events if at > deleted_at.get(room, 0)}
            assert wanted <= there

    def _check_freshness(self, store: LmdbStore, done: list[Command]) -> None:
        """No row is older than its newest committed update."""
        newest: dict[int, int] = {}
        for command in done:
            if (command.group, command.method) == (OBJECT, "UPDATE"):
                newest[command.room_id] = max(newest.get(command.room_id, 0), command.event_time_ms)
        rooms = sorted(newest)
        keys = [self.catalog.encode_key(OBJECT, {"room_id": room}) for room in rooms]
        rows = store.fetch_object(self.catalog, keys, now_ms=NOW_MS)
        deletes = [
            command.event_time_ms
            for _, command in self.good
            if (command.group, command.method) == (OBJECT, "DELETE")
        ]
        for room, row in zip(rooms, rows, strict=True):
            if row is None:
                assert any(at > newest[room] for at in deletes)
            else:
                assert row.newest_event_time_ms >= newest[room]

    def history(self, store: LmdbStore, room: int) -> list[tuple[int, dict[str, object]]]:
        key = self.catalog.encode_key(HISTORY, {"room_id": room})
        (events,) = store.fetch_history(self.catalog, [key], limit=MAX_EVENTS, now_ms=NOW_MS)
        return events

    def objects(self, store: LmdbStore) -> dict[int, dict[str, object]]:
        keys = [self.catalog.encode_key(OBJECT, {"room_id": room}) for room in range(ROOMS)]
        rows = store.fetch_object(self.catalog, keys, now_ms=NOW_MS)
        return {room: row.values for room, row in enumerate(rows) if row is not None}


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    opened = Stage(tmp_path, seed)
    yield opened
    await opened.log.close()


def _plans(draw: random.Random) -> Iterator[Plan]:
    points = [point for point in POINTS for _ in range(KILLS_PER_POINT)]
    draw.shuffle(points)
    sizes = cycle([5, 40, 200])
    for point in points:
        yield Plan(
            point=point,
            visit=draw.randint(1, 4),
            delay_us=draw.randrange(3_000),
            rows_max=next(sizes),
        )


async def test_dozens_of_kills_lose_nothing_double_nothing_and_commit_nothing_early(
    stage: Stage,
) -> None:
    await stage.append()
    for number, plan in enumerate(_plans(stage.draw)):
        await stage.run_until_dead(plan)
        if number % (len(POINTS) * KILLS_PER_POINT // OUTSIDE_KILLS) == 0:
            await stage.kill_from_outside()
        await stage.check_nothing_is_committed_that_is_not_durable()
    await stage.drain()
    assert stage.kills >= 80
    await stage.check_the_store_equals_the_reference()


async def test_a_writer_that_was_frozen_changes_nothing_when_it_wakes_up(stage: Stage) -> None:
    """SIGSTOP past its session: another takes over; its late write and commit have no effect."""
    plan = Plan(
        point="before store", visit=3, signal_number=signal.SIGSTOP, rows_max=20, session_ms=300
    )
    await stage.append()
    frozen = stage.start(plan)
    async with asyncio.timeout(20):
        while not _is_stopped(frozen):
            await stage.feed(frozen)
    await stage.drain(session_ms=300)
    committed = await stage.writers.committed(WRITER_GROUP)
    assert frozen.pid is not None
    os.kill(frozen.pid, signal.SIGCONT)
    await stage.append()
    async with asyncio.timeout(20):
        while sum((await stage.writers.lag()).values()):
            await asyncio.to_thread(frozen.join, 0.02)
    await stage.terminate(frozen)
    later = await stage.writers.committed(WRITER_GROUP)
    assert all(later[partition] >= committed[partition] for partition in committed)
    await stage.check_the_store_equals_the_reference()


async def test_several_writers_share_the_work_and_one_may_die(stage: Stage) -> None:
    mortal = Plan(point="after store", visit=5, rows_max=20)
    writers = [stage.start(plan) for plan in (mortal, Plan(rows_max=20), Plan(rows_max=20))]
    async with asyncio.timeout(20):
        while writers[0].is_alive():
            await stage.feed(writers[0])
        while sum((await stage.writers.lag()).values()):
            await asyncio.to_thread(writers[1].join, 0.02)
    for writer in writers[1:]:
        await stage.terminate(writer)
    await stage.check_the_store_equals_the_reference()


def _is_stopped(process: ForkServerProcess) -> bool:
    state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "T"

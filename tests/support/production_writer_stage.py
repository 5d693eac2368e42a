"""The parent's side of the writer fault tests: feeds Kafka, starts and kills, reads the store."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from production_writer_process import Servers, run_production_writer
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
from writer_process import Plan

from headrace.cli.scylla import ScyllaEngine
from headrace.codec import Catalog
from headrace.gateway.ports import Cells
from headrace.gateway.stores.scylla import ScyllaRows
from headrace.registry.catalog import encode_document
from headrace.sync.dead_letters import list_letters
from headrace.sync.errors import LogUnavailable
from headrace.sync.logs.kafka import KafkaCommandLog
from headrace.sync.logs.kafka_topics import create_topics
from headrace.sync.logs.kafka_url import KafkaUrl
from headrace.sync.ports import Coordinates, PartitionId
from headrace.sync.writer import WRITER_GROUP

ROOMS = 24
NOW_MS = START_MS + 10_000_000
READ_LIMIT_MS = 20_000
Events = dict[int, list[tuple[int, dict[str, object]]]]


class Stage:
    """One topic prefix and one keyspace; everything that was appended is remembered."""

    def __init__(self, servers: Servers, engine: ScyllaEngine, seed: int) -> None:
        self.servers = servers
        self.engine = engine
        self.draw = random.Random(seed)
        self.document = document()
        self.catalog = Catalog(encode_document(self.document))
        self.log = KafkaCommandLog(KafkaUrl.parse(servers.commands))
        self.good: list[tuple[Coordinates, Command]] = []
        self.hostile: dict[Coordinates, bytes] = {}
        self._rows = ScyllaRows(engine.session, engine.url.keyspace)
        self._producer = self.log.producer()
        self._watcher = self.log.consumer("realtime", WRITER_GROUP)
        """Never polls, so it is no member; it only tells what the writers committed."""
        self._stream = command_stream(self.draw, 400_000, rooms=ROOMS)
        self._started: list[ForkServerProcess] = []
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["production_writer_process"])

    def start(self, plan: Plan) -> ForkServerProcess:
        process = self._context.Process(
            target=run_production_writer, args=(self.servers, self.document, plan)
        )
        process.start()
        self._started.append(process)
        return process

    def end(self) -> None:
        """Kill every writer that a failed test left behind."""
        for process in self._started:
            process.kill()
            process.join()

    async def append(self, count: int) -> None:
        """New commands, some earlier ones again, and a hostile one now and then."""
        fresh = [next(self._stream) for _ in range(count)]
        chunk = fresh + [self.draw.choice(self.good)[1] for _ in range(2) if self.good]
        self.draw.shuffle(chunk)
        hostile = [poison(self.draw, len(self.hostile))[1]] if self.draw.random() < 0.3 else []
        records = [(command.key, command.payload) for command in chunk]
        records += [(b"hostile", payload) for payload in hostile]
        placed = await self._producer.append("realtime", records)
        self.good += zip(placed, chunk, strict=False)
        self.hostile |= zip(placed[len(chunk) :], hostile, strict=True)

    async def committed(self) -> dict[PartitionId, int]:
        """What the writers committed; a new broker first has to elect the group's coordinator."""
        async with asyncio.timeout(READ_LIMIT_MS / 1000):
            while True:
                with contextlib.suppress(LogUnavailable):
                    return await self._watcher.committed(WRITER_GROUP)
                await asyncio.sleep(0.05)

    async def backlog(self) -> int:
        """Commands that were appended and not committed yet."""
        ends: dict[PartitionId, int] = {}
        for place in [*(place for place, _ in self.good), *self.hostile]:
            partition = (place.topic, place.partition)
            ends[partition] = max(ends.get(partition, 0), place.offset + 1)
        committed = await self.committed()
        return sum(end - committed.get(partition, 0) for partition, end in ends.items())

    async def objects(self) -> dict[int, tuple[int, dict[str, object]]]:
        """By room: newest event time and values of the rows that are there."""
        rows: dict[int, tuple[int, dict[str, object]]] = {}
        for room, cells in enumerate(await self._cells(OBJECT, None)):
            folded = self.catalog.fold_object(OBJECT, cells, delete_timestamp=None, now_ms=NOW_MS)
            if folded is not None:
                rows[room] = (folded.newest_event_time_ms, folded.values)
        return rows

    async def events(self) -> Events:
        """By room: its events, newest first."""
        found = await self._cells(HISTORY, MAX_EVENTS)
        decode = self.catalog.decode_event
        rooms = {
            room: [decode(HISTORY, cell) for _, cell in cells] for room, cells in enumerate(found)
        }
        return {room: events for room, events in rooms.items() if events}

    async def letters(self) -> dict[Coordinates, bytes]:
        listed = [entry.letter async for entry in list_letters(self.log.dead_letters())]
        return {letter.source: letter.value for letter in listed}

    async def check_nothing_is_committed_that_is_not_durable(self) -> None:
        committed = await self.committed()

        def is_committed(place: Coordinates) -> bool:
            return place.offset < committed.get((place.topic, place.partition), 0)

        done = [command for place, command in self.good if is_committed(place)]
        self._check_freshness(done, await self.objects())
        deleted_at = self._deletes(HISTORY)
        events = await self.events()
        for room, wanted in expected_events(done).items():
            there = {at for at, _ in events.get(room, [])}
            assert {at for at, _ in wanted if at > deleted_at.get(room, 0)} <= there
        dead = {place for place in self.hostile if is_committed(place)}
        if dead:
            assert dead <= (await self.letters()).keys()

    async def check_the_store_equals_the_reference(self) -> None:
        stream = [command for _, command in self.good]
        objects = {room: values for room, (_, values) in (await self.objects()).items()}
        assert objects == expected_objects(stream)
        assert await self.events() == expected_events(stream)
        assert await self.letters() == self.hostile

    def _check_freshness(
        self, done: Sequence[Command], rows: dict[int, tuple[int, dict[str, object]]]
    ) -> None:
        """No row is older than its newest committed update, unless a delete took it."""
        newest: dict[int, int] = {}
        for command in done:
            if (command.group, command.method) == (OBJECT, "UPDATE"):
                newest[command.room_id] = max(newest.get(command.room_id, 0), command.event_time_ms)
        deleted_at = self._deletes(OBJECT)
        for room, at in newest.items():
            if at > deleted_at.get(room, 0):
                assert rows[room][0] >= at

    def _deletes(self, group: str) -> dict[int, int]:
        """By room: the newest delete that was ever appended, handled or not."""
        newest: dict[int, int] = {}
        for _, command in self.good:
            if (command.group, command.method) == (group, "DELETE"):
                newest[command.room_id] = max(newest.get(command.room_id, 0), command.event_time_ms)
        return newest

    async def _cells(self, group: str, events: int | None) -> list[list[tuple[int, bytes]]]:
        keys = [self.catalog.encode_key(group, {"room_id": room}) for room in range(ROOMS)]
        wanted = [(key, events) for key in keys]
        found = await self._rows.fetch(self.catalog, wanted, limit_ms=READ_LIMIT_MS)
        cells: list[list[tuple[int, bytes]]] = []
        for row in found:
            assert isinstance(row, Cells), row
            cells.append(row.cells)
        return cells


@asynccontextmanager
async def open_stage(servers: Servers, seed: int) -> AsyncGenerator[Stage]:
    await create_topics(KafkaUrl.parse(servers.commands))
    engine = await ScyllaEngine.open(servers.online, create=True, request_limit_ms=READ_LIMIT_MS)
    stage = Stage(servers, engine, seed)
    await engine.table_admin().create(stage.document.groups)
    try:
        yield stage
    finally:
        stage.end()
    await stage.log.close()
    await engine.close()


def is_stopped(process: ForkServerProcess) -> bool:
    """Whether a process was frozen by SIGSTOP; one that is gone is not."""
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state == "T"
    return False


async def waited(process: ForkServerProcess, *, limit_s: float = 20.0) -> int | None:
    """The exit code of a process that is about to end."""
    await asyncio.to_thread(process.join, limit_s)
    return process.exitcode

"""The embedded command log: topics, partitions, offsets and consumer groups in one SQLite file.

WAL with `synchronous=FULL`: a commit is on the disk when it returns, and concurrent appends share
one fsync (semantics 27). Any number of processes may open the file. Nothing blocks the event loop:
writes run on the file's own thread, reads on worker threads.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from headrace.sync.clock import ClockMs, steady_clock_ms, wall_clock_ms
from headrace.sync.logs.members import Claims, MemberLock, Membership, leave, renew
from headrace.sync.logs.partitions import (
    DEAD_LETTER_TOPIC,
    DEFAULT_PARTITION_COUNT,
    REPLAY_GROUP,
    partition_of,
    refuse,
)
from headrace.sync.logs.sqlite_file import OFFSET_BITS, LogFile, T, unavailable
from headrace.sync.ports import (
    BATCH_BYTES_MAX,
    Coordinates,
    DeadLetter,
    LogRecord,
    PartitionId,
    Topic,
)

RETENTION_MS = 7 * 24 * 3_600_000
"""Shorter than the delete grace of 10 days (semantics 4), so no replay outlives a delete marker."""

TRIM_INTERVAL_MS = 60_000
TRIM_ROWS_MAX = 5_000
"""Records trimmed within one append at most, so that no append waits long; the rest goes next."""

SESSION_MS = 10_000
HEARTBEAT_MS = 1_000
"""How soon members notice at latest that another one died or joined."""

UNSETTLED_HEARTBEAT_MS = 50
READ_PAGE_ROWS = 1_000

COMMAND_TOPICS: tuple[Topic, ...] = ("realtime", "bulk")


class SqliteCommandLog:
    """Opens the file. Every part handed out shares its threads, and `close` closes them all.

    `partition_count` counts only when a topic is first made; later openers take what is there.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        partition_count: int = DEFAULT_PARTITION_COUNT,
        now_ms: ClockMs = wall_clock_ms,
    ) -> None:
        self._file = LogFile(Path(path))
        self._now_ms = now_ms
        self._writing = _LogWriting(self._file, now_ms)
        self._consumers: list[SqliteConsumer] = []
        wanted = dict.fromkeys(COMMAND_TOPICS, partition_count) | {DEAD_LETTER_TOPIC: 1}
        self._file.pen.submit(lambda connection: _make_topics(connection, wanted)).result()

    def producer(self) -> SqliteProducer:
        return SqliteProducer(self._writing)

    def consumer(
        self,
        topic: Topic,
        group: str,
        *,
        member: str | None = None,
        session_ms: int = SESSION_MS,
        steady_ms: ClockMs = steady_clock_ms,
    ) -> SqliteConsumer:
        """A new member of `group`; it joins at its first poll. `member` must be unique."""
        membership = Membership(group, topic, member or uuid.uuid4().hex)
        consumer = SqliteConsumer(
            self._file, membership, now_ms=self._now_ms, session_ms=session_ms, steady_ms=steady_ms
        )
        self._consumers.append(consumer)
        return consumer

    def dead_letters(self) -> SqliteDeadLetters:
        return SqliteDeadLetters(self._file, self._writing)

    async def close(self) -> None:
        for consumer in self._consumers:
            await consumer.close()
        self._consumers.clear()
        await asyncio.to_thread(self._file.close)


class _LogWriting:
    """Appending and trimming, shared by producers and dead letters of one process."""

    def __init__(self, file: LogFile, now_ms: ClockMs) -> None:
        self._file = file
        self._now_ms = now_ms
        self._trim_due_ms = 0

    async def append(self, topic: str, records: Sequence[tuple[bytes, bytes]]) -> list[Coordinates]:
        return await self._file.pen.write(
            lambda connection: self._append(connection, topic, records)
        )

    def _append(
        self, connection: sqlite3.Connection, topic: str, records: Sequence[tuple[bytes, bytes]]
    ) -> list[Coordinates]:
        now_ms = self._now_ms()
        if now_ms >= self._trim_due_ms:
            trimmed = _trim(connection, now_ms - RETENTION_MS)
            self._trim_due_ms = now_ms if trimmed >= TRIM_ROWS_MAX else now_ms + TRIM_INTERVAL_MS
        ends = _ends(connection, topic)
        rows: list[tuple[int, bytes, bytes, int]] = []
        placed: list[Coordinates] = []
        for key, value in records:
            number = partition_of(key, len(ends))
            partition_id, offset = ends[number]
            ends[number] = (partition_id, offset + 1)
            rows.append((_row_id(partition_id, offset), key, value, now_ms))
            placed.append(Coordinates(topic, number, offset))
        rows.sort(key=lambda row: row[0])
        connection.executemany("INSERT INTO record VALUES (?, ?, ?, ?)", rows)
        connection.executemany(
            "UPDATE partition SET next_offset = ?2 WHERE id = ?1", list(ends.values())
        )
        return placed


class SqliteProducer:
    """`CommandProducer` over the file."""

    def __init__(self, writing: _LogWriting) -> None:
        self._writing = writing

    async def append(
        self, topic: Topic, records: Sequence[tuple[bytes, bytes]]
    ) -> list[Coordinates]:
        if not records:
            return []
        return await self._writing.append(topic, records)

    async def reach(self) -> None:
        """Nothing to wait for: the file was opened before there was a producer."""

    async def close(self) -> None:
        """Nothing to do: what `append` returned for is durable."""


class SqliteConsumer:
    """`CommandConsumer` over the file. One caller at a time polls."""

    def __init__(
        self,
        file: LogFile,
        membership: Membership,
        *,
        now_ms: ClockMs,
        session_ms: int,
        steady_ms: ClockMs,
    ) -> None:
        self._file = file
        self._me = membership
        self._now_ms = now_ms
        self._session_ms = session_ms
        self._steady_ms = steady_ms
        self._reader = _Reader(file)
        self._members_folder = file.path.with_name(file.path.name + "-members")
        self._lock: MemberLock | None = None
        self._heartbeat_due_ms = 0
        self._next_offsets: dict[int, int] = {}
        self._numbers: dict[int, int] = {}
        self._turn = 0

    async def poll(
        self, *, rows_max: int, wait_ms: int, bytes_max: int = BATCH_BYTES_MAX
    ) -> list[LogRecord]:
        give_up_at_ms = self._steady_ms() + wait_ms
        with self._file.commits.waiter() as waiter:
            while True:
                if self._steady_ms() >= self._heartbeat_due_ms:
                    await self.heartbeat()
                if records := await self._fetch(rows_max, bytes_max):
                    return records
                left_ms = give_up_at_ms - self._steady_ms()
                if left_ms <= 0:
                    return []
                until_heartbeat_ms = max(1, self._heartbeat_due_ms - self._steady_ms())
                await waiter.wait(min(left_ms, until_heartbeat_ms) / 1000)

    async def heartbeat(self) -> None:
        claims = await self._file.pen.write(self._renew)
        settled_ms = min(HEARTBEAT_MS, self._session_ms // 3)
        interval_ms = settled_ms if claims.settled else UNSETTLED_HEARTBEAT_MS
        self._heartbeat_due_ms = self._steady_ms() + interval_ms
        self._next_offsets = {
            partition_id: self._next_offsets.get(partition_id, committed)
            for partition_id, committed in claims.committed.items()
        }
        if self._next_offsets.keys() - self._numbers.keys():
            self._numbers = await self._reader.run(self._partition_numbers)

    def assignment(self) -> frozenset[PartitionId]:
        return frozenset((self._me.topic, self._numbers[held]) for held in self._next_offsets)

    async def commit(self, offsets: Mapping[PartitionId, int]) -> None:
        refused = await self._file.pen.write(lambda connection: self._commit(connection, offsets))
        refuse(self._me.group, refused)

    async def committed(self, group: str) -> dict[PartitionId, int]:
        positions = await self._reader.run(lambda c: _positions(c, self._me.topic, group))
        return {(self._me.topic, number): committed for number, (committed, _) in positions.items()}

    async def lag(self) -> dict[PartitionId, int]:
        positions = await self._reader.run(lambda c: _positions(c, self._me.topic, self._me.group))
        return {
            (self._me.topic, number): end - committed
            for number, (committed, end) in positions.items()
        }

    async def close(self) -> None:
        if self._lock is not None:
            await self._file.pen.write(lambda connection: leave(connection, self._me))
            self._lock.release()
            self._lock = None
        self._next_offsets = {}
        await self._reader.close()

    def _renew(self, connection: sqlite3.Connection) -> Claims:
        if self._lock is None:
            self._lock = MemberLock(self._members_folder, self._me.member)
        return renew(
            connection,
            self._me,
            folder=self._members_folder,
            now_ms=self._now_ms(),
            session_ms=self._session_ms,
        )

    def _partition_numbers(self, connection: sqlite3.Connection) -> dict[int, int]:
        ends = _ends(connection, self._me.topic)
        return {partition_id: number for number, (partition_id, _) in ends.items()}

    async def _fetch(self, rows_max: int, bytes_max: int) -> list[LogRecord]:
        starts = self._starts()
        records, next_offsets = await self._reader.run(
            lambda connection: self._read(connection, starts, rows_max, bytes_max)
        )
        self._next_offsets.update(next_offsets)
        return records

    def _starts(self) -> list[tuple[int, int]]:
        """(partition id, next offset) of all held partitions, another one first at each call."""
        held = sorted(self._next_offsets.items())
        if not held:
            return []
        self._turn = (self._turn + 1) % len(held)
        return held[self._turn :] + held[: self._turn]

    def _read(
        self,
        connection: sqlite3.Connection,
        starts: list[tuple[int, int]],
        rows_max: int,
        bytes_max: int,
    ) -> tuple[list[LogRecord], dict[int, int]]:
        """Records of the partitions that have any, each given an equal part of what is left."""
        ends = dict(_ends(connection, self._me.topic).values())
        waiting = [(held, start) for held, start in starts if start < ends.get(held, 0)]
        records: list[LogRecord] = []
        next_offsets: dict[int, int] = {}
        for index, (partition_id, start) in enumerate(waiting):
            partitions_left = len(waiting) - index
            rows = -(-(rows_max - len(records)) // partitions_left)
            if rows <= 0 or bytes_max <= 0:
                break
            number = self._numbers[partition_id]
            page = _records(
                connection, (self._me.topic, number), (partition_id, start), rows, bytes_max
            )
            if page:
                records += page
                next_offsets[partition_id] = page[-1].coordinates.offset + 1
                bytes_max -= sum(len(record.value) for record in page)
        return records, next_offsets

    def _commit(
        self, connection: sqlite3.Connection, offsets: Mapping[PartitionId, int]
    ) -> set[PartitionId]:
        """Commit what is still held; the partitions that are not."""
        refused: set[PartitionId] = set()
        for (topic, number), next_offset in offsets.items():
            moved = connection.execute(
                "UPDATE position SET next_offset = max(next_offset, ?) "
                "WHERE consumer_group = ? AND member = ? AND partition_id = "
                "(SELECT id FROM partition WHERE topic = ? AND number = ?)",
                (next_offset, self._me.group, self._me.member, topic, number),
            )
            if moved.rowcount == 0:
                refused.add((topic, number))
        return refused


class SqliteDeadLetters:
    """`DeadLetters` over the file: one more topic, whose values are MessagePack letters."""

    def __init__(self, file: LogFile, writing: _LogWriting) -> None:
        self._file = file
        self._writing = writing

    async def append(self, letters: Sequence[DeadLetter]) -> None:
        if letters:
            await self._writing.append(
                DEAD_LETTER_TOPIC,
                [(letter.key, msgspec.msgpack.encode(letter)) for letter in letters],
            )

    async def read(self) -> AsyncIterator[tuple[Coordinates, DeadLetter]]:
        reader = _Reader(self._file)
        try:
            ends = await reader.run(lambda connection: _ends(connection, DEAD_LETTER_TOPIC))
            for number, (partition_id, end) in ends.items():
                async for record in _pages(reader, (DEAD_LETTER_TOPIC, number), partition_id, end):
                    yield record.coordinates, msgspec.msgpack.decode(record.value, type=DeadLetter)
        finally:
            await reader.close()

    async def replayed(self) -> dict[PartitionId, int]:
        reader = _Reader(self._file)
        try:
            positions = await reader.run(lambda c: _positions(c, DEAD_LETTER_TOPIC, REPLAY_GROUP))
        finally:
            await reader.close()
        return {(DEAD_LETTER_TOPIC, number): next_ for number, (next_, _) in positions.items()}

    async def mark_replayed(self, offsets: Mapping[PartitionId, int]) -> None:
        await self._file.pen.write(lambda connection: _mark_replayed(connection, offsets))


class _Reader:
    """One reading connection, used on worker threads, by one of them at a time."""

    def __init__(self, file: LogFile) -> None:
        self._file = file
        self._connection: sqlite3.Connection | None = None
        self._one_at_a_time = threading.Lock()

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.to_thread(self._run, work)

    async def close(self) -> None:
        await asyncio.to_thread(self._close)

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._one_at_a_time:
            try:
                self._connection = self._connection or self._file.connect()
                return work(self._connection)
            except sqlite3.Error as error:
                raise unavailable(error) from error

    def _close(self) -> None:
        with self._one_at_a_time:
            if self._connection is not None:
                self._connection.close()
                self._connection = None


def _make_topics(connection: sqlite3.Connection, wanted: Mapping[str, int]) -> None:
    for topic, partition_count in wanted.items():
        if not _ends(connection, topic):
            connection.executemany(
                "INSERT INTO partition (topic, number) VALUES (?, ?)",
                [(topic, number) for number in range(partition_count)],
            )


def _row_id(partition_id: int, offset: int) -> int:
    return (partition_id << OFFSET_BITS) | offset


def _ends(connection: sqlite3.Connection, topic: str) -> dict[int, tuple[int, int]]:
    """(partition id, end offset) by partition number, in order of number."""
    rows = connection.execute(
        "SELECT number, id, next_offset FROM partition WHERE topic = ? ORDER BY number", (topic,)
    )
    return {number: (partition_id, end) for number, partition_id, end in rows}


def _positions(
    connection: sqlite3.Connection, topic: str, group: str
) -> dict[int, tuple[int, int]]:
    """(committed next offset, end offset) by partition number; 0 where never committed."""
    rows = connection.execute(
        "SELECT number, coalesce(position.next_offset, 0), partition.next_offset FROM partition "
        "LEFT JOIN position ON position.partition_id = partition.id "
        "AND position.consumer_group = ? WHERE topic = ? ORDER BY number",
        (group, topic),
    )
    return {number: (committed, end) for number, committed, end in rows}


def _records(
    connection: sqlite3.Connection,
    partition: PartitionId,
    start: tuple[int, int],
    rows_max: int,
    bytes_max: int,
) -> list[LogRecord]:
    topic, number = partition
    partition_id, first_offset = start
    first_id = _row_id(partition_id, 0)
    records: list[LogRecord] = []
    for row_id, key, value, appended_at_ms in connection.execute(
        "SELECT id, key, value, appended_at_ms FROM record WHERE id >= ? AND id < ? LIMIT ?",
        (first_id | first_offset, _row_id(partition_id + 1, 0), rows_max),
    ):
        if records and bytes_max < len(value):
            break
        bytes_max -= len(value)
        coordinates = Coordinates(topic, number, row_id - first_id)
        records.append(LogRecord(coordinates, key, value, appended_at_ms))
    return records


async def _pages(
    reader: _Reader, partition: PartitionId, partition_id: int, end: int
) -> AsyncIterator[LogRecord]:
    offset = 0
    while offset < end:
        page = await reader.run(
            partial(
                _records,
                partition=partition,
                start=(partition_id, offset),
                rows_max=READ_PAGE_ROWS,
                bytes_max=BATCH_BYTES_MAX,
            )
        )
        for record in page:
            if record.coordinates.offset < end:
                yield record
        offset = page[-1].coordinates.offset + 1 if page else end


def _mark_replayed(connection: sqlite3.Connection, offsets: Mapping[PartitionId, int]) -> None:
    for (topic, number), next_offset in offsets.items():
        connection.execute(
            "INSERT INTO position (consumer_group, partition_id, next_offset) "
            "SELECT ?, id, ? FROM partition WHERE topic = ? AND number = ? "
            "ON CONFLICT DO UPDATE SET next_offset = max(next_offset, excluded.next_offset)",
            (REPLAY_GROUP, next_offset, topic, number),
        )


def _trim(connection: sqlite3.Connection, appended_before_ms: int) -> int:
    """Delete a bounded number of old records and count them.

    Commands go only below every group's committed offset (semantics 27); a topic that nobody ever
    read keeps everything. Dead letters go by age alone, since a replay of one older than the delete
    grace could bring deleted rows back (semantics 4).
    """
    floors = connection.execute(
        "SELECT partition.id, CASE WHEN topic = ? THEN partition.next_offset "
        "ELSE coalesce(min(position.next_offset), 0) END "
        "FROM partition LEFT JOIN position ON position.partition_id = partition.id "
        "GROUP BY partition.id",
        (DEAD_LETTER_TOPIC,),
    ).fetchall()
    left = TRIM_ROWS_MAX
    for partition_id, floor in floors:
        deleted = connection.execute(
            "DELETE FROM record WHERE appended_at_ms < ? AND id IN "
            "(SELECT id FROM record WHERE id >= ? AND id < ? ORDER BY id LIMIT ?)",
            (
                appended_before_ms,
                _row_id(partition_id, 0),
                _row_id(partition_id, floor),
                left,
            ),
        )
        left -= deleted.rowcount
    return TRIM_ROWS_MAX - left

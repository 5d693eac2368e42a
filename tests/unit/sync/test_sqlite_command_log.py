"""What only the SQLite log promises: durability, retention, several processes, frozen members."""

from __future__ import annotations

import asyncio
import multiprocessing
import sqlite3
from collections.abc import AsyncIterator
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from headrace.sync.errors import CommitRefused, LogUnavailable
from headrace.sync.logs.sqlite import (
    RETENTION_MS,
    TRIM_INTERVAL_MS,
    TRIM_ROWS_MAX,
    SqliteCommandLog,
)
from headrace.sync.logs.sqlite_file import LogFile, Pen
from headrace.sync.ports import Coordinates, DeadLetter, LogRecord


class Clock:
    """A clock that stands still until told."""

    def __init__(self) -> None:
        self.ms = 1_700_000_000_000

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def log(tmp_path: Path, clock: Clock) -> AsyncIterator[SqliteCommandLog]:
    opened = SqliteCommandLog(tmp_path / "commands.db", partition_count=1, now_ms=clock)
    yield opened
    await opened.close()


def _column(path: Path, statement: str) -> list[object]:
    connection = sqlite3.connect(path)
    try:
        return [row[0] for row in connection.execute(statement)]
    finally:
        connection.close()


async def _drain(log: SqliteCommandLog, group: str) -> list[LogRecord]:
    consumer = log.consumer("realtime", group)
    records = await consumer.poll(rows_max=10_000, wait_ms=0)
    if records:
        await consumer.commit({("realtime", 0): records[-1].coordinates.offset + 1})
    await consumer.close()
    return records


def test_every_connection_is_wal_with_full_synchronisation(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "commands.db")
    connection = file.connect()
    try:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    finally:
        connection.close()
        file.close()


async def test_jobs_that_wait_together_are_committed_together(tmp_path: Path) -> None:
    """Group commit (semantics 27): 300 waiting jobs take few commits, each of which wakes once."""
    commit_count = 0

    def count() -> None:
        nonlocal commit_count
        commit_count += 1

    file = LogFile(tmp_path / "commands.db")
    pen = Pen(file.connect, count)
    await asyncio.gather(
        *(pen.write(lambda c: c.execute("SELECT 1").fetchone()) for _ in range(300))
    )
    pen.close()
    file.close()
    assert commit_count <= 10


async def test_a_failing_job_leaves_its_neighbours_of_the_same_commit_standing(
    tmp_path: Path,
) -> None:
    file = LogFile(tmp_path / "commands.db")
    insert = "INSERT INTO record VALUES (?, x'', x'', 0)"
    outcomes = await asyncio.gather(
        file.pen.write(lambda c: c.execute(insert, (1,)).rowcount),
        file.pen.write(lambda c: c.execute(insert, (1,)).rowcount),
        file.pen.write(lambda c: c.execute(insert, (2,)).rowcount),
        return_exceptions=True,
    )
    file.close()
    assert isinstance(outcomes[1], LogUnavailable)
    assert _column(tmp_path / "commands.db", "SELECT id FROM record") == [1, 2]


async def test_a_full_disk_is_an_error_that_leaves_nothing_half_written(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "commands.db")
    pages_max = 40

    def connect() -> sqlite3.Connection:
        connection = file.connect()
        connection.execute(f"PRAGMA max_page_count = {pages_max}")
        return connection

    pen = Pen(connect, lambda: None)
    insert = "INSERT INTO record VALUES (?, x'', zeroblob(?), 0)"
    await pen.write(lambda c: c.execute(insert, (1, 100)).rowcount)
    with pytest.raises(LogUnavailable, match="full"):
        await pen.write(
            lambda c: c.executemany(insert, [(number, 8_000) for number in range(2, 100)]).rowcount
        )
    await pen.write(lambda c: c.execute(insert, (200, 100)).rowcount)
    pen.close()
    file.close()
    assert _column(tmp_path / "commands.db", "SELECT id FROM record ORDER BY id") == [1, 200]


async def test_old_commands_stay_until_every_group_has_committed_past_them(
    log: SqliteCommandLog, clock: Clock, tmp_path: Path
) -> None:
    """Retention trims only below every group's committed offset (semantics 27)."""
    producer = log.producer()
    await producer.append("realtime", [(b"k", b"old")] * 10)
    await _drain(log, "writer")
    slow = log.consumer("realtime", "downsync")
    await slow.heartbeat()
    clock.ms += RETENTION_MS + 1
    await producer.append("realtime", [(b"k", b"new")])
    stays = len(_column(tmp_path / "commands.db", "SELECT id FROM record"))
    await slow.commit({("realtime", 0): 10})
    clock.ms += TRIM_INTERVAL_MS
    await producer.append("realtime", [(b"k", b"newer")])
    values = _column(tmp_path / "commands.db", "SELECT value FROM record ORDER BY id")
    assert (stays, values) == (11, [b"new", b"newer"])


async def test_one_append_trims_a_bounded_number_and_the_next_goes_on(
    log: SqliteCommandLog, clock: Clock, tmp_path: Path
) -> None:
    producer = log.producer()
    await producer.append("realtime", [(b"k", b"old")] * (TRIM_ROWS_MAX + 10))
    await _drain(log, "writer")
    clock.ms += RETENTION_MS + 1
    left: list[int] = []
    for _ in range(2):
        await producer.append("realtime", [(b"k", b"new")])
        left.append(len(_column(tmp_path / "commands.db", "SELECT id FROM record")))
    assert left == [10 + 1, 2]


async def test_commands_that_nobody_ever_read_stay(
    log: SqliteCommandLog, clock: Clock, tmp_path: Path
) -> None:
    await log.producer().append("realtime", [(b"k", b"old")])
    clock.ms += 10 * RETENTION_MS
    await log.producer().append("realtime", [(b"k", b"new")])
    assert len(_column(tmp_path / "commands.db", "SELECT id FROM record")) == 2


async def test_offsets_go_on_after_everything_was_trimmed(
    log: SqliteCommandLog, clock: Clock
) -> None:
    """Offsets come from a per-partition counter and are never reused (semantics 27)."""
    await log.producer().append("realtime", [(b"k", b"old")] * 10)
    await _drain(log, "writer")
    clock.ms += RETENTION_MS + 1
    (place,) = await log.producer().append("realtime", [(b"k", b"new")])
    assert place.offset == 10
    assert [record.value for record in await _drain(log, "writer")] == [b"new"]


async def test_dead_letters_go_after_the_retention_read_or_not(
    log: SqliteCommandLog, clock: Clock
) -> None:
    """Dead-letter retention is shorter than the delete grace (semantics 4)."""
    source = Coordinates("realtime", 0, 3)
    letter = DeadLetter(source, "WRONG_TYPE", "why", b"k", b"v", clock.ms)
    await log.dead_letters().append([letter])
    clock.ms += RETENTION_MS + 1
    await log.producer().append("realtime", [(b"k", b"v")])
    assert [letter async for _, letter in log.dead_letters().read()] == []


async def test_a_frozen_member_loses_its_partitions_when_its_session_ends(
    log: SqliteCommandLog, clock: Clock
) -> None:
    await log.producer().append("realtime", [(b"k", b"v")] * 5)
    frozen = log.consumer("realtime", "writer", session_ms=10_000)
    await frozen.poll(rows_max=10, wait_ms=0)
    clock.ms += 10_001
    (other_first, *_) = await log.consumer("realtime", "writer").poll(rows_max=10, wait_ms=0)
    assert other_first.coordinates.offset == 0
    with pytest.raises(CommitRefused, match="realtime/0"):
        await frozen.commit({("realtime", 0): 5})


async def test_a_living_member_keeps_its_partitions_within_its_session(
    log: SqliteCommandLog, clock: Clock
) -> None:
    await log.producer().append("realtime", [(b"k", b"v")] * 5)
    await log.consumer("realtime", "writer", member="a", session_ms=10_000).heartbeat()
    clock.ms += 9_999
    other = log.consumer("realtime", "writer", member="b", session_ms=10_000)
    assert await other.poll(rows_max=10, wait_ms=0) == []


def _append_and_hang(path: Path, ready: Event) -> None:
    async def hold() -> None:
        log = SqliteCommandLog(path, partition_count=1)
        await log.producer().append("realtime", [(b"k", b"from another process")])
        await log.consumer("realtime", "writer").poll(rows_max=10, wait_ms=1_000)
        ready.set()
        await asyncio.Event().wait()

    asyncio.run(hold())


async def test_a_killed_process_frees_its_partitions_at_once(tmp_path: Path) -> None:
    """No session has to run out: the kernel drops the lock of a process that dies."""
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Event()
    process = spawn.Process(target=_append_and_hang, args=(tmp_path / "commands.db", ready))
    process.start()
    assert await asyncio.to_thread(ready.wait, 30)
    process.kill()
    await asyncio.to_thread(process.join)
    log = SqliteCommandLog(tmp_path / "commands.db")
    polled = await log.consumer("realtime", "writer").poll(rows_max=10, wait_ms=0)
    await log.close()
    assert [record.value for record in polled] == [b"from another process"]


def _append_numbers(path: Path, process: int, count: int) -> None:
    async def append() -> None:
        log = SqliteCommandLog(path, partition_count=2)
        producer = log.producer()
        values = [b"%d-%d" % (process, number) for number in range(count)]
        await asyncio.gather(*(producer.append("realtime", [(value, value)]) for value in values))
        await log.close()

    asyncio.run(append())


async def test_processes_that_open_and_append_at_once_lose_nothing(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    path = tmp_path / "commands.db"
    processes = [spawn.Process(target=_append_numbers, args=(path, n, 200)) for n in range(3)]
    for process in processes:
        process.start()
    log = SqliteCommandLog(path, partition_count=2)
    consumer = log.consumer("realtime", "writer")
    seen: list[bytes] = []
    async with asyncio.timeout(30):
        while len(seen) < 600:
            page = await consumer.poll(rows_max=1_000, wait_ms=1_000)
            seen += [record.value for record in page]
    for process in processes:
        await asyncio.to_thread(process.join)
    await log.close()
    assert sorted(seen) == sorted(b"%d-%d" % (p, n) for p in range(3) for n in range(200))


async def test_closing_writes_what_was_submitted(tmp_path: Path) -> None:
    log = SqliteCommandLog(tmp_path / "commands.db")
    appending = asyncio.create_task(log.producer().append("bulk", [(b"k", b"v")]))
    await asyncio.wait([appending], timeout=0)
    await log.close()
    assert len(await appending) == 1
    with pytest.raises(LogUnavailable, match="closed"):
        await log.producer().append("bulk", [(b"k", b"v")])


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"this is no database at all, whatever its name says" * 50, "not a database")],
)
def test_a_foreign_file_is_refused_with_a_sentence(
    tmp_path: Path, content: bytes, why: str
) -> None:
    path = tmp_path / "commands.db"
    path.write_bytes(content)
    with pytest.raises(LogUnavailable, match=why):
        SqliteCommandLog(path)


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (id INTEGER)")
    connection.close()
    with pytest.raises(LogUnavailable, match="expected"):
        SqliteCommandLog(path)
    assert _column(path, "SELECT name FROM sqlite_schema") == ["theirs"]


def test_a_newer_layout_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "commands.db"
    LogFile(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(LogUnavailable, match="layout 99"):
        SqliteCommandLog(path)

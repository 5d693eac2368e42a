"""The SQLite file of the embedded command log: layout, connections, group commit, wake-ups.

Layout, version 1. A (topic, partition) has a small id; a record's row id is that id shifted left by
48 bits plus its offset, so a partition is one run of one B-tree and needs no index. The offset
counter is stored, never derived from the rows: trimming cannot make an offset come back.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from headrace.sync.errors import LogUnavailable

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

LAYOUT_VERSION = 1
APPLICATION_ID = 0x48656164
"""The bytes `Head` in the file's header: tells our file from any other SQLite file."""

OFFSET_BITS = 48
BUSY_WAIT_S = 10.0
OPEN_WAIT_S = 10.0
WATCH_INTERVAL_S = 0.02
"""How often commits of other processes are looked for while someone waits for records."""

CHECKPOINT_PAGES = 4_000
JOURNAL_BYTES_MAX = 64 * 1024 * 1024
JOBS_PER_COMMIT_MAX = 512

_SCHEMA = """
CREATE TABLE IF NOT EXISTS partition (
    id INTEGER PRIMARY KEY,
    topic TEXT NOT NULL,
    number INTEGER NOT NULL,
    next_offset INTEGER NOT NULL DEFAULT 0,
    UNIQUE (topic, number)
);
CREATE TABLE IF NOT EXISTS record (
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL,
    value BLOB NOT NULL,
    appended_at_ms INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS position (
    consumer_group TEXT NOT NULL,
    partition_id INTEGER NOT NULL REFERENCES partition (id),
    next_offset INTEGER NOT NULL DEFAULT 0,
    member TEXT,
    PRIMARY KEY (consumer_group, partition_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS member (
    consumer_group TEXT NOT NULL,
    topic TEXT NOT NULL,
    member TEXT NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    PRIMARY KEY (consumer_group, topic, member)
) WITHOUT ROWID;
"""


class LogFile:
    """One open log file of one process; hands out connections and owns its two threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._closed = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _create(path)
        except (OSError, sqlite3.Error) as error:
            raise LogUnavailable(
                f"the command log `{path}` cannot be opened: {error}; "
                "check that its folder is writable and that the file is a Headrace command log"
            ) from error
        self.commits = CommitWatch(self.connect)
        self.pen = Pen(self.connect, self.commits.wake)

    def connect(self) -> sqlite3.Connection:
        """A connection for one user at a time, on any thread; transactions are explicit."""
        connection = sqlite3.connect(
            self.path, timeout=BUSY_WAIT_S, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit={JOURNAL_BYTES_MAX}")
        return connection

    def close(self) -> None:
        """Finish what was submitted, then stop both threads."""
        if not self._closed:
            self._closed = True
            self.pen.close()
            self.commits.close()


def _create(path: Path) -> None:
    """Make the file and its tables; several processes may do so at the same moment."""
    give_up_at_s = time.monotonic() + OPEN_WAIT_S
    while True:
        connection = sqlite3.connect(path, timeout=BUSY_WAIT_S, isolation_level=None)
        try:
            _prepare(connection)
            return
        except sqlite3.OperationalError as error:
            # Turning WAL on does not wait for other openers as ordinary locks do.
            if "locked" not in str(error) or time.monotonic() > give_up_at_s:
                raise
            time.sleep(0.005)
        finally:
            connection.close()


def _prepare(connection: sqlite3.Connection) -> None:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if (application_id, version) == (APPLICATION_ID, LAYOUT_VERSION):
        return
    (table_count,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if version > LAYOUT_VERSION or (application_id != APPLICATION_ID and table_count > 0):
        raise sqlite3.DatabaseError(
            f"application id {application_id:#x}, layout {version}; "
            f"expected {APPLICATION_ID:#x}, layout {LAYOUT_VERSION}"
        )
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("BEGIN IMMEDIATE")
    for statement in _SCHEMA.split(";\n"):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={LAYOUT_VERSION}")
    connection.execute("COMMIT")


class Pen:
    """The one thread of a process that writes the log.

    Whatever was submitted while the last commit was on its way to the disk goes into the next
    transaction together: concurrent appends share one fsync (group commit).
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection], wake: Callable[[], None]) -> None:
        self._connect = connect
        self._wake = wake
        self._queue: list[tuple[Work[object], Future[object]]] = []
        self._arrived = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    async def write(self, work: Work[T]) -> T:
        """Run `work` inside a transaction; its result once that is durable; `LogUnavailable`."""
        return await asyncio.wrap_future(self.submit(work))

    def submit(self, work: Work[T]) -> Future[T]:
        future: Future[T] = Future()
        with self._arrived:
            if self._closing:
                raise LogUnavailable("the command log was closed; open it again to write")
            self._queue.append((work, future))  # type: ignore[arg-type]  # T is erased in the queue
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="command-log-pen", daemon=True
                )
                self._thread.start()
            self._arrived.notify()
        return future

    def close(self) -> None:
        with self._arrived:
            self._closing = True
            self._arrived.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        try:
            while jobs := self._take():
                try:
                    connection = connection or self._connect()
                    outcomes = _write_together(connection, jobs)
                except sqlite3.Error as error:
                    _fail(jobs, error)
                else:
                    _settle(outcomes)
                    self._wake()
        finally:
            if connection is not None:
                connection.close()

    def _take(self) -> list[tuple[Work[object], Future[object]]]:
        """Wait for jobs; those whose caller has gone are left out; empty only when closing."""
        while True:
            with self._arrived:
                while not self._queue and not self._closing:
                    self._arrived.wait()
                taken = self._queue[:JOBS_PER_COMMIT_MAX]
                del self._queue[:JOBS_PER_COMMIT_MAX]
            if not taken:
                return []
            wanted = [job for job in taken if job[1].set_running_or_notify_cancel()]
            if wanted:
                return wanted


Outcome = tuple["Future[object]", object, Exception | None]


def _write_together(
    connection: sqlite3.Connection, jobs: list[tuple[Work[object], Future[object]]]
) -> list[Outcome]:
    """One transaction for all jobs; a job that raises is undone alone, the others stand."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        outcomes: list[Outcome] = []
        for work, future in jobs:
            connection.execute("SAVEPOINT job")
            try:
                outcomes.append((future, work(connection), None))
            except Exception as error:  # handed to the caller whose job it was
                if not connection.in_transaction:
                    raise  # SQLite undid the whole transaction, as it does when the disk is full.
                connection.execute("ROLLBACK TO job")
                outcomes.append((future, None, error))
            connection.execute("RELEASE job")
        connection.execute("COMMIT")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return outcomes


def _settle(outcomes: list[Outcome]) -> None:
    for future, result, error in outcomes:
        if error is None:
            future.set_result(result)
        elif isinstance(error, sqlite3.Error | OSError):
            future.set_exception(unavailable(error))
        else:
            future.set_exception(error)


def _fail(jobs: list[tuple[Work[object], Future[object]]], error: sqlite3.Error) -> None:
    for _, future in jobs:
        future.set_exception(unavailable(error))


def unavailable(error: sqlite3.Error | OSError) -> LogUnavailable:
    """The port's error for whatever SQLite or the file system says."""
    return LogUnavailable(f"the command log refuses the operation: {error}")


class CommitWatch:
    """Tells waiting readers that something was committed.

    Commits of this process wake them directly. Those of other processes are seen through SQLite's
    `data_version`, read every 20 ms by one thread and only while somebody waits.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._waiting: set[Waiter] = set()
        self._changed = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    @contextmanager
    def waiter(self) -> Generator[Waiter]:
        """Begin before looking for records, so that no commit falls between look and wait."""
        waiter = Waiter(self._start)
        with self._changed:
            self._waiting.add(waiter)
        try:
            yield waiter
        finally:
            with self._changed:
                self._waiting.discard(waiter)

    def wake(self) -> None:
        with self._changed:
            waiting = list(self._waiting)
        for waiter in waiting:
            waiter.wake()

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _start(self) -> None:
        with self._changed:
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(
                    target=self._run, name="command-log-watch", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()

    def _run(self) -> None:
        connection = self._connect()
        seen: int | None = None
        try:
            while self._somebody_waits():
                version = _data_version(connection, seen)
                if version != seen:
                    seen = version
                    self.wake()
                with self._changed:
                    if not self._closing:
                        self._changed.wait(WATCH_INTERVAL_S)
        finally:
            connection.close()

    def _somebody_waits(self) -> bool:
        """Block until somebody waits for records; False when closing."""
        with self._changed:
            while not self._closing and not any(waiter.asleep for waiter in self._waiting):
                self._changed.wait()
            return not self._closing


def _data_version(connection: sqlite3.Connection, seen: int | None) -> int | None:
    try:
        (version,) = connection.execute("PRAGMA data_version").fetchone()
    except sqlite3.Error:
        return seen  # The waiting reader meets the same trouble itself and reports it.
    return int(version)


class Waiter:
    """One reader that may have to wait; used on its own event loop."""

    def __init__(self, start: Callable[[], None]) -> None:
        self._start = start
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self.asleep = False

    async def wait(self, timeout_s: float) -> bool:
        """Sleep until the next commit; False when none came within `timeout_s`."""
        self.asleep = True
        self._start()
        try:
            async with asyncio.timeout(timeout_s):
                await self._woken.wait()
        except TimeoutError:
            return False
        finally:
            self.asleep = False
        self._woken.clear()
        return True

    def wake(self) -> None:
        with suppress(RuntimeError):  # The reader's event loop has ended; nobody waits any more.
            self._loop.call_soon_threadsafe(self._woken.set)

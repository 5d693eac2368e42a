"""The embedded offline store: Parquet files are the truth, DuckDB only computes over them.

Rows lie sorted by event time in each file, so Parquet's row-group statistics prune by day; folders
per day would tear apart the one file that the redo of a range of commands has to replace. Every
process opens its own in-memory DuckDB, because a DuckDB file would lock other processes out
(semantics 28). `files.py` has the layout.
"""

# ruff: noqa: S608 - names passed the registry's rules and are quoted, values are bound or typed

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar, cast

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.registry.catalog import Group
from headrace.registry.physical import quoted
from headrace.sync.errors import OfflineUnavailable
from headrace.sync.offline.files import OfflineFiles, appearing
from headrace.sync.offline.ports import (
    ChangeQuery,
    ChangeSet,
    LogRange,
    TransformOutcome,
    TransformRun,
)
from headrace.sync.offline.ranges import counting
from headrace.sync.offline.relations import (
    MOMENT,
    ROW_HASH,
    all_columns,
    changed_rows,
    latest_rows,
    names,
    scan_of,
    settled_rows,
    stored_rows,
    text_literal,
)
from headrace.sync.offline.relations import (
    cast as typed,
)
from headrace.sync.offline.transformation import new_rows
from headrace.sync.offline.types import (
    COMMAND_OFFSET,
    EVENT_TIME,
    Rows,
    duckdb_type,
    key_columns,
    upsync_columns,
)

MEMORY_LIMIT = "1GB"
"""Of one DuckDB; what needs more spills to disk."""

READ_ATTEMPTS = 3

ROW_GROUP_ROWS = 10_000
"""Of pinned files: about one upsync chunk, so that fetching a chunk reads little else."""


Arguments = ParamSpec("Arguments")
Outcome = TypeVar("Outcome")


class DuckdbOfflineStore:
    """`OfflineReader`, `OfflineWriter` and `OfflineTransformer` over a folder of Parquet files."""

    def __init__(self, root: Path, *, memory_limit: str = MEMORY_LIMIT) -> None:
        self._files = OfflineFiles(root)
        self._memory_limit = memory_limit

    async def prepare(self, group: Group, query: ChangeQuery) -> ChangeSet:
        return await _reading(self._prepare, group, query)

    async def fetch(self, group: Group, run_id: str, *, first_row: int, rows: int) -> Rows:
        return await asyncio.to_thread(self._fetch, group, run_id, first_row, first_row + rows)

    async def settle(self, group: Group, run_id: str) -> None:
        await asyncio.to_thread(self._settle, group, run_id)

    async def release(self, group: Group, run_id: str) -> None:
        self._files.pinned(group, run_id).unlink(missing_ok=True)
        self._files.unlock(group)

    async def append(self, group: Group, rows: Rows, token: LogRange) -> None:
        await asyncio.to_thread(self._append, group, rows, token)

    async def transform(self, group: Group, run: TransformRun) -> TransformOutcome:
        return await _reading(self._transform, group, run)

    async def stored(self, group: Group) -> Rows:
        """Every stored row under today's schema, for tools and checks."""
        return await _reading(self._select, group, "SELECT {columns} FROM stored")

    async def latest(self, group: Group) -> Rows:
        """The rows that a first upsync would send, for tools and checks."""
        query = f"SELECT {{columns}} FROM ({latest_rows(group)})"
        return await _reading(self._select, group, query)

    def close(self) -> None:
        """Let other processes run what this one left unfinished."""
        self._files.close()

    def _select(self, group: Group, query: str) -> Rows:
        with self._opened() as connection:
            self._show_stored(connection, group)
            columns = names(all_columns(group))
            rows = connection.sql(query.format(columns=columns)).to_arrow_table()
            return cast("Rows", rows)

    def _prepare(self, group: Group, query: ChangeQuery) -> ChangeSet:
        self._files.lock(group)
        pinned = self._files.pinned(group, query.run_id)
        if not pinned.exists():
            with self._opened() as connection:
                self._pin(connection, group, query, pinned)
        metadata = pq.read_metadata(pinned)
        noted = {key.decode(): value.decode() for key, value in (metadata.metadata or {}).items()}
        return ChangeSet(
            rows=metadata.num_rows,
            scanned=int(noted["scanned"]),
            mark_ms=int(noted["mark_ms"]) if noted["mark_ms"] else None,
        )

    def _pin(
        self, connection: duckdb.DuckDBPyConnection, group: Group, query: ChangeQuery, path: Path
    ) -> None:
        self._show_stored(connection, group)
        self._show_sent(connection, group)
        connection.execute(f"CREATE TABLE latest AS {latest_rows(group)}")
        connection.execute(
            f"CREATE TABLE change AS {changed_rows(group, full=query.full)}",
            {"since_ms": query.since_ms, "snapshot_ms": query.snapshot_time_ms},
        )
        scanned, mark_ms = connection.execute(
            f"SELECT count(*), epoch_ms(max({MOMENT}) FILTER (NOT isinf({MOMENT}))) FROM latest"
        ).fetchall()[0]
        mark = "" if mark_ms is None else mark_ms
        noted = f"KV_METADATA {{scanned: '{scanned}', mark_ms: '{mark}'}}"
        _write(connection, "FROM change ORDER BY _position", path, noted)

    def _fetch(self, group: Group, run_id: str, first_row: int, next_row: int) -> Rows:
        with self._opened() as connection:
            columns = upsync_columns(group)
            casts = [typed(column) for column in columns]
            path = str(self._files.pinned(group, run_id))
            chunk = connection.sql(
                f"SELECT {', '.join(casts)} FROM read_parquet($path) "
                "WHERE _position >= $first AND _position < $next ORDER BY _position",
                params={"path": path, "first": first_row, "next": next_row},
            )
            return cast("Rows", chunk.to_arrow_table())

    def _settle(self, group: Group, run_id: str) -> None:
        path = self._files.pinned(group, run_id)
        with self._opened() as connection:
            self._show_sent(connection, group)
            connection.execute(
                f"CREATE VIEW pinned AS FROM read_parquet({text_literal(str(path))})"
            )
            _write(connection, settled_rows(group), self._files.sent(group))

    def _append(self, group: Group, rows: Rows, token: LogRange) -> None:
        with _explained(group):
            replaced = self._files.replaced(group, token)
            path = self._files.ranged(group, token)
            if rows.num_rows == 0:
                path.unlink(missing_ok=True)
            else:
                _store(rows, path)
            for stale in replaced:
                stale.unlink(missing_ok=True)
            self._merge(group, token)

    def _merge(self, group: Group, token: LogRange) -> None:
        """Make one file of many small ones; readers see the members or the whole, never both."""
        members = self._files.mergeable(group, token)
        if not members:
            return
        tables = [_rows_from(path, first_offset) for path, first_offset in counting(members)]
        next_offset = max(held.next_offset for _, held in members)
        hull = msgspec.structs.replace(members[0][1], next_offset=next_offset)
        _store(
            pa.concat_tables(tables, promote_options="permissive"), self._files.ranged(group, hull)
        )
        for path, _ in members:
            path.unlink(missing_ok=True)

    def _transform(self, group: Group, run: TransformRun) -> TransformOutcome:
        with self._opened() as connection:
            self._show_stored(connection, group)
            made, query = new_rows(connection, group, run)
            appended = connection.execute(f"SELECT count(*) FROM ({query})").fetchall()[0][0]
            if appended:
                ordered = f"{query} ORDER BY {EVENT_TIME}, {names(key_columns(group))}"
                _write(connection, ordered, self._files.transformed(group, run.run_id))
            return TransformOutcome(rows=made, appended=appended)

    def _show_stored(self, connection: duckdb.DuckDBPyConnection, group: Group) -> None:
        """Make the view `stored`: every row of the group, as the files hold it now."""
        files = self._files.stored(group)
        if files:
            scan = scan_of([(str(path), first_offset) for path, first_offset in files])
            present = {row[0] for row in connection.execute(f"DESCRIBE FROM {scan}").fetchall()}
        else:
            scan, present = "range(0)", set[str]()
        connection.execute(f"CREATE VIEW stored AS {stored_rows(group, present, scan)}")

    def _show_sent(self, connection: duckdb.DuckDBPyConnection, group: Group) -> None:
        """Make the table `sent`: what earlier runs sent, by key fields and row hash."""
        columns = ", ".join(
            f"{quoted(column.name)} {duckdb_type(column.type)}" for column in key_columns(group)
        )
        connection.execute(f"CREATE TABLE sent ({columns}, {ROW_HASH} VARCHAR)")
        path = self._files.sent(group)
        if path.exists():
            connection.execute(
                "INSERT INTO sent BY NAME FROM read_parquet($path)", {"path": str(path)}
            )

    @contextmanager
    def _opened(self) -> Generator[duckdb.DuckDBPyConnection, None, None]:
        """A DuckDB of our own; what it refuses becomes an error of ours."""
        self._files.spill.mkdir(parents=True, exist_ok=True)
        connection = duckdb.connect(
            config={
                "memory_limit": self._memory_limit,
                "temp_directory": str(self._files.spill),
                "autoinstall_known_extensions": "false",
                "python_enable_replacements": "false",  # `FROM x` never means our variable x.
            }
        )
        try:
            connection.execute("SET TimeZone = 'UTC'")
            yield connection
        except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
            raise OfflineUnavailable(f"the offline store cannot be read: {error}") from error
        finally:
            connection.close()


async def _reading(
    work: Callable[Concatenate[Group, Arguments], Outcome],
    group: Group,
    *arguments: Arguments.args,
    **named: Arguments.kwargs,
) -> Outcome:
    """Do work that reads the group's files, off the event loop, and again if some went away.

    Another process may merge or replace files between our listing and our opening them.
    """
    for _ in range(READ_ATTEMPTS - 1):
        try:
            return await asyncio.to_thread(work, group, *arguments, **named)
        except OfflineUnavailable:
            continue
    return await asyncio.to_thread(work, group, *arguments, **named)


def _rows_from(path: Path, first_offset: int | None) -> Rows:
    rows = cast("pa.Table", pq.ParquetFile(path).read())
    if first_offset is not None:
        rows = rows.filter(pc.field(COMMAND_OFFSET) >= first_offset)
    return cast("Rows", rows)


def _store(rows: Rows, path: Path) -> None:
    ordered = cast("pa.Table", rows).sort_by(EVENT_TIME)
    with appearing(path) as temporary:
        pq.write_table(ordered, temporary, compression="zstd")


def _write(
    connection: duckdb.DuckDBPyConnection, query: str, path: Path, noted: str | None = None
) -> None:
    options = f"FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP_ROWS}"
    options += f", {noted}" if noted else ""
    with appearing(path) as temporary:
        connection.execute(f"COPY ({query}) TO {text_literal(str(temporary))} ({options})")


@contextmanager
def _explained(group: Group) -> Generator[None, None, None]:
    try:
        yield
    except OSError as error:
        raise OfflineUnavailable(
            f"rows of `{group.name}` cannot be written: {error.strerror or error}"
        ) from error

"""Runs the user's SQL in DuckDB and checks what it makes against the feature group.

Every misfit is reported at once: a person mending a transform should not meet them one by one.
"""

# ruff: noqa: S608 - names passed the registry's rules and are quoted, values are bound or typed

from __future__ import annotations

from pathlib import Path

import duckdb

from headrace.registry.catalog import Group
from headrace.registry.physical import quoted
from headrace.sync.errors import OfflineSchemaMismatch
from headrace.sync.offline.ports import TransformRun
from headrace.sync.offline.relations import (
    ROW_HASH,
    all_columns,
    cast,
    instant,
    names,
    row_hash,
    text_literal,
)
from headrace.sync.offline.types import (
    DELETED,
    EVENT_TIME,
    INGESTED_AT,
    SOURCE,
    declared_columns,
    duckdb_type,
    fits,
    key_columns,
    mark_column,
)

_READERS = {".csv": "read_csv", ".parquet": "read_parquet"}


def new_rows(
    connection: duckdb.DuckDBPyConnection, group: Group, run: TransformRun
) -> tuple[int, str]:
    """Run the transform; return how many rows it made and a query for those not stored yet.

    The view `stored` must exist. Raises `OfflineSchemaMismatch`.
    """
    _show_sources(connection, run.sources)
    try:
        connection.execute(run.prelude or "SELECT 1")
        connection.execute(f"CREATE TEMP TABLE _output AS {_single_query(run, group)}")
    except duckdb.Error as error:
        raise OfflineSchemaMismatch(
            f"the transform of `{group.name}` does not run: {_first_line(error)}"
        ) from error
    offered = {name: kind for name, kind, *_ in connection.execute("DESCRIBE _output").fetchall()}
    problems = _misfits(group, offered)
    if not problems:
        problems = _cast_output(connection, group, offered) or _bad_values(connection, group)
    if problems:
        raise OfflineSchemaMismatch(
            f"the transform of `{group.name}` does not fit the group:\n  " + "\n  ".join(problems)
        )
    made = connection.execute("SELECT count(*) FROM _typed").fetchall()[0][0]
    return made, _unstored(group, run)


def _show_sources(connection: duckdb.DuckDBPyConnection, sources: Path) -> None:
    connection.execute("SET VARIABLE sources = $folder", {"folder": str(sources)})
    for path in sorted(sources.iterdir()) if sources.is_dir() else ():
        reader = _READERS.get(path.suffix)
        if reader is not None:
            view = path.stem.replace('"', '""')
            query = f"FROM {reader}({text_literal(str(path))})"
            connection.execute(f'CREATE TEMP VIEW "{view}" AS {query}')


def _single_query(run: TransformRun, group: Group) -> str:
    statements = duckdb.extract_statements(run.query)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise OfflineSchemaMismatch(
            f"the transform of `{group.name}` must be one SELECT, found {len(statements)} "
            "statements; put views that it needs into `transforms/sources.sql`"
        )
    return str(statements[0].query).rstrip().rstrip(";")


def _misfits(group: Group, offered: dict[str, str]) -> list[str]:
    columns = declared_columns(group)
    declared = {column.name for column in columns}
    problems: list[str] = []
    for column in columns:
        if column.name not in offered:
            problems.append(f"column `{column.name}` is missing; the group declares {column.type}")
        elif not fits(column.type, offered[column.name]):
            problems.append(
                f"column `{column.name}` is {offered[column.name]}, the group declares "
                f"{column.type} ({duckdb_type(column.type)}); cast it in the SQL"
            )
    if EVENT_TIME in offered and not fits("Timestamp", offered[EVENT_TIME]):
        problems.append(f"column `{EVENT_TIME}` is {offered[EVENT_TIME]}, expected a timestamp")
    problems += [
        f"column `{name}` is not a field of the group; remove it from the SELECT or declare it"
        for name in offered
        if name not in declared and name != EVENT_TIME
    ]
    return problems


def _cast_output(
    connection: duckdb.DuckDBPyConnection, group: Group, offered: dict[str, str]
) -> list[str]:
    """Make the table `_typed`; what cannot be cast, such as a number out of range, is a problem."""
    mark = mark_column(group)
    casts = [cast(column) for column in declared_columns(group)]
    event_time = quoted(EVENT_TIME) if EVENT_TIME in offered else quoted(mark) if mark else "NULL"
    casts.append(f"CAST({event_time} AS TIMESTAMPTZ) AS {EVENT_TIME}")
    try:
        connection.execute(f"CREATE TEMP TABLE _typed AS SELECT {', '.join(casts)} FROM _output")
    except duckdb.Error as error:
        return [_first_line(error)]
    return []


def _bad_values(connection: duckdb.DuckDBPyConnection, group: Group) -> list[str]:
    strict = [column for column in declared_columns(group) if not column.nullable]
    counts = ", ".join(f"count(*) - count({quoted(column.name)})" for column in strict)
    nulls = connection.execute(f"SELECT {counts} FROM _typed").fetchall()[0]
    problems = [
        f"column `{column.name}` is null in {count} rows; give it a value or declare it nullable"
        for column, count in zip(strict, nulls, strict=True)
        if count
    ]
    if group.feature_type == "Object":
        keys = names(key_columns(group))
        twice = connection.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM _typed GROUP BY {keys}, {EVENT_TIME} "
            "HAVING count(*) > 1)"
        ).fetchall()[0][0]
        if twice:
            problems.append(
                f"{twice} keys have several rows with one event time; an Object has one record"
            )
    return problems


def _unstored(group: Group, run: TransformRun) -> str:
    """Rows of `_typed` whose equal is not stored yet.

    A row without event time stands for now: it is new unless the key's last such row equals it.
    """
    keys = names(key_columns(group))
    constants = {
        SOURCE: "'transform'",
        DELETED: "false",
        INGESTED_AT: instant(str(run.now_ms)),
    }
    declared = {column.name for column in declared_columns(group)} | {EVENT_TIME}
    columns = ", ".join(
        quoted(column.name)
        if column.name in declared
        else f"CAST({constants.get(column.name, 'NULL')} AS {duckdb_type(column.type)}) "
        f"AS {quoted(column.name)}"
        for column in all_columns(group)
    )
    timeless = f"{EVENT_TIME} IS NULL"
    known = (
        f"SELECT {keys}, {ROW_HASH} FROM stored WHERE {SOURCE} = 'transform' AND NOT ({timeless}) "
        f"UNION ALL (SELECT {keys}, {ROW_HASH} FROM stored "
        f"WHERE {SOURCE} = 'transform' AND {timeless} "
        f"QUALIFY rank() OVER (PARTITION BY {keys} ORDER BY {INGESTED_AT} DESC) = 1)"
    )
    hashed = f"SELECT DISTINCT *, {row_hash(group)} AS {ROW_HASH} FROM _typed"
    return f"SELECT {columns} FROM ({hashed}) ANTI JOIN ({known}) USING ({keys}, {ROW_HASH})"


def _first_line(error: duckdb.Error) -> str:
    return str(error).strip().splitlines()[0]

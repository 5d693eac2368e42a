"""The SQL of the embedded offline store, as pure functions from a group to text.

Every name that reaches SQL has passed the registry's rules (semantics 9) and is quoted; values are
bound as parameters, or are literals of the type table.
"""

# ruff: noqa: S608 - names passed the registry's rules and are quoted, values are bound or typed

from __future__ import annotations

from collections.abc import Collection, Sequence

from headrace.registry.catalog import Group
from headrace.registry.physical import quoted
from headrace.sync.offline.types import (
    COMMAND_OFFSET,
    DELETED,
    EVENT_TIME,
    INGESTED_AT,
    SOURCE,
    Column,
    declared_columns,
    duckdb_type,
    key_columns,
    mark_column,
    sql_literal,
    system_columns,
    value_columns,
)

ROW_HASH = "_row_hash"
MOMENT = "_moment"


def cast(column: Column) -> str:
    """The column under its declared type and its own name."""
    return f"CAST({quoted(column.name)} AS {duckdb_type(column.type)}) AS {quoted(column.name)}"


def text_literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def instant(parameter: str) -> str:
    """A bound number of milliseconds since 1970 as an instant; null stays null."""
    return f"make_timestamp_ms(CAST({parameter} AS BIGINT))::TIMESTAMPTZ"


def names(columns: Sequence[Column], table: str = "") -> str:
    prefix = f"{table}." if table else ""
    return ", ".join(prefix + quoted(column.name) for column in columns)


def all_columns(group: Group) -> list[Column]:
    return declared_columns(group) + system_columns()


def scan_of(files: Sequence[tuple[str, int | None]]) -> str:
    """What stands behind `FROM` to read Parquet files as one table, columns matched by name; of a
    file with an offset only the rows of commands from there on."""
    whole = ", ".join(text_literal(path) for path, first_offset in files if first_offset is None)
    parts = [f"FROM read_parquet([{whole}], union_by_name = true)"] if whole else []
    parts += [
        f"FROM read_parquet({text_literal(path)}) WHERE {COMMAND_OFFSET} >= {first_offset}"
        for path, first_offset in files
        if first_offset is not None
    ]
    return f"({' UNION ALL BY NAME '.join(parts)})"


def stored_rows(group: Group, present: Collection[str], scan: str) -> str:
    """Rows of the files behind `scan` under today's schema, `_moment` and `_row_hash` added.

    Files older than a field lack its column: such rows read as its default. `_moment` is when the
    row became true for upsync (semantics 24), infinity for a row that tells no time.
    """
    parts = [_filled(column, present) for column in all_columns(group)]
    inner = f"SELECT {', '.join(parts)} FROM {scan}"
    mark = mark_column(group)
    moments = [quoted(name) for name in (mark, EVENT_TIME) if name is not None]
    moment = f"coalesce({', '.join(moments)}, 'infinity'::TIMESTAMPTZ) AS {MOMENT}"
    return f"SELECT *, {moment}, {row_hash(group)} AS {ROW_HASH} FROM ({inner})"


def row_hash(group: Group) -> str:
    """MD5 of all declared columns and the event time; not a safeguard, only an equality test."""
    columns = declared_columns(group)
    packed = ", ".join(f"{quoted(column.name)} := {quoted(column.name)}" for column in columns)
    return f"md5(to_json(struct_pack({packed}, {EVENT_TIME} := {quoted(EVENT_TIME)}))::VARCHAR)"


def latest_rows(group: Group) -> str:
    """What upsync may send, from the table `stored`: never a key whose newest row is a delete.

    An Object's newest row per key; a History's newest `max_events` events, and all that tie with
    the oldest of these, because the online store breaks ties by event id.
    """
    keys = names(key_columns(group))
    dead = (
        f"SELECT {keys} FROM stored GROUP BY {keys} "
        f"HAVING max({MOMENT}) FILTER (WHERE {DELETED}) >= max({MOMENT})"
    )
    alive = (
        f"SELECT * FROM stored ANTI JOIN ({dead}) USING ({keys}) "
        f"WHERE NOT {DELETED} AND {SOURCE} <> 'downsync'"
    )
    if group.feature_type == "Object":
        return (
            f"{alive} QUALIFY row_number() OVER (PARTITION BY {keys} "
            f"ORDER BY {MOMENT} DESC, {INGESTED_AT} DESC, {ROW_HASH} DESC) = 1"
        )
    newest = (
        f"{alive} QUALIFY rank() OVER (PARTITION BY {keys} "
        f"ORDER BY {MOMENT} DESC) <= {group.max_events}"
    )
    return f"SELECT DISTINCT ON ({ROW_HASH}) * FROM ({newest})"


def changed_rows(group: Group, *, full: bool) -> str:
    """Rows of the table `latest` to pin, less what the table `sent` holds.

    `$since_ms` (null: every row) and `$snapshot_ms` are bound.
    """
    columns = names(key_columns(group) + value_columns(group), "latest")
    unsent = "" if full else f" ANTI JOIN sent USING ({names(key_columns(group))}, {ROW_HASH})"
    event_time = (
        f"CASE WHEN isinf(latest.{MOMENT}) THEN {instant('$snapshot_ms')} "
        f"ELSE latest.{MOMENT} END AS {EVENT_TIME}"
    )
    order = f"ORDER BY latest.{ROW_HASH}, {names(key_columns(group), 'latest')}"
    return (
        f"SELECT {columns}, {event_time}, latest.{ROW_HASH}, "
        f"row_number() OVER ({order}) - 1 AS _position FROM latest{unsent} "
        f"WHERE latest.{MOMENT} >= coalesce({instant('$since_ms')}, '-infinity') ORDER BY _position"
    )


def settled_rows(group: Group) -> str:
    """The next content of `sent`: an Object keeps one hash per key, a History one per event."""
    keys = names(key_columns(group))
    pinned = f"SELECT {keys}, {ROW_HASH} FROM pinned"
    if group.feature_type == "Object":
        return f"{pinned} UNION ALL (SELECT * FROM sent ANTI JOIN pinned USING ({keys}))"
    return f"{pinned} UNION SELECT {keys}, {ROW_HASH} FROM sent"


def _filled(column: Column, present: Collection[str]) -> str:
    name, kind = quoted(column.name), duckdb_type(column.type)
    value = f"CAST({name} AS {kind})" if column.name in present else f"CAST(NULL AS {kind})"
    if column.default is not None:
        value = f"coalesce({value}, {sql_literal(column.type, column.default)})"
    return f"{value} AS {name}"

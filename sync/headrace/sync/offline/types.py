"""Columns of offline tables and how their declared types look in Arrow and DuckDB.

`RowColumns` lists the columns of a group's offline table: key fields, value fields, the offline
`updated_at` column when it is none of these, then the columns that every table has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, cast

import msgspec
import pyarrow as pa

from headrace.registry.catalog import Group, KeyField, ValueField
from headrace.registry.field_types import FieldType, parse_type

_ARROW: dict[str, pa.DataType] = {
    "Boolean": pa.bool_(),
    "Integer": pa.int32(),
    "Long": pa.int64(),
    "Float": pa.float32(),
    "Double": pa.float64(),
    "Text": pa.string(),
    "Bytes": pa.binary(),
    "Date": pa.date32(),
    "Timestamp": pa.timestamp("us", tz="UTC"),
}

_INTEGERS = frozenset(
    {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"}
    | {"UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"}
)
_NUMBERS = _INTEGERS | {"FLOAT", "DOUBLE", "DECIMAL"}
_INSTANTS = frozenset({"TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ", "TIMESTAMP_MS"})
_FITTING: dict[str, frozenset[str]] = {
    "Boolean": frozenset({"BOOLEAN"}),
    "Integer": _INTEGERS,
    "Long": _INTEGERS,
    "Float": _NUMBERS,
    "Double": _NUMBERS,
    "Text": frozenset({"VARCHAR"}),
    "Bytes": frozenset({"BLOB"}),
    "Date": frozenset({"DATE"}),
    "Timestamp": _INSTANTS,
}

UNTYPED = '"NULL"'
"""DuckDB's type of a bare NULL."""

EVENT_TIME = "_event_time"
SOURCE = "_source"
DELETED = "_deleted"
INGESTED_AT = "_ingested_at"
COMMAND_EVENT_TIME = "_command_event_time"
COMMAND_TOPIC = "_command_topic"
COMMAND_PARTITION = "_command_partition"
COMMAND_OFFSET = "_command_offset"

SYSTEM_COLUMNS: dict[str, str] = {
    EVENT_TIME: "Timestamp",
    SOURCE: "Text",
    DELETED: "Boolean",
    INGESTED_AT: "Timestamp",
    COMMAND_EVENT_TIME: "Timestamp",
    COMMAND_TOPIC: "Text",
    COMMAND_PARTITION: "Integer",
    COMMAND_OFFSET: "Long",
}
"""Columns of every offline table. The command columns are null unless `_source` is downsync."""


class Rows(Protocol):
    """A `pyarrow.Table`, by the little that is used of it: the library carries no types."""

    @property
    def num_rows(self) -> int: ...

    def to_pylist(self) -> list[dict[str, object]]: ...


class Column(msgspec.Struct, frozen=True):
    """One column of an offline table. `default` is None where null stands for an absent value."""

    name: str
    type: str
    nullable: bool
    default: object = None


def key_columns(group: Group) -> list[Column]:
    return [_column(key) for key in group.keys]


def value_columns(group: Group) -> list[Column]:
    return [_column(field) for field in group.fields]


def mark_column(group: Group) -> str | None:
    """The column of the high-water mark, None when the group declares none."""
    return group.upsync.updated_at


def declared_columns(group: Group) -> list[Column]:
    """Keys, values, and the offline-only `updated_at` column: what a transform has to deliver."""
    columns = key_columns(group) + value_columns(group)
    mark = mark_column(group)
    if mark is not None and mark != EVENT_TIME and all(column.name != mark for column in columns):
        columns.append(Column(mark, "Timestamp", nullable=False))
    return columns


def upsync_columns(group: Group) -> list[Column]:
    """What a row on its way to the online store carries: keys, values, and its event time."""
    event_time = Column(EVENT_TIME, SYSTEM_COLUMNS[EVENT_TIME], nullable=False)
    return [*key_columns(group), *value_columns(group), event_time]


def system_columns() -> list[Column]:
    return [Column(name, kind, nullable=True) for name, kind in SYSTEM_COLUMNS.items()]


def arrow_rows(columns: Sequence[Column], rows: Sequence[Mapping[str, object]]) -> Rows:
    """Rows as Arrow; a column that a row does not name is null in it."""
    schema = pa.schema([(column.name, _arrow_type(column.type)) for column in columns])
    return cast("Rows", pa.Table.from_pylist(rows, schema=schema))


def duckdb_type(declared: str) -> str:
    """The DuckDB type of a declared type, such as `FLOAT[64]` for `Vector<64>`."""
    return _parsed(declared).duckdb


def fits(declared: str, offered: str) -> bool:
    """Whether a column of DuckDB type `offered` can be stored as `declared` without losing anything
    but range (checked by the cast) or float precision. Never a fraction into an integer."""
    item, brackets, _ = offered.partition("[")
    scalar = item.partition("(")[0]
    wanted = _parsed(declared)
    if scalar == UNTYPED:
        return wanted.is_list or not brackets
    return wanted.is_list == bool(brackets) and scalar in _FITTING[wanted.scalar.name]


def sql_literal(declared: str, default: object) -> str:
    """A default value (in the form answers print, semantics 10) as a DuckDB expression."""
    if isinstance(default, list | tuple):
        scalar = _parsed(declared).scalar.name
        items = ", ".join(sql_literal(scalar, item) for item in default)
        return f"CAST([{items}] AS {duckdb_type(declared)})"
    text = str(default).replace("'", "''")
    if declared == "Bytes":
        return f"from_base64('{text}')"
    return f"CAST('{text}' AS {duckdb_type(declared)})"


def _column(field: KeyField | ValueField) -> Column:
    if isinstance(field, KeyField):
        return Column(field.name, field.type, nullable=False)
    return Column(field.name, field.type, nullable=field.nullable, default=field.default)


def _arrow_type(declared: str) -> object:
    wanted = _parsed(declared)
    item = _ARROW[wanted.scalar.name]
    if not wanted.is_list:
        return item
    return pa.list_(item) if wanted.size is None else pa.list_(item, wanted.size)


def _parsed(declared: str) -> FieldType:
    parsed = parse_type(declared)
    if parsed is None:
        raise ValueError(f"`{declared}` in the catalog is no type that this version knows")
    return parsed

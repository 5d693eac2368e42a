"""Types of fields: what they are called in YAML and in every engine. The one table that says so.

Keys have columns of their own in every engine. Value fields have one in the offline store only:
online they lie in an Avro record (design 1), so their CQL type matters to tools that unpack it.
"""

from __future__ import annotations

import functools
import re
from typing import Final, NamedTuple

VECTOR_ITEMS_MAX: Final = 16_384
"""Largest N of `Vector<N>`; the codec has the same limit."""


class Scalar(NamedTuple):
    """One scalar type. `avro` is a JSON text; CQL has no microseconds, hence Timestamp's bigint."""

    name: str
    avro: str
    cql: str
    bigquery: str
    duckdb: str
    is_key: bool = False


SCALARS: Final = {
    scalar.name: scalar
    for scalar in (
        Scalar("Boolean", '"boolean"', "boolean", "BOOL", "BOOLEAN"),
        Scalar("Integer", '"int"', "int", "INT64", "INTEGER", is_key=True),
        Scalar("Long", '"long"', "bigint", "INT64", "BIGINT", is_key=True),
        Scalar("Float", '"float"', "float", "FLOAT64", "FLOAT"),
        Scalar("Double", '"double"', "double", "FLOAT64", "DOUBLE"),
        Scalar("Text", '"string"', "text", "STRING", "VARCHAR", is_key=True),
        Scalar("Bytes", '"bytes"', "blob", "BYTES", "BLOB"),
        Scalar("Date", '{"type":"int","logicalType":"date"}', "date", "DATE", "DATE"),
        Scalar(
            "Timestamp",
            '{"type":"long","logicalType":"timestamp-micros"}',
            "bigint",
            "TIMESTAMP",
            "TIMESTAMPTZ",
        ),
    )
}


class FieldType(NamedTuple):
    """A declared type: a scalar, a list of one, or a vector of `size` floats."""

    name: str
    scalar: Scalar
    is_list: bool = False
    size: int | None = None

    @property
    def avro(self) -> str:
        return (
            f'{{"type":"array","items":{self.scalar.avro}}}' if self.is_list else self.scalar.avro
        )

    @property
    def cql(self) -> str:
        return f"frozen<list<{self.scalar.cql}>>" if self.is_list else self.scalar.cql

    @property
    def bigquery(self) -> str:
        return f"ARRAY<{self.scalar.bigquery}>" if self.is_list else self.scalar.bigquery

    @property
    def duckdb(self) -> str:
        if not self.is_list:
            return self.scalar.duckdb
        return f"{self.scalar.duckdb}[{'' if self.size is None else self.size}]"


_VECTOR = re.compile(r"Vector<([1-9][0-9]{0,4})>\Z")
_LIST = re.compile(r"List<([A-Za-z]{1,20})>\Z")


@functools.lru_cache(maxsize=4096)
def parse_type(text: str) -> FieldType | None:
    """The type of a YAML name such as `Long`, `List<Text>` or `Vector<64>`; None for any other."""
    scalar = SCALARS.get(text)
    if scalar is not None:
        return FieldType(text, scalar)
    listed = _LIST.match(text)
    if listed is not None:
        item = SCALARS.get(listed[1])
        return None if item is None else FieldType(text, item, is_list=True)
    vector = _VECTOR.match(text)
    if vector is not None and int(vector[1]) <= VECTOR_ITEMS_MAX:
        return FieldType(text, SCALARS["Float"], is_list=True, size=int(vector[1]))
    return None


def type_names() -> list[str]:
    """Names for messages."""
    return [*SCALARS, "List<Text>", "Vector<64>"]


def rule_of_type(text: str) -> str | None:
    """How the type is written that a name was meant for, where that shows; None where not."""
    if re.match(r"(?i)vector\b", text):
        return f"write `Vector<N>` with N from 1 to {VECTOR_ITEMS_MAX}, such as `Vector<64>`"
    if re.match(r"(?i)(list|array)\b", text):
        return f"write `List<T>` with T one of {', '.join(SCALARS)}"
    return None

"""Random groups with a schema behind them, and stored rows of every kind, for tests of answers.

Cells are sealed around bodies that fastavro wrote, so that they may hold what commands cannot say:
NaN, bodies of an older schema, damaged ones.
"""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Literal, cast

import fastavro
import msgspec
from codec_bytes import seal_cell

from headrace.codec import CachedReads, Catalog, PendingRead, Placement, ReadEngine
from headrace.registry.catalog import (
    CatalogDocument,
    Group,
    KeyField,
    Schema,
    ValueField,
    encode_document,
)

NOW_MS = 1_700_000_000_000
MAX_AGE_MS = 60_000
OBJECT, HISTORY = "any::object", "any::history"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
VECTOR_ITEMS = 3
SCALARS = ("Boolean", "Integer", "Long", "Float", "Double", "Text", "Bytes", "Date", "Timestamp")
TYPES = (*SCALARS, *(f"List<{name}>" for name in SCALARS), f"Vector<{VECTOR_ITEMS}>")
WIDENED = {"Long": "Integer", "Double": "Float", "List<Long>": "List<Integer>"}
DEFAULTS: dict[str, object] = {
    "Boolean": True,
    "Integer": -7,
    "Long": 2**60 + 1,
    "Float": 0.5,
    "Double": -0.25,
    "Text": "é",
    "Bytes": "AQI=",
    "Date": "2020-02-29",
    "Timestamp": "1969-12-31T23:59:59.999999Z",
}

Cells = list[tuple[int, bytes]]
Row = Cells | Literal["unreachable"]


class Groups(msgspec.Struct):
    """An Object and a History of the same fields, each with an older schema behind its own."""

    catalog: Catalog
    writers: dict[str, list[tuple[int, dict[str, object], tuple[ValueField, ...]]]]
    """By group, oldest first: fingerprint, parsed Avro schema, fields."""
    names: list[str]
    """Of the current value fields in schema order."""


def any_groups(random: Random) -> Groups:
    """Up to a dozen fields of any types, some new, some widened since the older schema."""
    current = tuple(_any_field(random, number) for number in range(1, random.randrange(2, 13)))
    kept = [field for field in current if random.random() < 0.8] or [current[0]]
    older = tuple(_before(field) if random.random() < 0.7 else field for field in kept)
    gone = ValueField(id=99, name="gone", type="List<Text>", default=[])
    old = (*older[:1], gone, *older[1:])
    schemas = (Schema(ordinal=1, fields=old), Schema(ordinal=2, fields=current))
    catalog = Catalog(_document(schemas))
    first = Catalog(_document(schemas[:1]))
    writers = {
        name: [_writer(first, name, old), _writer(catalog, name, current)]
        for name in (OBJECT, HISTORY)
    }
    return Groups(catalog, writers, [field.name for field in current])


def any_object_row(random: Random, groups: Groups) -> Row:
    """A record of either schema, fresh or stale, or what is wrong with a row."""
    fate = random.random()
    if fate < 0.1:
        return []
    if fate < 0.15:
        return "unreachable"
    age_ms = random.choice((0, 1_000, MAX_AGE_MS, MAX_AGE_MS + 1, 10**9))
    return [(0, _any_cell(random, groups, OBJECT, age_ms))]


def any_history_row(random: Random, groups: Groups) -> Row:
    """Up to four events of both schemas, newest first."""
    if random.random() < 0.05:
        return "unreachable"
    ages = sorted(random.sample(range(2 * MAX_AGE_MS), random.randrange(5)))
    return [(0, _any_cell(random, groups, HISTORY, age_ms)) for age_ms in ages]


def answer(groups: Groups, body: object, rows: list[Row], accept: int) -> tuple[int, bytes]:
    """Status and body of the answer to a request whose rows come as given."""
    engine = ReadEngine()
    engine.install(groups.catalog)
    reads = CachedReads(engine, Placement(["none"], epoch=1))
    pending = reads.submit(
        json.dumps(body).encode(),
        caller=1,
        accept=accept,
        now_ms=NOW_MS,
        request_id=b"any-1",
        keep_alive=True,
    )
    if isinstance(pending, PendingRead):
        for slot, cells in enumerate(rows):
            if cells == "unreachable":
                pending.take_unavailable(slot)
            else:
                pending.take_cells(slot, cells, NOW_MS)
        response = pending.finish()
    else:
        assert pending is not None
        response = pending
    head, _, answered = response.partition(b"\r\n\r\n")
    return int(head[9:12]), answered


def _document(schemas: tuple[Schema, ...]) -> bytes:
    groups = tuple(
        Group(
            id=number,
            name=name,
            feature_type="Object" if name == OBJECT else "History",
            owner="tests",
            keys=(KeyField(name="user", type="Long"), KeyField(name="place", type="Text")),
            schemas=schemas,
            max_age_ms=MAX_AGE_MS,
            max_events=4,
        )
        for number, name in ((1, OBJECT), (2, HISTORY))
    )
    document = CatalogDocument(generation=len(schemas), published_at_ms=0, groups=groups)
    return encode_document(document)


def _any_field(random: Random, number: int) -> ValueField:
    kind = random.choice(TYPES)
    name = f"f{number}"
    if random.random() < 0.4:
        return ValueField(id=number, name=name, type=kind, nullable=True)
    if kind.startswith("List"):
        default: object = [DEFAULTS[kind[5:-1]]] * random.randrange(3)
    else:
        default = DEFAULTS.get(kind, [0.5] * VECTOR_ITEMS)
    return ValueField(id=number, name=name, type=kind, default=default)


def _before(field: ValueField) -> ValueField:
    """The field as it was before it was widened, or before it took no null."""
    narrow = WIDENED.get(field.type)
    if narrow is not None and not field.nullable:
        narrow_default = [1] if narrow.startswith("List") else 1
        return msgspec.structs.replace(field, type=narrow, default=narrow_default)
    return field


def _writer(
    catalog: Catalog, name: str, fields: tuple[ValueField, ...]
) -> tuple[int, dict[str, object], tuple[ValueField, ...]]:
    fingerprint = catalog.fingerprint(name)
    schema = json.loads(catalog.avro_schema(fingerprint) or "null")
    return fingerprint, cast(dict[str, object], fastavro.parse_schema(schema)), fields


def _any_cell(random: Random, groups: Groups, name: str, age_ms: int) -> bytes:
    fingerprint, schema, fields = random.choice(groups.writers[name])
    record = {field.name: _any_value(random, field) for field in fields}
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, schema, record)
    body = stream.getvalue()
    if random.random() < 0.05:
        body = body[:-1] if random.random() < 0.5 else body + b"\0"
    return seal_cell((NOW_MS - age_ms) * 1000, fingerprint, body)


def _any_value(random: Random, field: ValueField) -> object:
    if field.nullable and random.random() < 0.3:
        return None
    kind = field.type
    if kind.startswith("Vector"):
        return [MAKERS["Float"](random) for _ in range(VECTOR_ITEMS)]
    if kind.startswith("List"):
        return [MAKERS[kind[5:-1]](random) for _ in range(random.randrange(4))]
    return MAKERS[kind](random)


def _any_integer(random: Random, bits: int) -> int:
    number = random.getrandbits(random.randrange(bits)) * random.choice((1, -1))
    return random.choice((number, number, 2 ** (bits - 1) - 1, -(2 ** (bits - 1))))


def _any_float(random: Random, layout: str, size: int) -> float:
    (number,) = struct.unpack(layout, random.randbytes(size))
    return random.choice((float(number), 0.0, -0.0, 1.5, math.nan, math.inf, -math.inf))


def _any_date(random: Random) -> date:
    return date.fromordinal(random.randrange(1, date.max.toordinal() + 1))


def _any_timestamp(random: Random) -> datetime:
    micros = random.randrange(-62_135_596_800_000_000, 253_402_300_800_000_000)
    return EPOCH + timedelta(microseconds=micros - micros % random.choice((1, 1_000_000)))


MAKERS: dict[str, Callable[[Random], object]] = {
    "Boolean": lambda random: random.random() < 0.5,
    "Integer": lambda random: _any_integer(random, 32),
    "Long": lambda random: _any_integer(random, 64),
    "Float": lambda random: _any_float(random, "<f", 4),
    "Double": lambda random: _any_float(random, "<d", 8),
    "Text": lambda random: "".join(random.choices('a"\\\n\0ß漢😀', k=random.randrange(9))),
    "Bytes": lambda random: random.randbytes(random.randrange(9)),
    "Date": _any_date,
    "Timestamp": _any_timestamp,
}

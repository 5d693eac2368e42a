"""fastavro and our codec agree, byte for byte and value for value, on every type."""

from __future__ import annotations

import base64
import io
import json
import math
import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import NamedTuple, cast

import fastavro
import pytest
from codec_bytes import open_cell, seal_cell

from headrace.codec import Catalog, encode_commands
from headrace.registry.catalog import (
    CatalogDocument,
    Group,
    KeyField,
    Schema,
    ValueField,
    encode_document,
)

RECORDS = 2_000
GROUP = "agree::every-type"
EVENT_TIME_MS = 1_700_000_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SCALARS = ("Boolean", "Integer", "Long", "Float", "Double", "Text", "Bytes", "Date", "Timestamp")
VECTOR_ITEMS = 5
TYPES = (*SCALARS, *(f"List<{name}>" for name in SCALARS), f"Vector<{VECTOR_ITEMS}>")
DEFAULTS: dict[str, object] = {
    "Boolean": False,
    "Integer": 0,
    "Long": 0,
    "Float": 0.0,
    "Double": 0.0,
    "Text": "",
    "Bytes": "",
    "Date": "1970-01-01",
    "Timestamp": "1970-01-01T00:00:00Z",
}


class Value(NamedTuple):
    """A value as Python has it and as commands and answers print it."""

    python: object
    printed: object


class Record(NamedTuple):
    """All fields of one record, both ways."""

    python: dict[str, object]
    printed: dict[str, object]


def default_of(kind: str) -> object:
    if kind.startswith("List"):
        return []
    return DEFAULTS.get(kind, [0.0] * VECTOR_ITEMS)


def value_fields() -> tuple[ValueField, ...]:
    """Each type once as it is and once nullable."""
    fields: list[ValueField] = []
    for at, kind in enumerate(TYPES):
        default = default_of(kind)
        fields.append(ValueField(id=2 * at + 1, name=f"must_{at}", type=kind, default=default))
        fields.append(ValueField(id=2 * at + 2, name=f"may_{at}", type=kind, nullable=True))
    return tuple(fields)


FIELDS = value_fields()


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    group = Group(
        id=1,
        name=GROUP,
        feature_type="Object",
        owner="tests",
        keys=(KeyField(name="id", type="Long"),),
        schemas=(Schema(ordinal=1, fields=FIELDS),),
    )
    document = CatalogDocument(generation=1, published_at_ms=EVENT_TIME_MS, groups=(group,))
    return Catalog(encode_document(document))


@pytest.fixture(scope="module")
def schema(catalog: Catalog) -> dict[str, object]:
    text = catalog.avro_schema(catalog.fingerprint(GROUP))
    return cast(dict[str, object], fastavro.parse_schema(json.loads(text or "null")))


def any_long(random: Random, bits: int) -> Value:
    number = random.getrandbits(random.randrange(bits)) * random.choice((1, -1))
    number = random.choice((number, number, number, 2 ** (bits - 1) - 1, -(2 ** (bits - 1))))
    return Value(number, number)


def any_float(random: Random, layout: str, size: int) -> Value:
    while True:
        (number,) = struct.unpack(layout, random.randbytes(size))
        if math.isfinite(number):
            break
    plain = random.randrange(-999, 999) / 8
    number = random.choice((number, number, plain, plain, 0.0, -0.0))
    return Value(number, number)


def any_text(random: Random) -> Value:
    letters = 'abc xyz"\\/\n\t\0\x1f\x7féß漢字😀𝄞'
    text = "".join(random.choices(letters, k=random.choice((0, 1, 7, 15, 16, 17, 40))))
    return Value(text, text)


def any_bytes(random: Random) -> Value:
    content = random.randbytes(random.randrange(40))
    return Value(content, base64.b64encode(content).decode())


def any_date(random: Random) -> Value:
    day = date.fromordinal(random.randrange(1, date.max.toordinal() + 1))
    return Value(day, day.isoformat())


def any_timestamp(random: Random) -> Value:
    micros = random.randrange(-62_135_596_800_000_000, 253_402_300_800_000_000)
    micros -= micros % random.choice((1, 1_000_000))
    instant = EPOCH + timedelta(microseconds=micros)
    return Value(instant, instant.isoformat().replace("+00:00", "Z"))


def any_boolean(random: Random) -> Value:
    flag = random.random() < 0.5
    return Value(flag, flag)


MAKERS: dict[str, Callable[[Random], Value]] = {
    "Boolean": any_boolean,
    "Integer": lambda random: any_long(random, 32),
    "Long": lambda random: any_long(random, 64),
    "Float": lambda random: any_float(random, "<f", 4),
    "Double": lambda random: any_float(random, "<d", 8),
    "Text": any_text,
    "Bytes": any_bytes,
    "Date": any_date,
    "Timestamp": any_timestamp,
}


def any_value(kind: str, random: Random) -> Value:
    if kind in MAKERS:
        return MAKERS[kind](random)
    item = "Float" if kind.startswith("Vector") else kind[5:-1]
    count = VECTOR_ITEMS if kind.startswith("Vector") else random.randrange(4)
    items = [MAKERS[item](random) for _ in range(count)]
    return Value([it.python for it in items], [it.printed for it in items])


def any_record(random: Random) -> Record:
    python: dict[str, object] = {}
    printed: dict[str, object] = {}
    for field in FIELDS:
        null = field.nullable and random.random() < 0.3
        value = Value(None, None) if null else any_value(field.type, random)
        python[field.name], printed[field.name] = value
    return Record(python, printed)


@pytest.fixture(scope="module")
def records() -> list[Record]:
    random = Random(2026)
    return [any_record(random) for _ in range(RECORDS)]


@pytest.fixture(scope="module")
def cells(catalog: Catalog, records: list[Record]) -> list[bytes]:
    """What our encoder makes of the records."""
    payloads = [
        json.dumps(
            {
                "feature_name": GROUP,
                "method": "UPDATE",
                "keys": {"id": at},
                "values": record.printed | {"_last_updated_at_ms": EVENT_TIME_MS},
            }
        ).encode()
        for at, record in enumerate(records)
    ]
    batch = encode_commands(catalog, payloads, now_ms=EVENT_TIME_MS)
    assert [rejection.message for rejection in batch.rejections] == []
    return [mutation.cell for mutation in batch.mutations()]


def written_by_fastavro(schema: dict[str, object], record: dict[str, object]) -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, schema, record)
    return stream.getvalue()


def test_our_bytes_are_those_that_fastavro_writes(
    schema: dict[str, object], records: list[Record], cells: list[bytes]
) -> None:
    for record, cell in zip(records, cells, strict=True):
        assert open_cell(cell).body == written_by_fastavro(schema, record.python)


def test_fastavro_reads_from_our_bytes_what_went_in(
    schema: dict[str, object], records: list[Record], cells: list[bytes]
) -> None:
    for record, cell in zip(records, cells, strict=True):
        stream = io.BytesIO(open_cell(cell).body)
        found = fastavro.schemaless_reader(stream, schema, None)
        assert repr(found) == repr(record.python)


def test_we_read_from_fastavros_bytes_what_went_in(
    catalog: Catalog, schema: dict[str, object], records: list[Record]
) -> None:
    fingerprint = catalog.fingerprint(GROUP)
    for record in records:
        body = written_by_fastavro(schema, record.python)
        cell = seal_cell(EVENT_TIME_MS * 1000, fingerprint, body)
        event_time_ms, values = catalog.decode_event(GROUP, cell)
        assert (event_time_ms, repr(values)) == (EVENT_TIME_MS, repr(record.python))


def test_json_text_holds_what_went_in(
    catalog: Catalog, records: list[Record], cells: list[bytes]
) -> None:
    shown = json.loads(catalog.transcode(GROUP, cells, None, layout="objects"))
    for record, found in zip(records, shown, strict=True):
        for field in FIELDS:
            wanted = record.printed[field.name]
            assert same(found[field.name], wanted, field.type), (field, found[field.name], wanted)


def same(found: object, wanted: object, kind: str) -> bool:
    """Equal, with the sign of zero; floats as the float that the text stands for."""
    if isinstance(wanted, list):
        item = "Float" if kind.startswith("Vector") else kind[5:-1]
        pairs = zip(cast(list[object], found), cast(list[object], wanted), strict=True)
        return all(same(one, other, item) for one, other in pairs)
    if kind in ("Float", "Double") and isinstance(found, float) and isinstance(wanted, float):
        layout = "<f" if kind == "Float" else "<d"
        return struct.pack(layout, found) == struct.pack(layout, wanted)
    return type(found) is type(wanted) and found == wanted


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_prints_as_null_and_decodes_as_it_is(
    catalog: Catalog, schema: dict[str, object], records: list[Record], number: float
) -> None:
    name = f"must_{TYPES.index('Double')}"
    body = written_by_fastavro(schema, records[0].python | {name: number})
    cell = seal_cell(0, catalog.fingerprint(GROUP), body)
    assert catalog.transcode(GROUP, [cell], [name], layout="rows") == b"[[null]]"
    _, values = catalog.decode_event(GROUP, cell)
    assert repr(values[name]) == repr(number)

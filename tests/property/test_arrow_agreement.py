"""The Arrow answer, read by pyarrow and polars, says what the JSON answer says, value by value."""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from random import Random
from typing import Any, cast

import polars as pl
import pyarrow as pa
import pytest
from any_rows import (
    HISTORY,
    MAX_AGE_MS,
    NOW_MS,
    OBJECT,
    Groups,
    Row,
    answer,
    any_groups,
    any_history_row,
    any_object_row,
)

from headrace.gateway.ports import ACCEPT_ARROW, ACCEPT_JSON

SEEDS = range(60)
ROWS = 12
WORDS = ["OK", "DEFAULTED", "STALE", "NOT_FINITE", "MISSING", "UNAVAILABLE", "CORRUPT"]


class Asked:
    """One request, answered in both forms."""

    def __init__(self, seed: int, name: str) -> None:
        random = Random(seed)
        self.groups: Groups = any_groups(random)
        make = any_object_row if name == OBJECT else any_history_row
        self.rows: list[Row] = [make(random, self.groups) for _ in range(ROWS)]
        fields = random.sample(self.groups.names, random.randrange(1, len(self.groups.names) + 1))
        self.users = [random.randrange(-(2**63), 2**63) for _ in range(ROWS)]
        self.places = [random.choice(("LAX", "é", "東京")) for _ in range(ROWS)]
        read: dict[str, object] = {"feature_group": name, "fields": fields}
        read["keys"] = {"place": self.places, "user": self.users}
        body = {"reads": [read], "event_times": True, "missing": random.choice(("null", "default"))}
        status, printed = answer(self.groups, body, self.rows, ACCEPT_JSON)
        assert status == 200, printed
        self.json: dict[str, Any] = json.loads(printed)["results"][0]
        status, self.stream = answer(self.groups, body, self.rows, ACCEPT_ARROW)
        assert status == 200, self.stream
        self.fields = fields
        self.types = {field.name: field.type for field in self.groups.writers[name][-1][2]}
        self.table: Any = pa.ipc.open_stream(self.stream).read_all()
        self.table.validate(full=True)


def all_asked() -> Iterator[Asked]:
    for seed in SEEDS:
        yield Asked(seed, OBJECT)
        yield Asked(seed, HISTORY)


def as_printed(value: object) -> object:
    """What JSON prints for a value of Arrow's."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, list):
        return [as_printed(item) for item in cast(list[object], value)]
    return value


def as_read(value: object, kind: str) -> object:
    """A JSON value with its floats as the bits they stand for."""
    if isinstance(value, list):
        item = "Float" if kind.startswith("Vector") else kind[5:-1]
        return [as_read(each, item) for each in cast(list[object], value)]
    if kind in ("Float", "Double") and isinstance(value, int | float):
        return struct.pack("<f" if kind == "Float" else "<d", value)
    return value


def same(found: object, wanted: object, kind: str) -> bool:
    one, other = as_read(as_printed(found), kind), as_read(wanted, kind)
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("seed", SEEDS)
def test_every_value_of_an_object_is_the_one_that_json_prints(seed: int) -> None:
    asked = Asked(seed, OBJECT)
    for place, name in enumerate(asked.fields):
        for found, row in zip(asked.table[name].to_pylist(), asked.json["rows"], strict=True):
            assert same(found, row[place], asked.types[name]), (name, found, row[place])


@pytest.mark.parametrize("seed", SEEDS)
def test_every_event_of_a_history_is_the_one_that_json_prints(seed: int) -> None:
    asked = Asked(seed, HISTORY)
    for found, row in zip(asked.table["_events"].to_pylist(), asked.json["rows"], strict=True):
        assert (found is None) == (row is None)
        for event, (time_ms, *values) in zip(found or [], row or [], strict=True):
            assert milliseconds(event["_event_time"]) == time_ms
            for name, wanted in zip(asked.fields, values, strict=True):
                assert same(event[name], wanted, asked.types[name]), (name, event[name], wanted)


def milliseconds(time: datetime | None) -> int | None:
    return None if time is None else round(time.timestamp() * 1000)


def test_keys_and_event_times_stand_beside_the_values() -> None:
    for asked in all_asked():
        assert asked.table["user"].to_pylist() == asked.users
        assert asked.table["place"].to_pylist() == asked.places
        found = [milliseconds(time) for time in asked.table["_event_time"].to_pylist()]
        assert found == asked.json["event_times"]


def numbers_by_json(asked: Asked) -> list[list[int]]:
    """The number of each value's status after JSON, where NOT_FINITE hides what else is said."""
    matrix = [[0] * len(asked.fields) for _ in range(ROWS)]
    for entry in asked.json["statuses"]:
        for name in cast(Iterable[str], entry.get("fields", asked.fields)):
            matrix[entry["row"]][asked.fields.index(name)] = WORDS.index(entry["status"])
    return matrix


def test_statuses_are_those_of_json_and_what_is_not_finite_stands_as_it_is() -> None:
    hidden = 0
    for asked in all_asked():
        times = asked.table["_event_time"].to_pylist()
        words = asked.table["_status"].to_pylist()
        matrix = asked.table["_field_status"].to_pylist()
        wanted = numbers_by_json(asked)
        for row, numbers in enumerate(matrix):
            stale = NOW_MS - (milliseconds(times[row]) or NOW_MS) > MAX_AGE_MS
            for place, number in enumerate(numbers):
                if WORDS[wanted[row][place]] == "NOT_FINITE":
                    hidden += 1
                    assert WORDS[number] in (("STALE",) if stale else ("OK", "DEFAULTED"))
                else:
                    assert number == wanted[row][place], (row, place)
            assert words[row] == WORDS[max(numbers)]
    assert hidden > 20


def test_rows_of_every_status_were_compared() -> None:
    seen = {word for asked in all_asked() for word in asked.table["_status"].to_pylist()}
    assert seen == set(WORDS) - {"NOT_FINITE"}


def test_the_schema_tells_generation_request_and_whose_columns_are_whose() -> None:
    asked = Asked(3, OBJECT)
    metadata = asked.table.schema.metadata
    assert metadata[b"headrace.generation"] == b"2"
    assert metadata[b"headrace.request_id"] == b"any-1"
    assert json.loads(metadata[b"headrace.statuses"]) == WORDS
    expected = {"feature_group": OBJECT, "prefix": "", "keys": ["user", "place"]}
    assert json.loads(metadata[b"headrace.results"]) == [expected | {"fields": asked.fields}]


def buffers_of(table: Any) -> Iterator[Any]:
    for column in table.columns:
        for chunk in column.chunks:
            yield from (buffer for buffer in chunk.buffers() if buffer is not None and buffer.size)


def test_every_buffer_is_used_where_it_lies_and_is_aligned_to_64_bytes() -> None:
    for asked in all_asked():
        source: Any = pa.allocate_buffer(len(asked.stream))
        memoryview(source).cast("B")[:] = asked.stream
        assert source.address % 64 == 0
        before = pa.total_allocated_bytes()
        [batch] = pa.ipc.open_stream(source)
        assert pa.total_allocated_bytes() == before
        for buffer in buffers_of(pa.table(batch)):
            assert source.address <= buffer.address < source.address + source.size
            assert buffer.address % 64 == 0


def test_an_answer_is_one_record_batch_and_equal_requests_get_equal_bytes() -> None:
    for seed in SEEDS:
        asked = Asked(seed, OBJECT)
        assert len(list(pa.ipc.open_stream(asked.stream))) == 1
        assert Asked(seed, OBJECT).stream == asked.stream


def test_polars_reads_what_pyarrow_reads() -> None:
    for asked in all_asked():
        frame = pl.read_ipc_stream(asked.stream)
        wanted = asked.table.to_pylist()
        for found, row in zip(frame.to_dicts(), wanted, strict=True):
            assert repr(plain(found)) == repr(plain(row))


def plain(value: object) -> object:
    """Times without the class of their zone, which is the reader's own."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in cast(dict[str, object], value).items()}
    if isinstance(value, list):
        return [plain(item) for item in cast(list[object], value)]
    return value.isoformat() if isinstance(value, datetime) else value

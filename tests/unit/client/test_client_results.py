"""Results: what stands where, what is known of it, and that null is never taken for a value."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from headrace.client import MalformedAnswer, Read, Result, Status, UnusableValue
from headrace.client.arrays import table


def decode(text: str) -> Result:
    return msgspec.json.decode(text, type=Result)


OBJECT = decode(
    """{"feature_group":"live::host-stat-v1","as":"host","fields":["level","country","rate"],
    "rows":[[7,"KR",0.5],[0,"XX",0.25],[0,"XX",null],[null,null,null],[3,"US",1.5]],
    "statuses":[{"row":1,"status":"DEFAULTED","fields":["level"]},
                {"row":1,"status":"STALE","fields":["country"]},
                {"row":2,"status":"MISSING"},
                {"row":3,"status":"UNAVAILABLE"}]}"""
)
HISTORY = decode(
    """{"feature_group":"live::visits","fields":["_event_time_ms","page"],
    "rows":[[[1700000000000,"a"],[1600000000000,"b"]],[],null],
    "statuses":[{"row":1,"status":"MISSING"},{"row":2,"status":"CORRUPT"}]}"""
)
VECTORS = decode(
    """{"feature_group":"live::vectors","fields":["embedding","tags"],
    "rows":[[[1.0,2.0],["a"]],[null,["b","c"]]],"statuses":[]}"""
)


def test_a_result_is_named_by_its_alias_and_else_by_its_group() -> None:
    assert (OBJECT.name, HISTORY.name) == ("host", "live::visits")


@pytest.mark.parametrize(
    ("row", "field", "status"),
    [
        (0, "level", Status.OK),
        (1, "level", Status.DEFAULTED),
        (1, "country", Status.STALE),
        (1, "rate", Status.OK),
        (2, "level", Status.MISSING),
        (3, "rate", Status.UNAVAILABLE),
        (-1, "rate", Status.OK),
    ],
)
def test_a_value_has_the_status_that_was_said_of_it(row: int, field: str, status: Status) -> None:
    assert OBJECT.status(row, field) is status


def test_a_row_has_the_worst_status_of_its_values() -> None:
    assert OBJECT.status(1) is Status.STALE


def test_every_row_of_a_column_has_a_status() -> None:
    assert OBJECT.status_column("level") == [
        Status.OK,
        Status.DEFAULTED,
        Status.MISSING,
        Status.UNAVAILABLE,
        Status.OK,
    ]


def test_a_missing_row_gives_its_default_and_an_unavailable_one_gives_none() -> None:
    assert OBJECT.value(2, "level") == 0
    with pytest.raises(UnusableValue, match="`host` row 3 field `level` is UNAVAILABLE"):
        OBJECT.value(3, "level")


def test_a_column_with_an_unavailable_row_is_refused_unless_null_is_asked_for() -> None:
    with pytest.raises(UnusableValue, match="row 3 is UNAVAILABLE"):
        OBJECT.column("level")
    assert OBJECT.column("level", unusable="null") == [7, 0, 0, None, 3]


def test_an_unknown_field_is_named_with_those_there_are() -> None:
    with pytest.raises(KeyError, match="no field `levle` here; it has `level`"):
        OBJECT.status(0, "levle")


def test_a_row_number_that_is_not_there_is_an_index_error() -> None:
    with pytest.raises(IndexError):
        OBJECT.status(5)


def test_a_history_column_is_a_list_a_row() -> None:
    assert HISTORY.column("page", unusable="null") == [["a", "b"], [], None]


def test_rows_become_records_of_the_callers_kind() -> None:
    @dataclass
    class Host:
        born: dt.date
        seen: dt.datetime
        token: bytes
        level: int

    result = decode(
        """{"feature_group":"a::b","fields":["born","seen","token","level"],
        "rows":[["2001-02-03","2024-05-06T07:08:09.000010Z","AQI=",4]],"statuses":[]}"""
    )
    seen = dt.datetime(2024, 5, 6, 7, 8, 9, 10, dt.UTC)
    assert result.records(Host) == [Host(dt.date(2001, 2, 3), seen, b"\1\2", 4)]


def test_events_become_records_with_their_event_time() -> None:
    class Visit(msgspec.Struct):
        event_time_ms: int
        page: str

    assert HISTORY.events(0, Visit) == [
        Visit(1_700_000_000_000, "a"),
        Visit(1_600_000_000_000, "b"),
    ]
    with pytest.raises(UnusableValue, match="row 2 is CORRUPT"):
        HISTORY.events(2, Visit)


def test_numbers_become_a_matrix_of_rows_and_fields_with_nan_for_null() -> None:
    made = OBJECT.to_numpy("level", "rate", unusable="null")
    expected = [[7, 0.5], [0, 0.25], [0, np.nan], [np.nan, np.nan], [3, 1.5]]
    assert made.dtype == np.float32
    assert np.array_equal(made, np.array(expected, np.float32), equal_nan=True)


def test_a_matrix_with_an_unavailable_row_is_refused_unless_asked_for() -> None:
    with pytest.raises(UnusableValue):
        OBJECT.to_numpy("level")


def test_text_is_never_read_as_a_number() -> None:
    result = decode('{"feature_group":"a::b","fields":["code"],"rows":[["12"]],"statuses":[]}')
    with pytest.raises(TypeError, match="`code` hold str, which is not float32"):
        result.to_numpy()


@pytest.mark.parametrize(("value", "kind"), [("1.5", "float"), ("null", "null")])
def test_an_integer_matrix_refuses_what_is_no_integer(value: str, kind: str) -> None:
    result = decode(
        f'{{"feature_group":"a::b","fields":["n"],"rows":[[1],[{value}]],"statuses":[]}}'
    )
    with pytest.raises(TypeError, match=f"hold {kind}, which is not int64"):
        result.to_numpy(dtype="int64")


def test_a_long_beyond_two_to_the_53_stays_exact_as_an_integer() -> None:
    result = decode(
        '{"feature_group":"a::b","fields":["n"],"rows":[[9223372036854775807]],"statuses":[]}'
    )
    assert result.to_numpy(dtype="int64").tolist() == [[2**63 - 1]]


def test_a_vector_field_becomes_a_matrix_of_its_own() -> None:
    made = VECTORS.to_numpy("embedding")
    assert np.array_equal(made, np.array([[1, 2], [np.nan, np.nan]], np.float32), equal_nan=True)


def test_lists_of_different_lengths_are_no_matrix() -> None:
    with pytest.raises(TypeError, match=r"`tags` differ in length \(\[1, 2\]\)"):
        VECTORS.to_numpy("tags")


def arrow_stream(*words: str) -> bytes:
    sink = pa.BufferOutputStream()
    made = pa.table({"level": [None] * len(words), "host._status": list(words)})
    with pa.ipc.new_stream(sink, made.schema) as writer:
        writer.write_table(made)
    written: bytes = sink.getvalue().to_pybytes()
    return written


def test_an_arrow_table_with_an_unavailable_row_is_refused_unless_null_is_asked_for() -> None:
    stream = arrow_stream("MISSING", "UNAVAILABLE")
    with pytest.raises(UnusableValue, match=r"UNAVAILABLE in column `host\._status`"):
        table(stream, "raise")
    assert table(stream, "null").num_rows == 2
    assert table(arrow_stream("OK", "MISSING"), "raise").num_rows == 2


@pytest.mark.parametrize("body", [b"", b"{}", arrow_stream("OK")[:100]])
def test_bytes_that_are_no_arrow_stream_are_malformed(body: bytes) -> None:
    with pytest.raises(MalformedAnswer, match="no Arrow stream"):
        table(body, "raise")


def test_a_read_gives_a_result_by_its_name() -> None:
    read = Read(generation=3, results=(OBJECT, HISTORY))
    assert read["host"] is OBJECT
    assert read["live::visits"] is HISTORY
    assert read.unusable
    with pytest.raises(KeyError, match="there are `host`, `live::visits`"):
        read["visits"]
    with pytest.raises(ValueError, match="2 results"):
        _ = read.result


def test_two_results_of_one_name_are_not_told_apart_by_it() -> None:
    with pytest.raises(KeyError, match="2 results are named `host`"):
        _ = Read(generation=3, results=(OBJECT, OBJECT))["host"]

"""Arrow columns as bulk commands: what upsync sends."""

from __future__ import annotations

import datetime as dt
import io
import json
from typing import Any, TypeAlias

import duckdb
import fastavro
import pyarrow as pa
import pytest

from headrace.codec import Catalog, EncodeError, encode_columns, encode_commands, partition_key

Table: TypeAlias = Any  # pyarrow ships no types.

NOW_MS = 1_700_000_100_000
EVENT_MS = 1_700_000_000_000
FIELDS = [
    {"id": 1, "name": "trips", "type": "Long", "nullable": False, "default": 0},
    {"id": 2, "name": "score", "type": "Float", "nullable": False, "default": 0},
    {"id": 3, "name": "city", "type": "Text", "nullable": True, "default": None},
    {"id": 4, "name": "since", "type": "Date", "nullable": False, "default": "2000-01-01"},
    {"id": 5, "name": "seen", "type": "Timestamp", "nullable": True, "default": None},
    {"id": 6, "name": "taste", "type": "Vector<2>", "nullable": False, "default": [0, 0]},
    {"id": 7, "name": "tags", "type": "List<Text>", "nullable": False, "default": []},
]
GROUP = {
    "id": 9,
    "name": "live::driver-stats",
    "feature_type": "Object",
    "keys": [{"name": "driver_id", "type": "Long"}],
    "schemas": [{"ordinal": 1, "fields": FIELDS}],
    "max_events": 100,
    "cache": {"ttl_ms": 0, "local_ttl_ms": 0},
}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog(json.dumps({"format": 1, "generation": 1, "groups": [GROUP]}).encode())


def ipc(table: Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def driver_stats(rows: int) -> Table:
    """As SQL makes them: a hugeint sum, doubles for a Float, a timestamp with time zone."""
    return (
        duckdb.connect()
        .sql(
            """
            SELECT i AS driver_id, sum(i) AS trips, i / 2.0::DOUBLE AS score,
                   CASE WHEN i % 2 = 0 THEN 'Seoul' END AS city,
                   DATE '2026-11-24' - i::INTEGER AS since,
                   TIMESTAMPTZ '2026-11-24 23:00:00.000001+00' AS seen,
                   [i::FLOAT, 0.5::FLOAT] AS taste, ['a', 'b'] AS tags,
                   make_timestamp(? * 1000) AS updated_at
            FROM range(?) AS numbers(i) GROUP BY i ORDER BY i
            """,
            params=[EVENT_MS, rows],
        )
        .to_arrow_table()
    )


def test_rows_of_sql_become_commands_that_fastavro_reads(catalog: Catalog) -> None:
    commands = encode_columns(
        catalog,
        "live::driver-stats",
        ipc(driver_stats(3)),
        method="UPDATE",
        event_time_column="updated_at",
    )
    assert [key for key, _ in commands] == [
        catalog.encode_key("live::driver-stats", {"driver_id": driver}) for driver in range(3)
    ]
    batch = encode_commands(catalog, [command for _, command in commands], now_ms=NOW_MS)
    assert (batch.accepted, batch.rejections) == (3, [])
    mutation = batch.mutations()[1]
    assert (mutation.kind, mutation.event_time_ms) == ("record", EVENT_MS)
    schema = json.loads(catalog.avro_schema(catalog.fingerprint("live::driver-stats")) or "")
    record = fastavro.schemaless_reader(io.BytesIO(mutation.cell[23:]), schema, None)
    assert record == {
        "trips": 1,
        "score": 0.5,
        "city": None,
        "since": dt.date(2026, 11, 23),
        "seen": dt.datetime(2026, 11, 24, 23, 0, 0, 1, tzinfo=dt.UTC),
        "taste": [1.0, 0.5],
        "tags": ["a", "b"],
    }


def test_a_row_of_columns_is_the_same_write_as_its_json(catalog: Catalog) -> None:
    ((key, bulk),) = encode_columns(
        catalog,
        "live::driver-stats",
        ipc(driver_stats(1).drop_columns("updated_at")),
        method="UPDATE",
        event_time_ms=EVENT_MS,
    )
    values = {
        "trips": 0,
        "score": 0,
        "city": "Seoul",
        "since": "2026-11-24",
        "seen": "2026-11-24T23:00:00.000001Z",
        "taste": [0, 0.5],
        "tags": ["a", "b"],
        "_last_updated_at_ms": EVENT_MS,
    }
    text = json.dumps(
        {
            "feature_name": "live::driver-stats",
            "method": "UPDATE",
            "keys": {"driver_id": 0},
            "values": values,
        }
    ).encode()
    assert key == partition_key(catalog, text) == partition_key(catalog, bulk)
    written = [
        encode_commands(catalog, [payload], now_ms=NOW_MS).mutations()[0]
        for payload in (bulk, text)
    ]
    assert written[0].cell == written[1].cell
    assert written[0].event_id == written[1].event_id


@pytest.mark.parametrize(
    ("change", "code", "path", "sentence"),
    [
        ({"trips": [None, 1]}, "NULL_NOT_ALLOWED", "trips.0", "the field is not nullable"),
        ({"trips": ["a", "b"]}, "WRONG_TYPE", "trips", "Long does not take the column type Utf8"),
        ({"score": [0.0, float("nan")]}, "OUT_OF_RANGE", "score.1", "NaN and infinity"),
        ({"driver_id": [1, None]}, "BAD_KEY", "driver_id.1", "a key is never null"),
        ({"taste": [[1.0, 2.0], [1.0]]}, "WRONG_TYPE", "taste.1", "exactly 2 items, got 1"),
        ({"trip": [1, 2]}, "UNKNOWN_FIELD", "", "did you mean `trips`?"),
    ],
    ids=["null", "type", "nan", "key", "vector", "name"],
)
def test_what_does_not_fit_is_named_by_column_and_row(
    catalog: Catalog, change: dict[str, list[object]], code: str, path: str, sentence: str
) -> None:
    table = driver_stats(2).drop_columns("updated_at")
    for name, values in change.items():
        if name in table.column_names:
            table = table.drop_columns(name)
        table = table.append_column(name, pa.array(values))
    with pytest.raises(EncodeError) as caught:
        encode_columns(
            catalog, "live::driver-stats", ipc(table), method="UPDATE", event_time_ms=EVENT_MS
        )
    assert sentence in str(caught.value)
    assert (caught.value.code, caught.value.path) == (code, path)


def test_one_source_of_event_times_is_given(catalog: Catalog) -> None:
    stream = ipc(driver_stats(1))
    with pytest.raises(TypeError, match="either event_time_column or event_time_ms"):
        encode_columns(catalog, "live::driver-stats", stream, method="UPDATE")
    with pytest.raises(EncodeError, match="unknown column `updated_at`"):
        encode_columns(
            catalog, "live::driver-stats", stream, method="UPDATE", event_time_column="updated"
        )


def test_bytes_that_are_no_stream_are_refused(catalog: Catalog) -> None:
    with pytest.raises(EncodeError) as caught:
        encode_columns(catalog, "live::driver-stats", b"", method="UPDATE", event_time_ms=0)
    assert caught.value.code == "CORRUPT"

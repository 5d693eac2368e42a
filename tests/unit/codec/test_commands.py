"""Commands as Python hands them over: bytes in, writes and rejections out."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fastavro
import pytest

from headrace.codec import Catalog, EncodeError, LmdbStore, encode_commands, partition_key

NOW_MS = 1_700_000_100_000
EVENT_MS = 1_700_000_000_000
TYPES = {
    "boolean": ("Boolean", False),
    "integer": ("Integer", 0),
    "long": ("Long", 0),
    "float": ("Float", 0.0),
    "double": ("Double", 0.0),
    "text": ("Text", ""),
    "bytes": ("Bytes", "AP8="),
    "date": ("Date", "2000-02-29"),
    "timestamp": ("Timestamp", "2026-11-24T23:00:00.000001Z"),
    "list": ("List<Text>", ["a", 'b"']),
    "vector": ("Vector<3>", [0.1, 1.0, 2.0]),
    "maybe": ("Long", None),
}
VALUES = {
    "boolean": True,
    "integer": -(2**31),
    "long": 2**63 - 1,
    "float": 0.1,
    "double": -0.0,
    "text": "böse 😀",
    "bytes": "AAEC",
    "date": "2026-11-24",
    "timestamp": "1969-12-31T23:59:59.999999Z",
    "list": [],
    "vector": [1, 2.5, -3],
    "maybe": 7,
}
GROUP = {
    "id": 7,
    "name": "live::everything-v1",
    "feature_type": "Object",
    "keys": [{"name": "user_id", "type": "Long"}],
    "schemas": [
        {
            "ordinal": 1,
            "fields": [
                {
                    "id": at,
                    "name": name,
                    "type": kind,
                    "nullable": default is None,
                    "default": default,
                }
                for at, (name, (kind, default)) in enumerate(TYPES.items(), 1)
            ],
        }
    ],
    "ttl_ms": 3_600_000,
    "max_events": 100,
    "cache": {"ttl_ms": 0, "local_ttl_ms": 0},
}
CELL_HEADER_BYTES = 13
SINGLE_OBJECT_HEADER_BYTES = 10


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog(json.dumps({"format": 1, "generation": 1, "groups": [GROUP]}).encode())


def command(values: Mapping[str, object], *, event_time_ms: int = EVENT_MS) -> bytes:
    return json.dumps(
        {
            "feature_name": "live::everything-v1",
            "method": "UPDATE",
            "keys": {"user_id": 5},
            "values": {**values, "_last_updated_at_ms": event_time_ms},
        }
    ).encode()


def avro_schema(catalog: Catalog) -> dict[str, Any]:
    text = catalog.avro_schema(catalog.fingerprint("live::everything-v1"))
    assert text is not None
    schema: dict[str, Any] = json.loads(text)
    return schema


def read_avro(
    body: bytes, writer: dict[str, Any], reader: dict[str, Any] | None = None
) -> dict[str, Any]:
    record = fastavro.schemaless_reader(io.BytesIO(body), writer, reader)
    assert isinstance(record, dict)
    return record


def test_a_complete_update_is_one_record_that_fastavro_reads(catalog: Catalog) -> None:
    batch = encode_commands(catalog, [command(VALUES)], now_ms=NOW_MS)
    (mutation,) = batch.mutations()
    assert (mutation.kind, mutation.group_id, mutation.field_id) == ("record", 7, 0)
    assert (mutation.event_time_ms, mutation.expires_at_ms) == (EVENT_MS, EVENT_MS + 3_600_000)
    assert mutation.write_timestamp == EVENT_MS * 1000 + mutation.event_id % 999
    body = mutation.cell[CELL_HEADER_BYTES + SINGLE_OBJECT_HEADER_BYTES :]
    record = read_avro(body, avro_schema(catalog))
    assert record["bytes"] == bytes([0, 1, 2])
    assert record["date"].isoformat() == "2026-11-24"
    assert record["timestamp"].isoformat() == "1969-12-31T23:59:59.999999+00:00"
    assert record["float"] == pytest.approx(0.1)
    assert str(record["double"]) == "-0.0"
    assert record["vector"] == [1.0, 2.5, -3.0]
    for name in ("boolean", "integer", "long", "text", "list", "maybe"):
        assert record[name] == VALUES[name]


def test_the_published_schema_has_a_default_for_every_field(catalog: Catalog) -> None:
    narrow = {
        "type": "record",
        "name": "everything_v1",
        "namespace": "headrace.live.s1",
        "fields": [],
    }
    record = read_avro(b"", narrow, avro_schema(catalog))
    # The one default that fastavro gives as the schema's text: code points for bytes.
    assert record["bytes"].encode("iso-8859-1") == bytes([0x00, 0xFF])
    assert record["list"] == ["a", 'b"']
    assert record["vector"] == [0.1, 1.0, 2.0]
    assert record["maybe"] is None
    assert record["integer"] == 0


def test_a_partial_update_is_one_patch_a_field_with_one_write_timestamp(catalog: Catalog) -> None:
    batch = encode_commands(catalog, [command({"text": "x", "long": 1})], now_ms=NOW_MS)
    patches = batch.mutations()
    assert [(patch.kind, patch.field_id) for patch in patches] == [("patch", 3), ("patch", 6)]
    assert len({(patch.write_timestamp, patch.event_id) for patch in patches}) == 1
    assert batch.touched_keys() == [catalog.encode_key("live::everything-v1", {"user_id": 5})]
    assert batch.coordinates() == [(0, "UPDATE", batch.touched_keys()[0], EVENT_MS)]


def test_a_bad_command_is_a_rejection_with_its_place(catalog: Catalog) -> None:
    bad = command({"lnog": 1})
    batch = encode_commands(catalog, [command(VALUES), bad, b"\xff"], now_ms=NOW_MS)
    assert (batch.accepted, batch.expired, batch.mutation_count) == (1, 0, 1)
    unknown, torn = batch.rejections
    assert (unknown.index, unknown.code, unknown.path) == (1, "UNKNOWN_FIELD", "values.lnog")
    assert unknown.message == "unknown field `lnog`; did you mean `long`?"
    assert unknown.offset == bad.index(b"1, ")
    assert (torn.index, torn.code, torn.offset, torn.path) == (2, "MALFORMED_JSON", 0, "")


def test_a_command_that_arrives_expired_is_counted(catalog: Catalog) -> None:
    late = command(VALUES, event_time_ms=NOW_MS - 3_600_000)
    batch = encode_commands(catalog, [late], now_ms=NOW_MS)
    assert (batch.accepted, batch.expired, batch.mutations()) == (1, 1, [])


def test_a_partition_key_is_the_key_of_the_row(catalog: Catalog) -> None:
    key = catalog.encode_key("live::everything-v1", {"user_id": 5})
    assert partition_key(catalog, command({})) == key
    with pytest.raises(EncodeError) as caught:
        partition_key(catalog, b'{"feature_name":"live::everything-v1","keys":{"user_id":"5"}}')
    assert (caught.value.code, caught.value.path) == ("BAD_KEY", "keys.user_id")


def test_a_batch_is_stored_and_read_back_in_the_forms_it_came_in(
    catalog: Catalog, tmp_path: Path
) -> None:
    store = LmdbStore(str(tmp_path))
    try:
        batch = encode_commands(catalog, [command(VALUES), command({"maybe": None})], now_ms=NOW_MS)
        store.apply(batch, catalog, now_ms=NOW_MS)
        (row,) = store.fetch_object(catalog, batch.touched_keys(), now_ms=NOW_MS)
        assert row is not None
        assert row.newest_event_time_ms == EVENT_MS
        assert row.values["text"] == VALUES["text"]
        assert row.values["long"] == VALUES["long"]
    finally:
        store.close()

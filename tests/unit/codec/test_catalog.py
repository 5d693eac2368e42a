"""The compiled catalog as Python meets it."""

from __future__ import annotations

import json

import pytest

from headrace.codec import (
    FORMAT_VERSION,
    Catalog,
    CodecError,
    DecodeError,
    EncodeError,
    SchemaError,
)

FIELD = {"id": 1, "name": "level", "type": "Long", "nullable": False, "default": 0}
GROUP = {
    "id": 7,
    "name": "live::host-stat-v1",
    "feature_type": "Object",
    "keys": [{"name": "user_id", "type": "Long"}, {"name": "room", "type": "Text"}],
    "schemas": [{"ordinal": 1, "fields": [FIELD]}],
    "max_events": 100,
    "cache": {"ttl_ms": 0, "local_ttl_ms": 0},
}
DOCUMENT = {"format": 1, "generation": 12, "groups": [GROUP]}


@pytest.fixture
def catalog() -> Catalog:
    return Catalog(json.dumps(DOCUMENT).encode())


def test_a_catalog_knows_its_groups_by_name_and_id(catalog: Catalog) -> None:
    assert catalog.generation == 12
    assert catalog.group_id("live::host-stat-v1") == 7
    assert catalog.group_name(7) == "live::host-stat-v1"
    assert catalog.group_id("live::other") is None
    assert catalog.group_name(8) is None


def test_a_catalog_gives_the_avro_schema_of_each_fingerprint(catalog: Catalog) -> None:
    schema = catalog.avro_schema(catalog.fingerprint("live::host-stat-v1"))
    assert schema is not None
    assert json.loads(schema)["namespace"] == "headrace.live.s1"
    assert catalog.avro_schema(0) is None
    with pytest.raises(KeyError, match="live::other"):
        catalog.fingerprint("live::other")


def test_keys_read_back_as_they_were_written(catalog: Catalog) -> None:
    key = catalog.encode_key("live::host-stat-v1", {"room": "böse", "user_id": -5})
    assert key == bytes.fromhex("00000007 7ffffffffffffffb 0005") + "böse".encode()
    assert catalog.decode_key(key) == ("live::host-stat-v1", {"user_id": -5, "room": "böse"})


def test_many_keys_are_read_back_at_once_in_order(catalog: Catalog) -> None:
    group = "live::host-stat-v1"
    users = [(-5, "böse"), (7, "a"), (-5, "böse")]
    keys = [catalog.encode_key(group, {"user_id": user, "room": room}) for user, room in users]
    assert catalog.decode_keys(keys) == [(group, [user, room]) for user, room in users]
    with pytest.raises(DecodeError):
        catalog.decode_keys([keys[0], keys[1][:-1]])


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"user_id": 1}, "key field `room` is missing"),
        ({"user_id": 1, "room": ""}, "the text is empty in `room`"),
        ({"user_id": "1", "room": "a"}, "a Long was expected, got a text in `user_id`"),
        ({"user_id": True, "room": "a"}, "a key is an int or a str, got bool in `user_id`"),
        ({"user_id": 1.0, "room": "a"}, "a key is an int or a str, got float in `user_id`"),
        ({"user_id": 2**63, "room": "a"}, "the number does not fit 64 bits in `user_id`"),
        ({"user_id": 1, "room": "a", "rome": 1}, "`rome` is no key field of `live::host-stat-v1`"),
        ({"user_id": 1, "room": "a" * 480}, "the key takes 494 bytes, at most 480 are stored"),
    ],
)
def test_a_key_that_cannot_be_stored_is_refused(
    catalog: Catalog, keys: dict[str, object], sentence: str
) -> None:
    with pytest.raises(EncodeError) as caught:
        catalog.encode_key("live::host-stat-v1", keys)
    assert str(caught.value) == sentence
    assert caught.value.code == "BAD_KEY"


def test_an_unknown_group_is_refused_with_the_nearest_name(catalog: Catalog) -> None:
    with pytest.raises(EncodeError, match="did you mean `live::host-stat-v1`") as caught:
        catalog.encode_key("live::hots-stat-v1", {})
    assert caught.value.code == "UNKNOWN_GROUP"


def test_bad_key_bytes_are_a_decode_error_with_their_offset(catalog: Catalog) -> None:
    with pytest.raises(DecodeError) as caught:
        catalog.decode_key(b"\x00\x00\x00\x07\x80")
    assert (caught.value.code, caught.value.offset, caught.value.path) == ("CORRUPT", 5, "user_id")


def test_a_document_that_cannot_be_compiled_is_a_schema_error() -> None:
    with pytest.raises(SchemaError, match="upgrade this process"):
        Catalog(b'{"format":2,"generation":1}')
    with pytest.raises(SchemaError):
        Catalog(b"{")
    assert issubclass(SchemaError, CodecError)
    assert issubclass(CodecError, ValueError)


def test_the_byte_format_is_version_1() -> None:
    assert FORMAT_VERSION == 1

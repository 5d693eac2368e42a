"""The read engine over a real store: one call from a request body to an HTTP response.

The rules of single rows are tested in the core (`rust_codec/core/tests/read`); here is what only
the binding and the store can show.
"""

from __future__ import annotations

import gc
import io
import json
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fastavro
import pytest

from headrace.codec import Catalog, LmdbStore, ReadEngine, StaleCatalog, encode_commands
from headrace.registry.catalog import (
    CatalogDocument,
    Group,
    KeyField,
    Schema,
    Service,
    ServiceRead,
    ValueField,
    encode_document,
)

USERS, PLAYS, ROUTES = "live::user-stats-v1", "live::plays", "live::route-stats-v1"
NOW_MS = 1_700_000_000_000
Answer = tuple[int, dict[str, str], bytes]
Read = Callable[..., Answer]

LEVEL = ValueField(id=1, name="level", type="Long", default=7)
GENDER = ValueField(id=2, name="gender", type="Text", default="NONE")
SCORE = ValueField(id=3, name="score", type="Double", nullable=True)


def _document(generation: int) -> bytes:
    """Generation 2 adds `score` to the users."""
    schemas = [Schema(ordinal=1, fields=(LEVEL, GENDER))]
    if generation > 1:
        schemas.append(Schema(ordinal=2, fields=(LEVEL, GENDER, SCORE)))
    user_id = (KeyField(name="user_id", type="Long"),)
    users = Group(
        id=1,
        name=USERS,
        feature_type="Object",
        owner="o",
        keys=user_id,
        schemas=tuple(schemas),
        ttl_ms=3_600_000,
        max_age_ms=60_000,
    )
    plays = Group(
        id=2,
        name=PLAYS,
        feature_type="History",
        owner="o",
        keys=user_id,
        schemas=(Schema(ordinal=1, fields=(LEVEL,)),),
        max_events=3,
    )
    routes = Group(
        id=3,
        name=ROUTES,
        feature_type="Object",
        owner="o",
        keys=(KeyField(name="origin", type="Text"), KeyField(name="dest", type="Text")),
        schemas=(Schema(ordinal=1, fields=(LEVEL,)),),
    )
    ranker = Service(
        name="ranker-v1",
        owner="o",
        reads=(
            ServiceRead(feature_group=USERS, alias="me", keys={"user_id": "user_id"}),
            ServiceRead(feature_group=USERS, alias="peer", keys={"user_id": "peer_id"}),
            ServiceRead(feature_group=PLAYS, keys={"user_id": "user_id"}, limit=1),
        ),
    )
    return encode_document(
        CatalogDocument(
            generation=generation,
            published_at_ms=NOW_MS,
            groups=(users, plays, routes),
            services=(ranker,),
        )
    )


@pytest.fixture
def catalog() -> Catalog:
    return Catalog(_document(1))


@pytest.fixture
def store(tmp_path: Path) -> LmdbStore:
    return LmdbStore(str(tmp_path / "online"), map_size_bytes=1 << 24)


@pytest.fixture
def engine(catalog: Catalog) -> ReadEngine:
    engine = ReadEngine()
    engine.install(catalog)
    return engine


@pytest.fixture
def read(engine: ReadEngine, store: LmdbStore) -> Read:
    def call(body: object, *, accept: int = 0, reloaded: bool = False) -> Answer:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        response = engine.read(
            store,
            raw,
            accept=accept,
            now_ms=NOW_MS,
            request_id=b"test-1",
            keep_alive=True,
            reloaded=reloaded,
        )
        return _split(response)

    return call


def _split(response: bytes) -> Answer:
    head, _, body = response.partition(b"\r\n\r\n")
    status, *lines = head.decode("ascii").split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines)
    assert len(fields) == len(lines)
    assert int(fields["content-length"]) == len(body)
    return int(status.split()[1]), fields, body


def _apply(store: LmdbStore, catalog: Catalog, commands: Sequence[dict[str, Any]]) -> None:
    batch = encode_commands(
        catalog, [json.dumps(each).encode() for each in commands], now_ms=NOW_MS
    )
    assert batch.rejections == []
    store.apply(batch, catalog, now_ms=NOW_MS)


def _update(user: int, *, at_ms: int = NOW_MS - 1_000, **values: object) -> dict[str, Any]:
    return {
        "feature_name": USERS,
        "method": "UPDATE",
        "keys": {"user_id": user},
        "values": {**values, "_last_updated_at_ms": at_ms},
    }


def _play(user: int, level: int, *, at_ms: int) -> dict[str, Any]:
    return {
        "feature_name": PLAYS,
        "method": "APPEND",
        "keys": {"user_id": user},
        "values": {"level": level, "_last_updated_at_ms": at_ms},
    }


def _users(*ids: object, **options: object) -> dict[str, Any]:
    return {"reads": [{"feature_group": USERS, "keys": {"user_id": list(ids)}}], **options}


def test_rows_come_back_as_they_were_written(
    store: LmdbStore, catalog: Catalog, read: Read
) -> None:
    _apply(store, catalog, [_update(1, level=3, gender="MALE"), _update(2, gender="é\n")])
    status, fields, body = read(_users(2, 1, 3, 1))
    assert status == 200
    assert fields == {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "vary": "accept, accept-encoding",
        "x-request-id": "test-1",
        "headrace-generation": "1",
    }
    assert json.loads(body) == {
        "generation": 1,
        "results": [
            {
                "feature_group": USERS,
                "fields": ["level", "gender"],
                "rows": [[7, "é\n"], [3, "MALE"], [7, "NONE"], [3, "MALE"]],
                "statuses": [
                    {"row": 0, "status": "DEFAULTED", "fields": ["level"]},
                    {"row": 2, "status": "MISSING"},
                ],
            }
        ],
    }


def test_a_delete_and_an_expiry_leave_a_missing_row(
    store: LmdbStore, catalog: Catalog, read: Read
) -> None:
    """Semantics 3 and 4: the reader decides, whatever the engine still holds."""
    delete = {**_update(1, at_ms=NOW_MS - 500), "method": "DELETE"}
    rows = [_update(1, level=3), delete, _update(2, level=4, at_ms=NOW_MS - 3_599_999)]
    _apply(store, catalog, rows)
    result = json.loads(read(_users(1, 2))[2])["results"][0]
    assert [(each["row"], each["status"]) for each in result["statuses"]] == [
        (0, "MISSING"),
        (1, "STALE"),
    ]


def test_a_history_is_its_newest_events(store: LmdbStore, catalog: Catalog, read: Read) -> None:
    _apply(store, catalog, [_play(1, level, at_ms=NOW_MS - level) for level in range(1, 6)])
    body = {"reads": [{"feature_group": PLAYS, "keys": {"user_id": [1, 2]}, "limit": 2}]}
    result = json.loads(read(body)[2])["results"][0]
    assert result["fields"] == ["_event_time_ms", "level"]
    assert result["rows"] == [[[NOW_MS - 1, 1], [NOW_MS - 2, 2]], []]
    assert result["statuses"] == [{"row": 1, "status": "MISSING"}]


def test_a_composite_text_key_is_read(store: LmdbStore, catalog: Catalog, read: Read) -> None:
    command = {
        "feature_name": ROUTES,
        "method": "UPDATE",
        "keys": {"origin": "JFK", "dest": 'ÉX]"'},
        "values": {"level": 5, "_last_updated_at_ms": NOW_MS},
    }
    _apply(store, catalog, [command])
    keys = {"origin": ["LGA", "JFK"], "dest": ['ÉX]"', 'ÉX]"']}
    for ascii_only in (True, False):
        body = {"reads": [{"feature_group": ROUTES, "keys": keys}]}
        raw = json.dumps(body, ensure_ascii=ascii_only).encode()
        for _ in range(2):
            assert json.loads(read(raw)[2])["results"][0]["rows"] == [[7], [5]]


def test_a_service_is_read_by_its_request_keys(
    store: LmdbStore, catalog: Catalog, read: Read
) -> None:
    _apply(store, catalog, [_update(1, level=3, gender="M"), _play(1, 9, at_ms=NOW_MS)])
    body = {"service": "ranker-v1", "keys": {"user_id": [1], "peer_id": [2, 1]}}
    results = json.loads(read(body)[2])["results"]
    assert [each.get("as") for each in results] == ["me", "peer", None]
    assert [each["rows"] for each in results] == [
        [[3, "M"]],
        [[7, "NONE"], [3, "M"]],
        [[[NOW_MS, 9]]],
    ]


def test_any_avro_library_reads_the_avro_answer(
    store: LmdbStore, catalog: Catalog, read: Read
) -> None:
    """Semantics 13: bodies decode by the schema that their fingerprint names."""
    commands = [_update(1, level=3, gender="M"), _play(2, 9, at_ms=NOW_MS)]
    _apply(store, catalog, [*commands, _update(3, level=4, at_ms=NOW_MS - 100_000)])
    body = {
        "reads": [
            {"feature_group": USERS, "keys": {"user_id": [1, 2, 3]}},
            {"feature_group": PLAYS, "keys": {"user_id": [2]}},
        ]
    }
    status, fields, raw = read(body, accept=1)
    assert (status, fields["content-type"]) == (200, "application/vnd.headrace.avro")
    envelope = fastavro.parse_schema(json.loads(ReadEngine.envelope_schema()))
    stream = io.BytesIO(raw)
    answer: Any = fastavro.schemaless_reader(stream, envelope, None)
    assert stream.read() == b""
    users, plays = answer["results"]
    assert (answer["generation"], users["feature_group"], users["as"]) == (1, USERS, None)
    assert users["schemas"] == [f"{catalog.fingerprint(USERS):016x}"]

    def record(result: dict[str, Any], row: dict[str, Any]) -> tuple[int, object]:
        schema = catalog.avro_schema(int(result["schemas"][row["schema"]], 16))
        assert schema is not None
        parsed = fastavro.parse_schema(json.loads(schema))
        return row["event_time_ms"], fastavro.schemaless_reader(
            io.BytesIO(row["body"]), parsed, None
        )

    assert record(users, users["rows"][0]) == (NOW_MS - 1_000, {"level": 3, "gender": "M"})
    assert users["rows"][1] is None
    assert users["statuses"] == [
        {"row": 1, "status": "MISSING", "fields": []},
        {"row": 2, "status": "STALE", "fields": []},
    ]
    assert [record(plays, event) for event in plays["rows"][0]] == [(NOW_MS, {"level": 9})]


def test_a_row_of_a_newer_catalog_asks_for_it_once(
    store: LmdbStore, engine: ReadEngine, read: Read
) -> None:
    """Semantics 20: an unknown fingerprint is never CORRUPT."""
    newer = Catalog(_document(2))
    _apply(store, newer, [_update(1, level=3, gender="M", score=0.5)])
    with pytest.raises(StaleCatalog):
        read(_users(1, 2))
    result = json.loads(read(_users(1, 2), reloaded=True)[2])["results"][0]
    assert result["statuses"][0] == {"row": 0, "status": "UNAVAILABLE"}
    assert result["rows"][0] == [None, None]
    engine.install(newer)
    status, fields, body = read(_users(1))
    assert (status, fields["headrace-generation"], engine.generation) == (200, "2", 2)
    assert json.loads(body)["results"][0]["rows"] == [[3, "M", 0.5]]


def test_a_closed_store_is_a_503_and_never_a_default(store: LmdbStore, read: Read) -> None:
    store.close()
    status, fields, body = read(_users(1))
    assert (status, fields["retry-after"]) == (503, "1")
    assert json.loads(body)["code"] == "UNAVAILABLE"


def test_without_a_catalog_every_read_is_a_503(store: LmdbStore) -> None:
    engine = ReadEngine()
    response = engine.read(store, b"{}", accept=0, now_ms=NOW_MS, request_id=b"", keep_alive=False)
    status, fields, _ = _split(response)
    assert (status, engine.generation, fields["connection"]) == (503, 0, "close")
    assert "x-request-id" not in fields


def test_counters_add_up(
    store: LmdbStore, catalog: Catalog, engine: ReadEngine, read: Read
) -> None:
    _apply(store, catalog, [_update(1, level=3, gender="M")])
    for body in (_users(1, 2), _users(3), {}):
        read(body)
    counters = engine.counters()
    assert counters[f"rows/OK/{USERS}"] == 1
    assert counters[f"rows/MISSING/{USERS}"] == 2
    assert counters["requests/whole"] == 2
    assert counters["requests/refused"] == 1
    assert (counters["plans/hit"], counters["plans/miss"]) == (1, 2)


def test_limits_are_those_the_engine_was_made_with(store: LmdbStore, catalog: Catalog) -> None:
    engine = ReadEngine(keys_max=2, reads_max=2, rows_max=3)
    engine.install(catalog)

    def code(body: dict[str, Any]) -> str | None:
        response = engine.read(
            store,
            json.dumps(body).encode(),
            accept=0,
            now_ms=NOW_MS,
            request_id=b"r",
            keep_alive=True,
        )
        found: str | None = json.loads(_split(response)[2]).get("code")
        return found

    one = _users(1, 2)["reads"][0]
    assert code({"reads": [one]}) is None
    assert code(_users(1, 2, 3)) == "TOO_MANY_KEYS"
    assert code({"reads": [one, one]}) == "TOO_MANY_ROWS"
    assert code({"reads": [one] * 3}) == "TOO_MANY_READS"


@pytest.mark.parametrize("accept", [0, 1])
def test_no_python_object_is_made_for_a_key_a_row_or_a_value(
    store: LmdbStore, catalog: Catalog, engine: ReadEngine, accept: int
) -> None:
    """Semantics 29: what a call allocates in Python is its response, however many rows it has."""
    _apply(store, catalog, [_update(user, level=user, gender="M") for user in range(1_000)])

    def allocated(keys: int) -> tuple[int, int]:
        """Blocks held, and bytes held at the peak beyond the response, by one call."""
        body = json.dumps(_users(*range(keys))).encode()
        response, blocks, peak = b"", 0, 0
        for _ in range(2):  # The first call fills what is kept between calls.
            gc.collect()
            tracemalloc.start()
            blocks = sys.getallocatedblocks()
            response = engine.read(
                store, body, accept=accept, now_ms=NOW_MS, request_id=b"r", keep_alive=True
            )
            blocks = sys.getallocatedblocks() - blocks
            peak = tracemalloc.get_traced_memory()[1] - sys.getsizeof(response)
            tracemalloc.stop()
        assert response.startswith(b"HTTP/1.1 200")
        return blocks, peak

    small, large = allocated(1), allocated(1_000)
    assert abs(large[0] - small[0]) <= 2
    assert abs(large[1] - small[1]) <= 256


def _read_bodies(keys: bytes) -> bytes:
    return b'{"reads":[{"feature_group":"live::user-stats-v1","keys":{"user_id":' + keys + b"}}]}"


HOSTILE = [
    b"",
    b" ",
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf{}",
    b"null",
    b"true",
    b"7",
    b'"reads"',
    b"[]",
    b"{",
    b"{}",
    b"{}{}",
    b"{,}",
    b'{"reads"}',
    b'{"reads":}',
    b'{"reads":[}',
    b'{"reads":[],}',
    b"{'reads':[]}",
    b"{reads:[]}",
    b'{"reads":null}',
    b'{"reads":{}}',
    b'{"reads":[[]]}',
    b'{"reads":[null]}',
    b'{"reads":[{}]}',
    b'{"reads":[{"feature_group":null,"keys":{}}]}',
    b'{"reads":[{"feature_group":"","keys":{}}]}',
    b'{"reads":[{"feature_group":"\\u0000","keys":{}}]}',
    b'{"reads":[{"feature_group":"\\ud800","keys":{}}]}',
    b'{"reads":[{"feature_group":"\xed\xa0\x80","keys":{}}]}',
    b'{"reads":[{"feature_group":"live::user-stats-v1"}]}',
    b'{"reads":[{"feature_group":"live::user-stats-v1","keys":null}]}',
    b'{"reads":[{"feature_group":"live::user-stats-v1","keys":{"user_id":[1]},"fields":[]}]}',
    b'{"reads":[{"feature_group":"live::user-stats-v1","keys":{"user_id":[1]},"fields":[null]}]}',
    b'{"reads":[{"feature_group":"live::user-stats-v1","keys":{"user_id":[1]},"limit":1}]}',
    b'{"reads":[{"feature_group":"live::plays","keys":{"user_id":[1]},"limit":-1}]}',
    b'{"reads":[{"feature_group":"live::plays","keys":{"user_id":[1]},"limit":1e400}]}',
    b'{"reads":[{"feature_group":"live::plays","keys":{"user_id":[1]},"limit":null}]}',
    b'{"service":null,"keys":{}}',
    b'{"service":"","keys":{}}',
    b'{"service":"ranker-v1"}',
    b'{"service":"ranker-v1","keys":{}}',
    b'{"service":"ranker-v1","keys":{"user_id":[1]}}',
    b'{"service":"ranker-v1","keys":{"user_id":[1],"peer_id":[null]}}',
    b'{"service":"ranker-v1","reads":[],"keys":{}}',
    _read_bodies(b"1"),
    _read_bodies(b"{}"),
    _read_bodies(b"[null]"),
    _read_bodies(b"[[]]"),
    _read_bodies(b"[{}]"),
    _read_bodies(b"[1.0]"),
    _read_bodies(b"[1e2]"),
    _read_bodies(b'["1"]'),
    _read_bodies(b"[+1]"),
    _read_bodies(b"[01]"),
    _read_bodies(b"[-]"),
    _read_bodies(b"[0x1]"),
    _read_bodies(b"[NaN]"),
    _read_bodies(b"[Infinity]"),
    _read_bodies(b"[1,]"),
    _read_bodies(b"[,1]"),
    _read_bodies(b"[1 2]"),
    _read_bodies(b"[1]]"),
    _read_bodies(b"[9223372036854775808]"),
    _read_bodies(b"[-9223372036854775809]"),
    _read_bodies(b"[" + b"9" * 10_000 + b"]"),
    _read_bodies(b"[0." + b"0" * 10_000 + b"]"),
    _read_bodies(b"[1" + b",1" * 1_000 + b"]"),
    _read_bodies(b'[1],"user_id":[1]'),
    _read_bodies(b'[1],"\\u0075ser_id":[1]'),
    _read_bodies(b'[1],"other":[1]'),
    _read_bodies(b"[" * 100_000),
    _read_bodies(b"[1]")[:-1],
    _read_bodies(b"[1]") + b"\x00",
    _read_bodies(b"[1]") + b",",
    _read_bodies(b"[1]").replace(b"]}}", b']},"keys":{}}'),
    _read_bodies(b"[1]").replace(b"}]}", b'}],"reads":[]}'),
    _read_bodies(b"[1]").replace(b"}]}", b'}],"deadline_ms":0}'),
    _read_bodies(b"[1]").replace(b"}]}", b'}],"deadline_ms":-0}'),
    _read_bodies(b"[1]").replace(b"}]}", b'}],"deadline_ms":' + b"1" * 10_000 + b"}"),
    _read_bodies(b"[1]").replace(b"}]}", b'}],"strict":"true"}'),
    _read_bodies(b"[1]").replace(b"}]}", b'}],"layout":"COLUMNS"}'),
    _read_bodies(b"[1]").replace(b"}]}", b'}],"' + b"x" * 900_000 + b'":1}'),
    b'{"reads":[' + b"{}," * 65 + b"{}]}",
    b'{"a":' * 50_000,
    b'{"reads":' + b"[" * 500_000,
    b'{"reads":[' + b'"' * 999 + b"]}",
    b'{"reads":["' + b"\\" * 999 + b'"]}',
]


@pytest.mark.parametrize("accept", [0, 1])
def test_a_hostile_body_is_a_4xx_with_a_problem(read: Read, accept: int) -> None:
    assert len(set(HOSTILE)) == len(HOSTILE) >= 60
    for body in HOSTILE:
        status, fields, answer = read(body, accept=accept)
        assert status in {400, 404}, body[:200]
        assert fields["content-type"] == "application/problem+json"
        assert len(answer) < 2_000
        problem = json.loads(answer)
        assert problem["status"] == status
        assert problem["type"]
        assert problem["title"]
        assert problem["code"]
        assert problem["detail"]


def test_a_hostile_body_between_right_ones_changes_no_answer(
    store: LmdbStore, catalog: Catalog, read: Read
) -> None:
    """A remembered plan answers only bodies that are right."""
    _apply(store, catalog, [_update(1, level=3, gender="M")])
    right = _read_bodies(b"[1]")
    expected = read(right)
    for body in HOSTILE:
        once = read(body)
        assert read(right) == expected
        assert read(body) == once

"""The Arrow answer over the embedded store: one table, whatever a request reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace.codec import (
    CachedReads,
    Catalog,
    LmdbStore,
    PendingRead,
    Placement,
    ReadEngine,
    encode_commands,
)
from headrace.gateway.ports import ACCEPT_ARROW, ACCEPT_JSON
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

NOW_MS = 1_700_000_000_000
USERS, PLAYS = "live::users-v1", "live::plays"
LEVEL = ValueField(id=1, name="level", type="Long", default=7)
NAME = ValueField(id=2, name="name", type="Text", default="NONE")

Read = Callable[..., tuple[int, bytes]]


def document() -> CatalogDocument:
    """An Object and a History, and a service that reads both, the Object twice."""
    user_id = (KeyField(name="user_id", type="Long"),)
    schemas = (Schema(ordinal=1, fields=(LEVEL, NAME)),)
    users = Group(id=1, name=USERS, feature_type="Object", owner="o", keys=user_id, schemas=schemas)
    plays = Group(
        id=2,
        name=PLAYS,
        feature_type="History",
        owner="o",
        keys=user_id,
        schemas=schemas,
        max_events=3,
    )
    ranker = Service(
        name="ranker-v1",
        owner="o",
        reads=(
            ServiceRead(feature_group=USERS, alias="me", keys={"user_id": "user_id"}),
            ServiceRead(feature_group=USERS, fields=("level",), keys={"user_id": "peer_id"}),
            ServiceRead(feature_group=PLAYS, keys={"user_id": "user_id"}, limit=1),
        ),
    )
    only = Service(
        name="only-v1",
        owner="o",
        reads=(ServiceRead(feature_group=USERS, keys={"user_id": "user_id"}),),
    )
    return CatalogDocument(
        generation=1, published_at_ms=NOW_MS, groups=(users, plays), services=(ranker, only)
    )


@pytest.fixture
def catalog() -> Catalog:
    return Catalog(encode_document(document()))


@pytest.fixture
def engine(catalog: Catalog) -> ReadEngine:
    engine = ReadEngine()
    engine.install(catalog)
    return engine


@pytest.fixture
def store(tmp_path: Path, catalog: Catalog) -> LmdbStore:
    store = LmdbStore(str(tmp_path / "online"), map_size_bytes=1 << 26)
    _write(store, catalog, USERS, 1, level=3, name="Ann")
    _write(store, catalog, USERS, 2, name="Bob")
    _write(store, catalog, PLAYS, 1, level=5)
    return store


@pytest.fixture
def read(engine: ReadEngine, store: LmdbStore) -> Read:
    def call(body: dict[str, Any], accept: int = ACCEPT_ARROW) -> tuple[int, bytes]:
        response = engine.read(
            store,
            json.dumps(body).encode(),
            accept=accept,
            now_ms=NOW_MS,
            request_id=b"test-1",
            keep_alive=True,
        )
        head, _, answer = response.partition(b"\r\n\r\n")
        return int(head[9:12]), answer

    return call


def _command(group: str, user: int, **values: object) -> bytes:
    command = {
        "feature_name": group,
        "method": "APPEND" if group == PLAYS else "UPDATE",
        "keys": {"user_id": user},
        "values": {**values, "_last_updated_at_ms": NOW_MS - 1_000},
    }
    return json.dumps(command).encode()


def _write(store: LmdbStore, catalog: Catalog, group: str, user: int, **values: object) -> None:
    batch = encode_commands(catalog, [_command(group, user, **values)], now_ms=NOW_MS)
    assert batch.rejections == []
    store.apply(batch, catalog, now_ms=NOW_MS)


def _of(group: str, *users: int) -> dict[str, Any]:
    return {"feature_group": group, "keys": {"user_id": list(users)}}


def _table(answer: tuple[int, bytes]) -> Any:
    status, body = answer
    assert status == 200, body
    table: Any = pa.ipc.open_stream(body).read_all()
    table.validate(full=True)
    return table


def test_columns_are_keys_fields_event_time_and_statuses(read: Read) -> None:
    table = _table(read({"reads": [_of(USERS, 2, 1, 3, 1)]}))
    assert table.drop_columns("_event_time").to_pydict() == {
        "user_id": [2, 1, 3, 1],
        "level": [7, 3, 7, 3],
        "name": ["Bob", "Ann", "NONE", "Ann"],
        "_status": ["DEFAULTED", "OK", "MISSING", "OK"],
        "_field_status": [[1, 0], [0, 0], [4, 4], [0, 0]],
    }
    times = table["_event_time"].cast(pa.int64()).to_pylist()
    assert times == [NOW_MS - 1_000, NOW_MS - 1_000, None, NOW_MS - 1_000]


def test_fields_come_in_the_order_asked_for_and_no_others(read: Read) -> None:
    table = _table(read({"reads": [_of(USERS, 1) | {"fields": ["name"]}]}))
    assert table.column_names == ["user_id", "name", "_event_time", "_status", "_field_status"]


def test_nulls_stand_for_what_was_never_written_when_asked_for(read: Read) -> None:
    table = _table(read({"reads": [_of(USERS, 2, 3)], "missing": "null"}))
    assert table["level"].to_pylist() == [None, None]
    assert table["name"].to_pylist() == ["Bob", None]
    assert table["_status"].to_pylist() == ["DEFAULTED", "MISSING"]


def test_a_read_of_one_key_stands_in_every_row_beside_a_read_of_many(read: Read) -> None:
    table = _table(read({"service": "ranker-v1", "keys": {"user_id": [1], "peer_id": [2, 1, 3]}}))
    assert table["me.user_id"].to_pylist() == [1, 1, 1]
    assert table["me.name"].to_pylist() == ["Ann", "Ann", "Ann"]
    assert table[f"{USERS}.user_id"].to_pylist() == [2, 1, 3]
    assert table[f"{USERS}.level"].to_pylist() == [7, 3, 7]
    events = table[f"{PLAYS}._events"].to_pylist()
    assert [[(event["level"], event["name"]) for event in row] for row in events] == [
        [(5, "NONE")]
    ] * 3
    assert table[f"{PLAYS}._field_status"].to_pylist() == [[0, 0]] * 3


def test_a_read_of_one_key_beside_reads_of_none_stands_nowhere(read: Read) -> None:
    table = _table(read({"reads": [_of(USERS, 1), _of(PLAYS)]}))
    assert table.num_rows == 0


def test_columns_of_a_service_are_named_after_their_read_even_when_it_is_the_only_one(
    read: Read,
) -> None:
    table = _table(read({"service": "only-v1", "keys": {"user_id": [1]}}))
    assert table.column_names[:3] == [f"{USERS}.user_id", f"{USERS}.level", f"{USERS}.name"]


def test_a_group_read_twice_is_numbered_so_that_no_two_columns_share_a_name(read: Read) -> None:
    table = _table(read({"reads": [_of(USERS, 1), _of(USERS, 2)]}))
    assert table[f"{USERS}.name"].to_pylist() == ["Ann"]
    assert table[f"{USERS}#2.name"].to_pylist() == ["Bob"]
    assert len(set(table.column_names)) == len(table.column_names)
    prefixes = [one["prefix"] for one in json.loads(table.schema.metadata[b"headrace.results"])]
    assert prefixes == [f"{USERS}.", f"{USERS}#2."]


def test_reads_that_make_no_table_are_refused(read: Read) -> None:
    status, body = read({"reads": [_of(USERS, 1, 2), _of(PLAYS, 1, 2, 3)]})
    problem = json.loads(body)
    assert (status, problem["code"], problem["path"]) == (400, "ARROW_ONE_TABLE", "reads")
    assert "2, 3" in problem["detail"]


def test_an_answer_that_repeats_a_long_row_too_often_is_refused(
    read: Read, store: LmdbStore, catalog: Catalog
) -> None:
    _write(store, catalog, USERS, 9, name="x" * 600_000)
    body = {"reads": [_of(USERS, 9), _of(PLAYS, *range(1_000))]}
    status, answer = read(body)
    assert (status, json.loads(answer)["code"]) == (400, "ANSWER_TOO_LARGE")
    assert read(body, ACCEPT_JSON)[0] == 200


def test_a_late_answer_has_the_bytes_of_an_answer_at_once(
    engine: ReadEngine, store: LmdbStore, read: Read, catalog: Catalog
) -> None:
    """Cells fetched one by one, as from a networked store, end in the same stream."""
    body = {"reads": [_of(USERS, 1, 3, 2)]}
    reads = CachedReads(engine, Placement(["none"], epoch=1))
    pending = reads.submit(
        json.dumps(body).encode(),
        caller=1,
        accept=ACCEPT_ARROW,
        now_ms=NOW_MS,
        request_id=b"test-1",
        keep_alive=True,
    )
    assert isinstance(pending, PendingRead)
    ann = _command(USERS, 1, level=3, name="Ann")
    for slot, command in ((0, ann), (2, _command(USERS, 2, name="Bob"))):
        mutations = encode_commands(catalog, [command], now_ms=NOW_MS).mutations()
        cells = [(mutation.field_id, mutation.cell) for mutation in mutations]
        assert pending.take_cells(slot, cells, NOW_MS) is not None
    assert pending.take_cells(1, [], NOW_MS) is not None
    assert pending.finish().partition(b"\r\n\r\n")[2] == read(body)[1]


def test_a_row_that_cannot_be_told_is_null_never_a_default(engine: ReadEngine) -> None:
    reads = CachedReads(engine, Placement(["none"], epoch=1))
    pending = reads.submit(
        json.dumps({"reads": [_of(USERS, 1, 2)]}).encode(),
        caller=1,
        accept=ACCEPT_ARROW,
        now_ms=NOW_MS,
        request_id=b"test-1",
        keep_alive=True,
    )
    assert isinstance(pending, PendingRead)
    pending.take_cells(0, [], NOW_MS)
    table = _table((200, pending.finish().partition(b"\r\n\r\n")[2]))
    assert table["level"].to_pylist() == [7, None]
    assert table["_status"].to_pylist() == ["MISSING", "UNAVAILABLE"]

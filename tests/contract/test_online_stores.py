"""What every online store promises, port by port, over every adapter.

A further adapter is one more entry of `ENGINES`: an async context manager of an `OnlineEngine`.
Numbers in docstrings are those of the rules of order, fold and expiry.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest

from headrace.cli.scylla import ScyllaEngine
from headrace.codec import Catalog, LmdbStore, encode_commands
from headrace.gateway.stores.lmdb import LmdbCatalogReader
from headrace.gateway.stores.memory import MemoryCatalogReader
from headrace.loadtest.servers import Server
from headrace.registry.catalog import (
    CatalogDocument,
    Group,
    KeyField,
    Schema,
    ValueField,
    encode_document,
)
from headrace.registry.cql import CATALOG, STATE
from headrace.registry.physical import table_name
from headrace.registry.ports import CatalogReader, CatalogWriter, TableAdmin
from headrace.sync.ports import MergedRecordReader, OnlineWriter, SyncStateStore
from headrace.sync.stores import lmdb, memory

NOW_MS = 1_700_000_000_000
T = NOW_MS - 600_000
TTL_MS = 3_600_000
HOSTS = "live::host-stat-v1"
BRIEF = "live::brief-v1"
PLAYS = "live::plays"


class ReadHistory(Protocol):
    """Newest events first, one list per key: (event time in ms, value fields)."""

    async def __call__(
        self, catalog: Catalog, keys: Sequence[bytes], *, limit: int, now_ms: int
    ) -> list[list[tuple[int, dict[str, object]]]]: ...


class OnlineEngine(NamedTuple):
    """One engine behind its ports."""

    writer: OnlineWriter
    merged: MergedRecordReader
    history: ReadHistory
    tables: TableAdmin
    catalog_writer: CatalogWriter
    catalog_reader: CatalogReader
    state: SyncStateStore


@asynccontextmanager
async def _memory(_request: pytest.FixtureRequest, _folder: Path) -> AsyncGenerator[OnlineEngine]:
    store = memory.MemoryOnlineStore()

    async def history(
        catalog: Catalog, keys: Sequence[bytes], *, limit: int, now_ms: int
    ) -> list[list[tuple[int, dict[str, object]]]]:
        return store.fetch_history(catalog, keys, limit=limit, now_ms=now_ms)

    yield OnlineEngine(
        writer=memory.MemoryOnlineWriter(store),
        merged=memory.MemoryMergedRecords(store),
        history=history,
        tables=memory.MemoryTableAdmin(),
        catalog_writer=memory.MemoryCatalogWriter(store),
        catalog_reader=MemoryCatalogReader(store.named),
        state=memory.MemorySyncState(store),
    )


@asynccontextmanager
async def _lmdb(_request: pytest.FixtureRequest, folder: Path) -> AsyncGenerator[OnlineEngine]:
    store = LmdbStore(str(folder / "online"), map_size_bytes=1 << 20)

    async def history(
        catalog: Catalog, keys: Sequence[bytes], *, limit: int, now_ms: int
    ) -> list[list[tuple[int, dict[str, object]]]]:
        return store.fetch_history(catalog, keys, limit=limit, now_ms=now_ms)

    yield OnlineEngine(
        writer=lmdb.LmdbOnlineWriter(store),
        merged=lmdb.LmdbMergedRecords(store),
        history=history,
        tables=lmdb.LmdbTableAdmin(store),
        catalog_writer=lmdb.LmdbCatalogWriter(store),
        catalog_reader=LmdbCatalogReader(store),
        state=lmdb.LmdbSyncState(store),
    )
    store.close()


KEYSPACE = "online_stores"


@asynccontextmanager
async def _scylla(request: pytest.FixtureRequest, _folder: Path) -> AsyncGenerator[OnlineEngine]:
    server: Server = request.getfixturevalue("cassandra_server")
    url = f"scylla://{server.host}:{server.port}/{KEYSPACE}?replication=1"
    engine = await ScyllaEngine.open(url, create=True)
    groups = {group.name: group for group in _document(2).groups}
    inspector = engine.inspector()

    async def history(
        catalog: Catalog, keys: Sequence[bytes], *, limit: int, now_ms: int
    ) -> list[list[tuple[int, dict[str, object]]]]:
        group = groups[PLAYS]
        looks = (
            inspector.inspect(catalog, group, key, events_max=limit, now_ms=now_ms) for key in keys
        )
        return [list(found.events) for found in await asyncio.gather(*looks)]

    yield OnlineEngine(
        writer=engine.writer(),
        merged=engine.merged_records(),
        history=history,
        tables=engine.table_admin(),
        catalog_writer=engine.catalog_writer(),
        catalog_reader=engine.catalog_reader(),
        state=engine.sync_state(),
    )
    # One keyspace for all: a table is made much slower than it is emptied.
    tables = [CATALOG, STATE, *map(table_name, groups)]
    await asyncio.gather(
        *(engine.session.query(f"TRUNCATE {KEYSPACE}.{table}") for table in tables)
    )
    await engine.close()


Engine = Callable[[pytest.FixtureRequest, Path], AbstractAsyncContextManager[OnlineEngine]]
ENGINES: dict[str, Engine] = {"memory": _memory, "lmdb": _lmdb, "scylla": _scylla}

LEVEL = ValueField(id=1, name="level", type="Long", default=0)
COUNTRY = ValueField(id=2, name="country", type="Text", default="XX")
SCORE = ValueField(id=3, name="score", type="Double", nullable=True)


def _document(generation: int, *, ttl_ms: int = TTL_MS) -> CatalogDocument:
    """Generation 1 has two fields; later ones add a third."""
    first = Schema(ordinal=1, fields=(LEVEL, COUNTRY))
    second = Schema(ordinal=2, fields=(LEVEL, COUNTRY, SCORE))
    schemas = (first,) if generation == 1 else (first, second)
    user = (KeyField(name="user_id", type="Long"),)
    room = (KeyField(name="room", type="Text"), KeyField(name="seat", type="Integer"))
    groups = (
        Group(id=1, name=HOSTS, feature_type="Object", owner="o", keys=user, schemas=schemas),
        Group(
            id=2,
            name=BRIEF,
            feature_type="Object",
            owner="o",
            keys=user,
            schemas=schemas,
            ttl_ms=ttl_ms,
        ),
        Group(
            id=3,
            name=PLAYS,
            feature_type="History",
            owner="o",
            keys=room,
            schemas=schemas,
            ttl_ms=ttl_ms,
            max_events=5,
        ),
    )
    return CatalogDocument(
        generation=generation, published_at_ms=NOW_MS, groups=groups, next_group_id=4
    )


def _catalog(generation: int = 2, *, ttl_ms: int = TTL_MS) -> Catalog:
    return Catalog(encode_document(_document(generation, ttl_ms=ttl_ms)))


def _command(
    method: str, group: str, keys: dict[str, object], at_ms: int, values: dict[str, object]
) -> bytes:
    body = {"feature_name": group, "method": method, "keys": keys}
    return json.dumps(body | {"values": values | {"_last_updated_at_ms": at_ms}}).encode()


def update(at_ms: int, *, user: int = 7, group: str = HOSTS, **values: object) -> bytes:
    return _command("UPDATE", group, {"user_id": user}, at_ms, values)


def delete(at_ms: int, *, user: int = 7, group: str = HOSTS) -> bytes:
    return _command("DELETE", group, {"user_id": user}, at_ms, {})


def append(at_ms: int, *, room: str = "r", **values: object) -> bytes:
    return _command("APPEND", PLAYS, {"room": room, "seat": -1}, at_ms, values)


def delete_plays(at_ms: int, *, room: str = "r") -> bytes:
    return _command("DELETE", PLAYS, {"room": room, "seat": -1}, at_ms, {})


@pytest.fixture(params=list(ENGINES.values()), ids=list(ENGINES))
async def online(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OnlineEngine]:
    engine: Engine = request.param
    async with engine(request, tmp_path) as opened:
        await opened.tables.create(_document(2).groups)
        yield opened


async def store(online: OnlineEngine, *commands: bytes, catalog: Catalog | None = None) -> None:
    """One batch, in which no command may be refused."""
    catalog = catalog or _catalog()
    batch = encode_commands(catalog, commands, now_ms=NOW_MS)
    assert [rejection.message for rejection in batch.rejections] == []
    await online.writer.store(batch, catalog, now_ms=NOW_MS)


async def read(
    online: OnlineEngine,
    *,
    user: int = 7,
    group: str = HOSTS,
    now_ms: int = NOW_MS,
    catalog: Catalog | None = None,
) -> tuple[int, dict[str, object]] | None:
    """Newest event time and values of one row."""
    catalog = catalog or _catalog()
    key = catalog.encode_key(group, {"user_id": user})
    [record] = await online.merged.fetch(catalog, [key], now_ms=now_ms)
    return None if record is None else (record.newest_event_time_ms, record.values)


async def plays(
    online: OnlineEngine, *, room: str = "r", limit: int = 5, now_ms: int = NOW_MS
) -> list[tuple[int, dict[str, object]]]:
    catalog = _catalog()
    key = catalog.encode_key(PLAYS, {"room": room, "seat": -1})
    [events] = await online.history(catalog, [key], limit=limit, now_ms=now_ms)
    return events


def row(level: int, country: str, score: float | None = None) -> dict[str, object]:
    return {"level": level, "country": country, "score": score}


async def test_a_record_is_read_as_it_was_written(online: OnlineEngine) -> None:
    await store(online, update(T, level=3, country="KR", score=0.5))
    assert await read(online) == (T, row(3, "KR", 0.5))


async def test_a_row_that_was_never_written_is_none(online: OnlineEngine) -> None:
    await store(online, update(T, level=3))
    assert await read(online, user=8) is None


async def test_rows_answer_in_request_order_with_duplicates(online: OnlineEngine) -> None:
    await store(online, *(update(T, user=user, level=user) for user in (1, 2, 3)))
    catalog = _catalog()
    users = [3, 1, 9, 3, 2]
    keys = [catalog.encode_key(HOSTS, {"user_id": user}) for user in users]
    records = await online.merged.fetch(catalog, keys, now_ms=NOW_MS)
    levels = [record and record.values["level"] for record in records]
    assert levels == [3, 1, None, 3, 2]


async def test_a_field_that_was_never_written_answers_its_default(online: OnlineEngine) -> None:
    await store(online, update(T, country="KR"))
    assert await read(online) == (T, row(0, "KR"))


@pytest.mark.parametrize("turned", [False, True], ids=["in order", "turned"])
async def test_a_partial_update_leaves_other_fields_alone(
    online: OnlineEngine, turned: bool
) -> None:
    """(2) Each field keeps its newest value whatever the arrival order."""
    told = [update(T, level=1, country="KR", score=1.0), update(T + 1, level=2)]
    for command in reversed(told) if turned else told:
        await store(online, command)
    assert await read(online) == (T + 1, row(2, "KR", 1.0))


async def test_two_producers_may_own_different_fields(online: OnlineEngine) -> None:
    await store(online, update(T, level=1))
    await store(online, update(T - 5, country="JP"))
    assert await read(online) == (T, row(1, "JP"))


async def test_an_explicit_null_is_a_value(online: OnlineEngine) -> None:
    """(2) A field omitted is untouched; null is written like any value."""
    await store(online, update(T, level=1, country="KR", score=2.0))
    await store(online, update(T + 1, score=None))
    assert await read(online) == (T + 1, row(1, "KR"))


async def test_a_late_older_write_changes_nothing(online: OnlineEngine) -> None:
    await store(online, update(T, level=5, country="KR", score=1.0))
    await store(online, update(T - 1, level=4, country="JP", score=0.0))
    assert await read(online) == (T, row(5, "KR", 1.0))


async def test_equal_event_times_end_alike_in_either_order(online: OnlineEngine) -> None:
    """(1) The tie is in the number: a digest of the content."""
    await store(online, update(T, user=1, level=1), update(T, user=2, level=2))
    await store(online, update(T, user=1, level=2), update(T, user=2, level=1))
    assert await read(online, user=1) == await read(online, user=2)


async def test_of_equal_write_timestamps_the_larger_cell_stands(online: OnlineEngine) -> None:
    """(1) In every store alike: compared as a wide-column store compares its blobs.

    There are 999 ties, so that of 1,000 values at one event time two share a write timestamp.
    """
    catalog = _catalog()
    told = encode_commands(
        catalog, [update(T, level=level) for level in range(1000)], now_ms=NOW_MS
    )
    by_stamp: dict[int, list[tuple[bytes, int]]] = {}
    for level, mutation in enumerate(told.mutations()):
        by_stamp.setdefault(mutation.write_timestamp, []).append((mutation.cell, level))
    pair = sorted(next(cells for cells in by_stamp.values() if len(cells) > 1)[:2])
    smaller, larger = (level for _, level in pair)
    await store(online, update(T, user=1, level=smaller), update(T, user=2, level=larger))
    await store(online, update(T, user=1, level=larger), update(T, user=2, level=smaller))
    expected = (T, row(larger, "XX"))
    assert [await read(online, user=user) for user in (1, 2)] == [expected, expected]


async def test_replaying_everything_changes_nothing(online: OnlineEngine) -> None:
    told = [
        update(T, level=1, country="KR", score=1.0),
        update(T + 1, level=2),
        delete(T - 1),
        append(T, level=1),
        delete_plays(T - 1),
    ]
    await store(online, *told)
    before = await read(online), await plays(online)
    await store(online, *reversed(told))
    await store(online, *told)
    assert (await read(online), await plays(online)) == before


async def test_a_delete_removes_what_is_not_newer(online: OnlineEngine) -> None:
    """(4) Event times up to the delete's own, in ms, the same millisecond included."""
    await store(online, update(T, level=1, country="KR", score=1.0), update(T + 1, level=2))
    await store(online, delete(T))
    assert await read(online) == (T + 1, row(2, "XX"))


async def test_a_deleted_row_is_gone_and_older_writes_stay_away(online: OnlineEngine) -> None:
    await store(online, update(T, level=1))
    await store(online, delete(T))
    await store(online, update(T, level=9), update(T - 5, country="KR"))
    assert await read(online) is None


async def test_a_delete_that_comes_first_takes_what_comes_later(online: OnlineEngine) -> None:
    await store(online, delete(T))
    await store(online, update(T - 1, level=1), update(T + 1, country="JP"))
    assert await read(online) == (T + 1, row(0, "JP"))


async def test_a_row_vanishes_at_its_event_time_plus_ttl(online: OnlineEngine) -> None:
    """(3) Counted from the event time, not from the arrival."""
    await store(online, update(T, group=BRIEF, level=1))
    await store(online, update(T, group=HOSTS, level=1))
    last_ms = T + TTL_MS - 1
    assert await read(online, group=BRIEF, now_ms=last_ms) == (T, row(1, "XX"))
    assert await read(online, group=BRIEF, now_ms=last_ms + 1) is None
    assert await read(online, group=HOSTS, now_ms=last_ms + 1) == (T, row(1, "XX"))


async def test_fields_expire_one_by_one(online: OnlineEngine) -> None:
    await store(online, update(T, group=BRIEF, level=1, country="KR", score=1.0))
    await store(online, update(T + 1000, group=BRIEF, level=2))
    assert await read(online, group=BRIEF, now_ms=T + TTL_MS) == (T + 1000, row(2, "XX"))


async def test_a_shorter_ttl_works_at_once(online: OnlineEngine) -> None:
    """(3) Readers go by the current generation's ttl."""
    await store(online, update(T, group=BRIEF, level=1))
    shorter = _catalog(ttl_ms=NOW_MS - T)
    assert await read(online, group=BRIEF) is not None
    assert await read(online, group=BRIEF, catalog=shorter) is None


async def test_a_record_of_an_older_schema_lets_newer_fields_stand(online: OnlineEngine) -> None:
    """(2) A record cell speaks only for the fields its writer's schema has."""
    await store(online, update(T, score=4.0))
    await store(online, update(T + 1, level=1, country="KR"), catalog=_catalog(1))
    assert await read(online) == (T + 1, row(1, "KR", 4.0))


async def test_a_batch_may_hold_many_rows_of_many_groups(online: OnlineEngine) -> None:
    users = range(300)
    await store(
        online,
        *(update(T, user=user, level=user) for user in users),
        *(update(T, user=user, group=BRIEF, country=str(user)) for user in users),
        *(append(T + user, level=user) for user in users),
    )
    assert await read(online, user=299) == (T, row(299, "XX"))
    assert await read(online, user=0, group=BRIEF) == (T, row(0, "0"))
    assert [time_ms - T for time_ms, _ in await plays(online)] == [299, 298, 297, 296, 295]


async def test_an_empty_batch_is_no_error(online: OnlineEngine) -> None:
    await store(online)
    assert await read(online) is None


async def test_a_history_answers_its_newest_events_first(online: OnlineEngine) -> None:
    """(5) Omitted fields take their defaults at read."""
    for at in (3, 1, 2):
        await store(online, append(T + at, level=at))
    assert await plays(online, limit=2) == [(T + 3, row(3, "XX")), (T + 2, row(2, "XX"))]
    assert await plays(online, room="s") == []


async def test_one_event_twice_is_one_event(online: OnlineEngine) -> None:
    """(5) Under a newer schema too: the id is a digest of the fields that were named."""
    event = append(T, level=1, country="KR")
    await store(online, event, event, catalog=_catalog(1))
    await store(online, event, append(T, level=2, country="KR"))
    events = await plays(online)
    assert sorted(str(values["level"]) for _, values in events) == ["1", "2"]


async def test_a_history_forgets_what_was_deleted(online: OnlineEngine) -> None:
    await store(online, append(T, level=1), append(T + 1, level=2), append(T, room="s", level=3))
    await store(online, delete_plays(T))
    await store(online, append(T - 1, level=4))
    assert await plays(online) == [(T + 1, row(2, "XX"))]
    assert await plays(online, room="s") == [(T, row(3, "XX"))]


async def test_events_expire_one_by_one(online: OnlineEngine) -> None:
    await store(online, append(T, level=1), append(T + 1000, level=2))
    assert await plays(online, now_ms=T + TTL_MS) == [(T + 1000, row(2, "XX"))]


async def test_tables_may_be_created_again_with_rows_in_them(online: OnlineEngine) -> None:
    await store(online, update(T, level=1))
    await online.tables.create(_document(2).groups)
    assert await read(online) == (T, row(1, "XX"))


async def test_there_is_no_catalog_before_the_first(online: OnlineEngine) -> None:
    assert await online.catalog_reader.generation() == 0
    assert await online.catalog_reader.load() is None


async def test_a_published_catalog_is_the_live_one(online: OnlineEngine) -> None:
    for generation in (1, 2):
        assert await online.catalog_writer.publish(_document(generation)) is True
        assert await online.catalog_reader.generation() == generation
        assert await online.catalog_reader.load() == encode_document(_document(generation))


@pytest.mark.parametrize("generation", [1, 2, 4], ids=["older", "same", "one left out"])
async def test_a_catalog_that_does_not_follow_the_live_one_is_refused(
    online: OnlineEngine, generation: int
) -> None:
    """(21) Compare-and-set on the generation."""
    for published in (1, 2):
        await online.catalog_writer.publish(_document(published))
    assert await online.catalog_writer.publish(_document(generation, ttl_ms=1)) is False
    assert await online.catalog_reader.load() == encode_document(_document(2))


async def test_of_several_publishers_at_once_one_wins(online: OnlineEngine) -> None:
    rivals = [_document(1, ttl_ms=1000 + number) for number in range(8)]
    outcomes = await asyncio.gather(*map(online.catalog_writer.publish, rivals))
    assert sorted(outcomes) == [False] * 7 + [True]
    assert await online.catalog_reader.load() == encode_document(rivals[outcomes.index(True)])


@pytest.mark.parametrize("value", [b"", b"\x00\xff", b"v" * (3 << 20)], ids=["empty", "any", "3M"])
async def test_a_sync_state_is_kept_under_its_name(online: OnlineEngine, value: bytes) -> None:
    assert await online.state.get("sync/upsync/live::a") is None
    await online.state.put("sync/upsync/live::a", b"first")
    await online.state.put("sync/upsync/live::b", b"other")
    await online.state.put("sync/upsync/live::a", value)
    assert await online.state.get("sync/upsync/live::a") == value
    assert await online.state.get("sync/upsync/live::b") == b"other"

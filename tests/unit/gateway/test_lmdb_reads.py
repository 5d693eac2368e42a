"""The read engine over the embedded store, as the gateway holds it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headrace.codec import Catalog, LmdbStore, ReadEngine
from headrace.gateway.stores.lmdb_reads import LmdbInspector, LmdbReads
from headrace.loadtest import feature_data
from headrace.registry.catalog import Group, encode_document

NOW_MS = feature_data.EVENT_MS + 1_000


@pytest.fixture
def catalog() -> Catalog:
    return Catalog(encode_document(feature_data.catalog_document()))


def group_of(name: str) -> Group:
    return next(g for g in feature_data.catalog_document().groups if g.name == name)


@pytest.fixture
def store(tmp_path: Path, catalog: Catalog) -> LmdbStore:
    store = LmdbStore(str(tmp_path / "online"))
    feature_data.apply_commands(store, catalog, feature_data.sample(rows=3, histories=2))
    return store


def test_an_engine_reads_wherever_the_interpreter_put_it(
    store: LmdbStore, catalog: Catalog
) -> None:
    """Its search tables want more alignment than Python's allocator promises."""
    engines = [ReadEngine() for _ in range(64)]
    body = json.dumps(
        {"reads": [{"feature_group": feature_data.OBJECT, "keys": {"user_id": [1]}}]}
    ).encode()
    for engine in engines:
        reads = LmdbReads(engine, store)
        reads.install(catalog)
        for accept in (0, 1):
            response = reads.read(
                body, accept=accept, now_ms=NOW_MS, request_id=b"r-1", keep_alive=True
            )
            assert response.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_an_inspected_row_has_its_event_times(store: LmdbStore, catalog: Catalog) -> None:
    inspector = LmdbInspector(store)
    key = catalog.encode_key(feature_data.OBJECT, {"user_id": 1})
    found = await inspector.inspect(
        catalog, group_of(feature_data.OBJECT), key, events_max=1, now_ms=NOW_MS
    )
    assert found.record is not None
    assert found.record.newest_event_time_ms == feature_data.EVENT_MS
    absent = catalog.encode_key(feature_data.OBJECT, {"user_id": 99})
    missed = await inspector.inspect(
        catalog, group_of(feature_data.OBJECT), absent, events_max=1, now_ms=NOW_MS
    )
    assert missed.record is None


async def test_an_inspected_history_has_its_newest_events(
    store: LmdbStore, catalog: Catalog
) -> None:
    key = catalog.encode_key(feature_data.HISTORY, {"user_id": 1})
    found = await LmdbInspector(store).inspect(
        catalog, group_of(feature_data.HISTORY), key, events_max=3, now_ms=NOW_MS
    )
    newest = feature_data.EVENT_MS + (feature_data.EVENTS - 1) * 60_000
    assert found.event_times_ms == (newest, newest - 60_000, newest - 120_000)

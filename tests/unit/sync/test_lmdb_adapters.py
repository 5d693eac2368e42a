"""What the embedded store's adapters add to its handle."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from headrace.codec import Catalog, LmdbStore, encode_commands
from headrace.registry.catalog import CatalogDocument, encode_document
from headrace.sync.errors import StoreUnavailable
from headrace.sync.stores import lmdb

NOW_MS = 1_700_000_000_000
DOCUMENT = CatalogDocument(generation=1, published_at_ms=NOW_MS)


async def test_a_store_that_cannot_be_used_is_a_retriable_error(tmp_path: Path) -> None:
    """The writer then waits and tries again; nothing is dead-lettered."""
    store = LmdbStore(str(tmp_path))
    store.close()
    catalog = Catalog(encode_document(DOCUMENT))
    batch = encode_commands(catalog, [], now_ms=NOW_MS)
    calls = {
        "store": lmdb.LmdbOnlineWriter(store).store(batch, catalog, now_ms=NOW_MS),
        "publish": lmdb.LmdbCatalogWriter(store).publish(DOCUMENT),
        "create": lmdb.LmdbTableAdmin(store).create([]),
        "fetch": lmdb.LmdbMergedRecords(store).fetch(catalog, [], now_ms=NOW_MS),
        "get": lmdb.LmdbSyncState(store).get("sync/a"),
        "put": lmdb.LmdbSyncState(store).put("sync/a", b""),
    }
    for name, call in calls.items():
        with pytest.raises(StoreUnavailable, match="closed") as refused:
            await call
        assert refused.value.retriable, name


async def test_the_event_loop_turns_while_a_write_waits_for_the_disk(tmp_path: Path) -> None:
    store = LmdbStore(str(tmp_path))
    write = asyncio.ensure_future(lmdb.LmdbSyncState(store).put("sync/a", b"v" * (8 << 20)))
    turns = 0
    while not write.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 3
    assert store.get("sync/a") == b"v" * (8 << 20)

"""Writing adapters of the embedded store, over the process' one handle (semantics 29)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

from headrace.codec import Catalog, CommandBatch, LmdbStore, StoreError
from headrace.registry.catalog import CatalogDocument, Group, encode_document
from headrace.registry.physical import CATALOG_DOCUMENT, CATALOG_GENERATION
from headrace.sync.errors import StoreUnavailable
from headrace.sync.ports import MergedRecord

P = ParamSpec("P")
T = TypeVar("T")


class LmdbOnlineWriter:
    """`OnlineWriter`: one transaction a batch, on a thread and with the interpreter released."""

    def __init__(self, store: LmdbStore) -> None:
        self._store = store

    async def store(self, batch: CommandBatch, catalog: Catalog, *, now_ms: int) -> None:
        """Write every mutation; on the disk when this returns; raises `StoreUnavailable`."""
        await _on_thread(self._store.apply, batch, catalog, now_ms=now_ms)


class LmdbCatalogWriter:
    """`CatalogWriter`: generation and document change in one transaction or not at all."""

    def __init__(self, store: LmdbStore) -> None:
        self._store = store

    async def publish(self, document: CatalogDocument) -> bool:
        """True when `document` is now the live generation; raises `StoreUnavailable`."""
        previous = document.generation - 1
        values = {
            CATALOG_GENERATION: b"%d" % document.generation,
            CATALOG_DOCUMENT: encode_document(document),
        }
        return await _on_thread(
            self._store.compare_and_put_all,
            CATALOG_GENERATION,
            b"%d" % previous if previous > 0 else None,
            values,
        )


class LmdbTableAdmin:
    """`TableAdmin`: one table holds every group, told apart by the group id that opens each key."""

    def __init__(self, store: LmdbStore) -> None:
        self._store = store

    async def create(self, groups: Sequence[Group]) -> None:
        """Nothing is to be made for a group; a store that cannot be read is still found here."""
        del groups
        await _on_thread(self._store.statistics)


class LmdbMergedRecords:
    """`MergedRecordReader`: the record as a gateway would answer it."""

    def __init__(self, store: LmdbStore) -> None:
        self._store = store

    async def fetch(
        self, catalog: Catalog, keys: Sequence[bytes], *, now_ms: int
    ) -> list[MergedRecord | None]:
        """One merged record per key; raises `StoreUnavailable`, `DecodeError` for damaged bytes."""
        rows = await _on_thread(self._store.fetch_object, catalog, keys, now_ms=now_ms)
        return [row and MergedRecord(row.newest_event_time_ms, row.values) for row in rows]


class LmdbSyncState:
    """`SyncStateStore` over the store's named values."""

    def __init__(self, store: LmdbStore) -> None:
        self._store = store

    async def get(self, name: str) -> bytes | None:
        """The value, None when it was never put."""
        return await _on_thread(self._store.get, name)

    async def put(self, name: str, value: bytes) -> None:
        """On the disk when this returns."""
        await _on_thread(self._store.put, name, value)


async def _on_thread(call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call the store off the event loop: a commit waits for the disk, and maybe for a writer."""
    try:
        return await asyncio.to_thread(call, *args, **kwargs)
    except StoreError as error:
        raise StoreUnavailable(str(error)) from error

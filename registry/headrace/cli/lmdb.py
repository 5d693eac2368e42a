"""`lmdb:FOLDER`: the process' one handle of the embedded store, and the ports over it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from headrace.registry.errors import OnlineStoreMissing

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from headrace.codec import LmdbStore
    from headrace.gateway.ports import RowInspector
    from headrace.registry.ports import CatalogReader, CatalogWriter, TableAdmin
    from headrace.sync.ports import MergedRecordReader, OnlineWriter, SyncStateStore


class LmdbEngine:
    """The embedded online store and all its ports over one handle (semantics 29)."""

    def __init__(self, store: LmdbStore) -> None:
        self.store = store

    @classmethod
    def open(cls, folder: Path, *, read_only: bool) -> LmdbEngine:
        """Open the store; a read-only one must exist, any other is made."""
        from headrace.codec import LmdbStore

        if not read_only:
            folder.mkdir(parents=True, exist_ok=True)
        elif not folder.is_dir():
            raise OnlineStoreMissing(
                f"`online: lmdb:{folder}` does not exist yet; `headrace apply` makes it"
            )
        return cls(LmdbStore(str(folder), read_only=read_only))

    def catalog_reader(self) -> CatalogReader:
        from headrace.gateway.stores.lmdb import LmdbCatalogReader

        return LmdbCatalogReader(self.store)

    def catalog_writer(self) -> CatalogWriter:
        from headrace.sync.stores.lmdb import LmdbCatalogWriter

        return LmdbCatalogWriter(self.store)

    def table_admin(self) -> TableAdmin:
        from headrace.sync.stores.lmdb import LmdbTableAdmin

        return LmdbTableAdmin(self.store)

    def inspector(self) -> RowInspector:
        from headrace.gateway.stores.lmdb_reads import LmdbInspector

        return LmdbInspector(self.store)

    def writer(self) -> OnlineWriter:
        from headrace.sync.stores.lmdb import LmdbOnlineWriter

        return LmdbOnlineWriter(self.store)

    def merged_records(self) -> MergedRecordReader:
        from headrace.sync.stores.lmdb import LmdbMergedRecords

        return LmdbMergedRecords(self.store)

    def sync_state(self) -> SyncStateStore:
        from headrace.sync.stores.lmdb import LmdbSyncState

        return LmdbSyncState(self.store)

    def collectors(self) -> tuple[Collector, ...]:
        """What this engine adds to a process's metrics: nothing, it has no driver."""
        return ()

    async def close(self) -> None:
        self.store.close()

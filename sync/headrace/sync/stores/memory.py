"""An online store in memory: the plainest reading of the rules, and a store for tests.

It keeps every cell that ever came and lets `Catalog.fold_object` decide at reading, so nothing here
resolves, trims or collects. It ends with the process.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import msgspec

from headrace.codec import Catalog, CommandBatch, FoldedRecord, Mutation
from headrace.registry.catalog import CatalogDocument, Group, encode_document
from headrace.registry.physical import CATALOG_DOCUMENT, CATALOG_GENERATION
from headrace.sync.ports import MergedRecord


class MemoryEvent(msgspec.Struct, frozen=True, order=True):
    """One event; of two under one id the larger stands."""

    write_timestamp: int
    cell: bytes
    expires_at_ms: float


class MemoryRow(msgspec.Struct):
    """What came for one key."""

    delete_timestamp: int | None = None
    cells: set[tuple[int, bytes]] = msgspec.field(default_factory=set)
    events: dict[tuple[int, int], MemoryEvent] = msgspec.field(default_factory=dict)
    """By (event time in ms, event id)."""


class MemoryOnlineStore:
    """Rows and named values, shared by the adapters below."""

    def __init__(self) -> None:
        self.rows: defaultdict[bytes, MemoryRow] = defaultdict(MemoryRow)
        self.named: dict[str, bytes] = {}

    def apply(self, batch: CommandBatch) -> None:
        for mutation in batch.mutations():
            _keep(self.rows[mutation.key], mutation)

    def fetch_object(
        self, catalog: Catalog, keys: Sequence[bytes], *, now_ms: int
    ) -> list[FoldedRecord | None]:
        """Folded records, one per key, None where no live cell is left."""
        return [self._fold(catalog, key, now_ms) for key in keys]

    def fetch_history(
        self, catalog: Catalog, keys: Sequence[bytes], *, limit: int, now_ms: int
    ) -> list[list[tuple[int, dict[str, object]]]]:
        """Newest events first, one list per key: (event time in ms, value fields)."""
        return [self._newest(catalog, key, now_ms)[:limit] for key in keys]

    def _fold(self, catalog: Catalog, key: bytes, now_ms: int) -> FoldedRecord | None:
        group, _ = catalog.decode_key(key)
        row = self.rows.get(key, MemoryRow())
        return catalog.fold_object(
            group, sorted(row.cells), delete_timestamp=row.delete_timestamp, now_ms=now_ms
        )

    def _newest(
        self, catalog: Catalog, key: bytes, now_ms: int
    ) -> list[tuple[int, dict[str, object]]]:
        group, _ = catalog.decode_key(key)
        row = self.rows.get(key, MemoryRow())
        floor = -1 if row.delete_timestamp is None else row.delete_timestamp
        return [
            catalog.decode_event(group, event.cell)
            for _, event in sorted(row.events.items(), reverse=True)
            if event.write_timestamp > floor and event.expires_at_ms > now_ms
        ]


class MemoryOnlineWriter:
    """`OnlineWriter` over memory."""

    def __init__(self, store: MemoryOnlineStore) -> None:
        self._store = store

    async def store(self, batch: CommandBatch, catalog: Catalog, *, now_ms: int) -> None:
        """Keep every mutation."""
        del catalog, now_ms
        self._store.apply(batch)


class MemoryCatalogWriter:
    """`CatalogWriter` over memory."""

    def __init__(self, store: MemoryOnlineStore) -> None:
        self._named = store.named

    async def publish(self, document: CatalogDocument) -> bool:
        """True when `document` is now the live generation."""
        if int(self._named.get(CATALOG_GENERATION, b"0")) != document.generation - 1:
            return False
        self._named[CATALOG_GENERATION] = b"%d" % document.generation
        self._named[CATALOG_DOCUMENT] = encode_document(document)
        return True


class MemoryTableAdmin:
    """`TableAdmin` over memory, where a row comes with its first write."""

    async def create(self, groups: Sequence[Group]) -> None:
        """Nothing is to be made."""


class MemoryMergedRecords:
    """`MergedRecordReader` over memory."""

    def __init__(self, store: MemoryOnlineStore) -> None:
        self._store = store

    async def fetch(
        self, catalog: Catalog, keys: Sequence[bytes], *, now_ms: int
    ) -> list[MergedRecord | None]:
        """One merged record per key, None where no live cell is left."""
        rows = self._store.fetch_object(catalog, keys, now_ms=now_ms)
        return [row and MergedRecord(row.newest_event_time_ms, row.values) for row in rows]


class MemorySyncState:
    """`SyncStateStore` over memory."""

    def __init__(self, store: MemoryOnlineStore) -> None:
        self._named = store.named

    async def get(self, name: str) -> bytes | None:
        """The value, None when it was never put."""
        return self._named.get(name)

    async def put(self, name: str, value: bytes) -> None:
        """Kept until the process ends."""
        self._named[name] = value


def _keep(row: MemoryRow, mutation: Mutation) -> None:
    if mutation.kind in ("delete_row", "delete_history"):
        row.delete_timestamp = max(row.delete_timestamp or 0, mutation.write_timestamp)
    elif mutation.kind == "event":
        place = (mutation.event_time_ms, mutation.event_id)
        expires_at_ms = math.inf if mutation.expires_at_ms is None else mutation.expires_at_ms
        came = MemoryEvent(mutation.write_timestamp, mutation.cell, expires_at_ms)
        row.events[place] = max(came, row.events.get(place, came))
    else:
        row.cells.add((mutation.field_id, mutation.cell))

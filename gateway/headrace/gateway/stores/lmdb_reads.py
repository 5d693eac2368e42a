"""The read engine over the embedded store: one call into Rust a request (semantics 29)."""

from __future__ import annotations

from functools import partial

from headrace.codec import Catalog, LmdbStore, ReadEngine, StoreError
from headrace.gateway.errors import StoreUnavailable
from headrace.gateway.ports import Inspection
from headrace.registry.catalog import Group


class LmdbReads:
    """`ReadCall`: the engine with its store bound, without a Python frame between."""

    def __init__(self, engine: ReadEngine, store: LmdbStore) -> None:
        self.read = partial(engine.read, store)
        self.install = engine.install
        self.counters = engine.counters


class LmdbInspector:
    """`RowInspector` over the process' one store handle."""

    tier = "lmdb"

    def __init__(self, store: LmdbStore) -> None:
        self._store = store

    async def inspect(
        self, catalog: Catalog, group: Group, key: bytes, *, events_max: int, now_ms: int
    ) -> Inspection:
        """The folded record, or the newest events; raises `StoreUnavailable`."""
        try:
            if group.feature_type == "Object":
                return Inspection(self._store.fetch_object(catalog, [key], now_ms=now_ms)[0])
            events = self._store.fetch_history(catalog, [key], limit=events_max, now_ms=now_ms)
        except StoreError as error:
            raise StoreUnavailable(f"the store cannot be read: {error}") from None
        return Inspection(None, tuple(events[0]))

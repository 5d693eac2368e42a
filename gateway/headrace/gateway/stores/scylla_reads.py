"""One row of ScyllaDB looked at past every cache, for `explain` and `get`."""

from __future__ import annotations

from headrace.codec import Catalog, DecodeError
from headrace.gateway.errors import StoreUnavailable
from headrace.gateway.ports import Inspection, RowReader, Unreachable
from headrace.registry.catalog import Group

INSPECTION_LIMIT_MS = 2_000


class ScyllaInspector:
    """`RowInspector` over the same row reader that reads use."""

    tier = "scylla"

    def __init__(self, rows: RowReader) -> None:
        self._rows = rows

    async def inspect(
        self, catalog: Catalog, group: Group, key: bytes, *, events_max: int, now_ms: int
    ) -> Inspection:
        """The folded record, or the newest live events; raises `StoreUnavailable`."""
        is_history = group.feature_type == "History"
        wanted = [(key, events_max if is_history else None)]
        [found] = await self._rows.fetch(catalog, wanted, limit_ms=INSPECTION_LIMIT_MS)
        if isinstance(found, Unreachable):
            raise StoreUnavailable(f"the store cannot be read: {found.reason}")
        try:
            if not is_history:
                record = catalog.fold_object(
                    group.name, found.cells, delete_timestamp=None, now_ms=now_ms
                )
                return Inspection(record, cells=found.cells)
            events = [catalog.decode_event(group.name, cell) for _, cell in found.cells]
        except DecodeError as error:
            raise StoreUnavailable(f"the row is damaged: {error}") from None
        live = [event for event in events if _is_live(group, event[0], now_ms)]
        return Inspection(None, tuple(live), found.cells)


def _is_live(group: Group, event_time_ms: int, now_ms: int) -> bool:
    """Semantics 3: every reader decides by the current ttl."""
    return group.ttl_ms is None or event_time_ms + group.ttl_ms > now_ms

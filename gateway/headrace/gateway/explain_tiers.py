"""What the tiers before the store hold of one key, set against what the store holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from headrace.codec import CachedReads, Catalog, PendingRead, Placement, ReadEngine, StaleCatalog
from headrace.gateway.ports import ACCEPT_JSON, HeldBlock
from headrace.gateway.wire import TierShape
from headrace.registry.catalog import Group

FLAGS, NEWEST, OLDEST = slice(1, 2), slice(14, 22), slice(22, 30)
"""Of a block (semantics 7)."""
ABSENT = b"\x01"

Cells = list[tuple[int, bytes]]


def tier_shapes(
    catalog: Catalog,
    group: Group,
    keys: Mapping[str, int | str],
    held: Sequence[HeldBlock],
    cells: Cells | None,
    now_ms: int,
) -> tuple[TierShape, ...]:
    """One shape per tier; `cells` are the store's, None when they are not known."""
    request = OneRow(catalog, group, keys, now_ms)
    stored = None if cells is None else request.block_of(cells)
    return tuple(_shape(request, each, stored, now_ms) for each in held)


class OneRow:
    """A read of one row, made anew for each question: as a gateway would use and fill a block."""

    def __init__(
        self, catalog: Catalog, group: Group, keys: Mapping[str, int | str], now_ms: int
    ) -> None:
        columns = {name: [value] for name, value in keys.items()}
        reads = [{"feature_group": group.name, "keys": columns}]
        self._body = msgspec.json.encode({"reads": reads})
        self._now_ms = now_ms
        engine = ReadEngine()
        engine.install(catalog)
        # No node of it is ever up: the row is for the store, so that it can be told here.
        self._reads = CachedReads(engine, Placement(["none"], epoch=1))

    def block_of(self, cells: Cells) -> bytes | None:
        """The block that these cells would fill a cache with now; None for damaged ones."""
        try:
            made = self._pending().take_cells(0, cells, self._now_ms)
        except StaleCatalog:
            return None
        return None if made is None else made[0]

    def can_use(self, block: bytes) -> bool:
        """Whether a read would be answered from this block now."""
        return self._pending().take_block(0, block, self._now_ms)

    def _pending(self) -> PendingRead:
        outcome = self._reads.submit(
            self._body,
            caller=None,
            accept=ACCEPT_JSON,
            now_ms=self._now_ms,
            request_id=b"explain",
            keep_alive=True,
        )
        if not isinstance(outcome, PendingRead):
            raise TypeError(f"a read of one row gave {type(outcome).__name__}; expected it pending")
        return outcome


def _shape(request: OneRow, held: HeldBlock, stored: bytes | None, now_ms: int) -> TierShape:
    block = held.block
    usable = block is not None and request.can_use(block)
    newest = oldest = None
    if block is None:
        holds = "nothing" if held.problem is None else "unreachable"
    elif not usable:
        holds = "unusable bytes"
    elif block[FLAGS] == ABSENT:
        holds = "absent row"
    else:
        holds = "row"
        newest, oldest = _time_ms(block[NEWEST]), _time_ms(block[OLDEST])
    return TierShape(
        tier=held.tier,
        node=held.node,
        holds=holds,
        reason=held.problem,
        newest_event_time_ms=newest,
        oldest_event_time_ms=oldest,
        age_ms=None if newest is None else now_ms - newest,
        expires_in_ms=held.life_ms,
        lease=held.lease,
        equals_store=None if block is None or stored is None else block == stored,
    )


def _time_ms(field: bytes) -> int:
    return int.from_bytes(field, "little", signed=True)

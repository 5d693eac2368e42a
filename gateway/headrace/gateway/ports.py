"""Ports of the reading side: what the application asks of the world, in domain types."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from headrace.codec import CachedReads, Catalog, FoldedRecord, LmdbStore, ReadEngine
from headrace.registry.catalog import Group

Clock = Callable[[], int]
"""Milliseconds since the epoch."""

ACCEPT_JSON = 0
ACCEPT_AVRO = 1
ACCEPT_FEAST = 2
"""Feast's request and answer; not negotiated, the path says it."""
ACCEPT_ARROW = 3

CODED_GZIP = 16
CODED_ZSTD = 32
"""Added to one of the above: how the answer is coded on the wire, if that makes it shorter."""


class ReadCall(Protocol):
    """One request answered: body bytes in, a whole HTTP/1.1 response out, head included.

    A caller's mistake is a finished problem response. Raises `headrace.codec.StaleCatalog` when a
    stored row is of a newer catalog than the one in force, unless `reloaded`.
    """

    def __call__(
        self,
        body: bytes,
        *,
        accept: int,
        now_ms: int,
        request_id: bytes,
        keep_alive: bool,
        reloaded: bool = False,
    ) -> bytes: ...


class Reads(Protocol):
    """The read engine bound to its store."""

    @property
    def read(self) -> ReadCall: ...

    @property
    def install(self) -> Callable[[Catalog], None]:
        """Puts a catalog into force for every request that starts from then on."""
        ...

    @property
    def counters(self) -> Callable[[], dict[str, int]]:
        """Running totals since start, by name."""
        ...


class LateReads(Protocol):
    """Reads whose answers may come later, from a cache or a networked store."""

    observe: Callable[[int, bytes], None]
    """Called with nanoseconds and status (three digits) of every answer."""

    def start(
        self,
        body: bytes,
        accept: int,
        request_id: bytes,
        *,
        keep_alive: bool,
        deliver: Callable[[bytes], None],
    ) -> bytes | None:
        """The whole response, or None: then `deliver` is called with it, once, from the loop."""
        ...

    def counters(self) -> dict[str, int]:
        """Running totals since start, by name."""
        ...


DirectReads = CachedReads | tuple[ReadEngine, LmdbStore]
"""What the lane reads from without a Python frame between: the same reads as behind the ports."""

Event = tuple[int, dict[str, object]]
"""Event time in ms and the value fields."""


class Inspection(msgspec.Struct, frozen=True):
    """One key as the store holds it: a folded record, or the live events of a History."""

    record: FoldedRecord | None = None
    events: tuple[Event, ...] = ()
    """Newest first."""
    cells: list[tuple[int, bytes]] | None = None
    """As the store holds them, where caches may stand before it."""

    @property
    def event_times_ms(self) -> tuple[int, ...]:
        return tuple(at_ms for at_ms, _ in self.events)


class RowInspector(Protocol):
    """Looks at one key for `explain` and `get`; never on the read path."""

    @property
    def tier(self) -> str:
        """The word that names this tier in answers, such as `lmdb`."""
        ...

    async def inspect(
        self, catalog: Catalog, group: Group, key: bytes, *, events_max: int, now_ms: int
    ) -> Inspection:
        """The folded record of an Object, or up to `events_max` newest events of a History.

        Raises `StoreUnavailable`.
        """
        ...


class HeldBlock(msgspec.Struct, frozen=True, kw_only=True):
    """What one tier before the store holds of a key."""

    tier: str
    node: str | None = None
    block: bytes | None = None
    life_ms: int | None = None
    """Until the tier forgets the block; None when it does not by itself."""
    lease: str | None = None
    """Of a cache: `none`, `held` by a reader, or `observed` when others told it what they saw."""
    problem: str | None = None
    """Why the tier cannot be asked."""


class TierInspector(Protocol):
    """Looks at one key in the tiers before the store, for `explain`; never on the read path."""

    async def look(self, key: bytes) -> list[HeldBlock]:
        """One entry per tier, nearest first. Never raises."""
        ...


class PartState(msgspec.Struct, frozen=True):
    """One thing this process leans on; `problem` is None while it can be reached."""

    part: str
    problem: str | None


Parts = Callable[[], Sequence[PartState]]
"""How everything behind this process is right now, for /readyz and metrics (semantics 23)."""


def no_parts() -> Sequence[PartState]:
    """A process that leans on nothing."""
    return ()


class Cells(msgspec.Struct, frozen=True):
    """The cells of one row: (field id, cell), 0 for a record or an event; empty for no row."""

    cells: list[tuple[int, bytes]]


class Unreachable(msgspec.Struct, frozen=True):
    """Why a row could not be read. It is never a missing row."""

    reason: str


class RowReader(Protocol):
    """Rows of a networked online store, as cells that the codec folds."""

    async def fetch(
        self, catalog: Catalog, wanted: Sequence[tuple[bytes, int | None]], *, limit_ms: int
    ) -> list[Cells | Unreachable]:
        """One outcome per wanted (key, events); `events` is None for an Object. Never raises."""
        ...


class Appended(msgspec.Struct, frozen=True):
    """Where one accepted command stands on the log."""

    topic: str
    partition: int
    offset: int


class CommandAppender(Protocol):
    """The command log, as callers of `POST /v1/commands` reach it."""

    async def append(self, records: Sequence[tuple[bytes, bytes]]) -> Sequence[Appended | None]:
        """Append (key bytes, command bytes) in order, durably; raises `LogUnavailable`.

        None stands for a command that is larger than the log will ever take.
        """
        ...

"""Ports of the reading side: what the application asks of the world, in domain types."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from headrace.codec import Catalog

if TYPE_CHECKING:
    from headrace.codec._codec import FoldedRecord

Clock = Callable[[], int]
"""Milliseconds since the epoch."""

ACCEPT_JSON = 0
ACCEPT_AVRO = 1


class StaleCatalog(Exception):
    """A stored row was written under a newer catalog than the one in force (semantics 20)."""


class ReadCall(Protocol):
    """The read engine bound to its store: one call answers one request.

    `read` returns a whole HTTP/1.1 response, head included, and makes finished problem responses of
    the caller's mistakes. It raises `StaleCatalog` when the store holds rows of a newer catalog.
    """

    def install(self, catalog: Catalog) -> None:
        """Put a catalog into force for every request that starts from now on."""
        ...

    def read(
        self, body: bytes, *, accept: int, now_ms: int, request_id: bytes, keep_alive: bool
    ) -> bytes: ...

    def counters(self) -> dict[str, int]:
        """Running totals since start, by name."""
        ...


class Inspection(msgspec.Struct, frozen=True):
    """One key as the store holds it: a folded record, or the event times of a History."""

    record: FoldedRecord | None = None
    event_times_ms: tuple[int, ...] = ()


class RowInspector(Protocol):
    """Looks at one key for `explain`; never on the read path."""

    @property
    def tier(self) -> str:
        """The word that names this tier in answers, such as `lmdb`."""
        ...

    async def inspect(self, catalog: Catalog, group: str, key: bytes, *, now_ms: int) -> Inspection:
        """Raises `StoreUnavailable`."""
        ...


class Appended(msgspec.Struct, frozen=True):
    """Where one accepted command stands on the log."""

    topic: str
    partition: int
    offset: int


class CommandAppender(Protocol):
    """The command log, as callers of `POST /v1/commands` reach it."""

    async def append(self, records: Sequence[tuple[bytes, bytes]]) -> Sequence[Appended]:
        """Append (key bytes, command bytes) in order, durably; raises `LogUnavailable`."""
        ...

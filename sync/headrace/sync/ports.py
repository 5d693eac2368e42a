"""Ports of the writing side. Batched only; each has one contract suite that all adapters pass."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from headrace.codec import Catalog, CommandBatch

Topic = Literal["realtime", "bulk"]


class Coordinates(msgspec.Struct, frozen=True, order=True):
    """Where one command stands on the log."""

    topic: str
    partition: int
    offset: int


class LogRecord(msgspec.Struct, frozen=True):
    """One command on the log. `key` is the partition key, `value` the command's bytes."""

    coordinates: Coordinates
    key: bytes
    value: bytes
    appended_at_ms: int


class DeadLetter(msgspec.Struct, frozen=True):
    """A command that could not be applied: where it came from, why, and its original bytes."""

    source: Coordinates
    code: str
    message: str
    key: bytes
    value: bytes
    died_at_ms: int


class CommandProducer(Protocol):
    """Appends commands; when `append` returns they are durable."""

    async def append(
        self, topic: Topic, records: Sequence[tuple[bytes, bytes]]
    ) -> list[Coordinates]:
        """Append (partition key, command bytes) pairs in order; raises `LogUnavailable`."""
        ...

    async def close(self) -> None: ...


class CommandConsumer(Protocol):
    """One member of one consumer group on one topic."""

    async def poll(self, *, rows_max: int, wait_ms: int) -> list[LogRecord]:
        """Up to `rows_max` records after the position; empty when none came within `wait_ms`."""
        ...

    async def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Commit next offsets (last handled + 1) by (topic, partition)."""
        ...

    async def committed(self, group: str) -> dict[tuple[str, int], int]:
        """Committed next offsets of any consumer group on this consumer's topic."""
        ...

    async def lag(self) -> dict[tuple[str, int], int]:
        """Records between the committed offset and the end of the log."""
        ...

    async def close(self) -> None: ...


class DeadLetters(Protocol):
    """The dead-letter topic."""

    async def append(self, letters: Sequence[DeadLetter]) -> None: ...

    def read(self) -> AsyncIterator[tuple[Coordinates, DeadLetter]]:
        """All dead letters, oldest first, each with its own place on the dead-letter topic."""
        ...


class OnlineWriter(Protocol):
    """Writes cells. Resolves by write timestamp, so any order and any repetition converge."""

    async def store(self, batch: CommandBatch, catalog: Catalog, *, now_ms: int) -> None:
        """Write every mutation; durable when this returns; raises `StoreUnavailable`."""
        ...


class MergedRecord(msgspec.Struct, frozen=True):
    """A record as the online store serves it. `values` are decoded Python values."""

    newest_event_time_ms: int
    values: dict[str, object]


class MergedRecordReader(Protocol):
    """What downsync asks of the online store (never of the cache)."""

    async def fetch(
        self, catalog: Catalog, keys: Sequence[bytes], *, now_ms: int
    ) -> list[MergedRecord | None]:
        """One merged record per key, None where no live cell is left."""
        ...


class CacheInvalidator(Protocol):
    """Removes blocks and leases; the commit of an offset waits for it (semantics 18)."""

    async def invalidate(self, keys: Sequence[bytes]) -> None:
        """Raises `CacheUnavailable` when any node could not be reached."""
        ...


class SyncStateStore(Protocol):
    """Small named values that must survive a crash: run states, checkpoints."""

    async def get(self, name: str) -> bytes | None: ...

    async def put(self, name: str, value: bytes) -> None: ...

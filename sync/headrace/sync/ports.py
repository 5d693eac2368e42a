"""Ports of the writing side. Batched only; each has one contract suite that all adapters pass."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

if TYPE_CHECKING:
    from headrace.codec import Catalog, CommandBatch

Topic = Literal["realtime", "bulk"]

PartitionId = tuple[str, int]
"""(topic, partition)."""

COMMAND_BYTES_MAX = 4 * 1024 * 1024
"""The longest command that the codec reads."""

BATCH_BYTES_MAX = 8 * 1024 * 1024
"""Bytes of command values that one poll brings at most; bounds a reader's memory."""


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


UNREADABLE_LETTER = "UNREADABLE_LETTER"
"""Code of what lies among the dead letters and is none, as it came; its `source` is its place."""


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True):
    """A command that could not be applied: where it came from, why, and its original bytes.

    `command_bytes` is None for a whole command. Where the log does not take that many bytes at once
    it is their number, and `value` (and `key`) holds the first of them alone.
    """

    source: Coordinates
    code: str
    message: str
    key: bytes
    value: bytes
    died_at_ms: int
    command_bytes: int | None = None


class CommandProducer(Protocol):
    """Appends commands; when `append` returns they are durable."""

    async def append(
        self, topic: Topic, records: Sequence[tuple[bytes, bytes]]
    ) -> list[Coordinates]:
        """Append (partition key, command bytes) pairs in order; raises `LogUnavailable`.

        All of one call or nothing. Equal keys share a partition, so their order is kept.
        Raises `RecordTooLarge` once all are durable but those that the log will never take.
        """
        ...

    async def reach(self) -> None:
        """Return once the log answers; raises `LogUnavailable` when it does not within moments."""
        ...

    async def close(self) -> None: ...


class CommandConsumer(Protocol):
    """One member of one consumer group on one topic.

    The partitions of the topic are shared out among the group's live members. A member that calls
    neither `poll` nor `heartbeat` for longer than its session loses its partitions to the others,
    and whoever gets a partition starts at its committed offset: delivery is at least once.
    """

    async def poll(
        self, *, rows_max: int, wait_ms: int, bytes_max: int = BATCH_BYTES_MAX
    ) -> list[LogRecord]:
        """Up to `rows_max` records after the position; empty when none came within `wait_ms`.

        Ends early once the values reach `bytes_max` (a single larger record still comes, alone).
        Offsets ascend within a partition. Raises `LogUnavailable`; the position then stands still.
        """
        ...

    async def heartbeat(self) -> None:
        """Stay a member without taking records, for a reader that has to pause."""
        ...

    def assignment(self) -> frozenset[PartitionId]:
        """The (topic, partition) pairs that the last `poll` or `heartbeat` left to this member."""
        ...

    async def commit(self, offsets: Mapping[PartitionId, int]) -> None:
        """Durably commit next offsets (last handled + 1) by (topic, partition); never moves back.

        Raises `CommitRefused` when this member no longer holds one of the partitions (those it
        still holds may be committed all the same): their new holder replays from the last committed
        offset. Raises `LogUnavailable`.
        """
        ...

    async def committed(self, group: str) -> dict[PartitionId, int]:
        """Committed next offsets of any consumer group on this consumer's topic."""
        ...

    async def lag(self) -> dict[PartitionId, int]:
        """Records between the group's committed offset and the end of the log, by partition."""
        ...

    async def close(self) -> None:
        """Leave the group, so that others take over at once."""
        ...


class DeadLetters(Protocol):
    """The dead-letter topic. A crash may append a letter twice; `source` tells them as one."""

    async def append(self, letters: Sequence[DeadLetter]) -> None:
        """Append letters in order; durable when this returns; raises `LogUnavailable`.

        A letter that is too large for the log is kept without the end of its bytes.
        """
        ...

    def read(self) -> AsyncIterator[tuple[Coordinates, DeadLetter]]:
        """All dead letters, oldest first, each with its own place on the dead-letter topic.

        Ends at what was the end of the topic when reading began. Raises `LogUnavailable`. What
        somebody else put there comes as an `UNREADABLE_LETTER`.
        """
        ...

    async def replayed(self) -> dict[PartitionId, int]:
        """Next offsets to replay by (topic, partition); a partition left out stands at 0."""
        ...

    async def mark_replayed(self, offsets: Mapping[PartitionId, int]) -> None:
        """Durably remember that everything before these offsets was replayed; never moves back."""
        ...


class CommandLog(Protocol):
    """An open command log, which hands out its parts."""

    def producer(self) -> CommandProducer: ...

    def consumer(self, topic: Topic, group: str) -> CommandConsumer:
        """A new member of a consumer group."""
        ...

    def dead_letters(self) -> DeadLetters: ...

    async def close(self) -> None:
        """Close every part that was handed out."""
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
        """Returns once all of `keys` are invalidated. Raises `CacheUnavailable` with those that are
        not, when a node could not be reached: the others are."""
        ...


class SyncStateStore(Protocol):
    """Small named values that must survive a crash: run states, checkpoints."""

    async def get(self, name: str) -> bytes | None: ...

    async def put(self, name: str, value: bytes) -> None: ...

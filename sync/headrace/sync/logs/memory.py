"""A command log in memory: the reference the other adapters are held to, and a log for tests."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import count

from headrace.sync.clock import ClockMs, wall_clock_ms
from headrace.sync.logs.partitions import (
    DEAD_LETTER_TOPIC,
    DEFAULT_PARTITION_COUNT,
    REPLAY_GROUP,
    partition_of,
    refuse,
    share_of,
)
from headrace.sync.ports import (
    BATCH_BYTES_MAX,
    Coordinates,
    DeadLetter,
    LogRecord,
    PartitionId,
    Topic,
)


class MemoryCommandLog:
    """All parts of one log, on one event loop. Ends with the process."""

    def __init__(
        self, *, partition_count: int = DEFAULT_PARTITION_COUNT, now_ms: ClockMs = wall_clock_ms
    ) -> None:
        self.partition_count = partition_count
        self.now_ms = now_ms
        self.records: defaultdict[PartitionId, list[LogRecord]] = defaultdict(list)
        self.positions: defaultdict[str, dict[PartitionId, int]] = defaultdict(dict)
        self.members: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        self.letters: list[DeadLetter] = []
        self.appended = asyncio.Condition()
        self._names = (f"member-{number:06}" for number in count())

    def producer(self) -> MemoryProducer:
        return MemoryProducer(self)

    def consumer(self, topic: Topic, group: str, *, member: str | None = None) -> MemoryConsumer:
        return MemoryConsumer(self, topic, group, member or next(self._names))

    def dead_letters(self) -> MemoryDeadLetters:
        return MemoryDeadLetters(self)

    async def close(self) -> None:
        """Nothing is held outside the process."""

    def commit(self, group: str, offsets: Mapping[PartitionId, int]) -> None:
        committed = self.positions[group]
        for partition, next_offset in offsets.items():
            committed[partition] = max(committed.get(partition, 0), next_offset)


class MemoryProducer:
    """`CommandProducer` in memory."""

    def __init__(self, log: MemoryCommandLog) -> None:
        self._log = log

    async def append(
        self, topic: Topic, records: Sequence[tuple[bytes, bytes]]
    ) -> list[Coordinates]:
        placed: list[Coordinates] = []
        async with self._log.appended:
            for key, value in records:
                partition = (topic, partition_of(key, self._log.partition_count))
                row = self._log.records[partition]
                placed.append(Coordinates(*partition, len(row)))
                row.append(LogRecord(placed[-1], key, value, self._log.now_ms()))
            self._log.appended.notify_all()
        return placed

    async def reach(self) -> None:
        """Memory is always there."""

    async def close(self) -> None:
        """Nothing to do."""


class MemoryConsumer:
    """`CommandConsumer` in memory; members live until they close."""

    def __init__(self, log: MemoryCommandLog, topic: Topic, group: str, member: str) -> None:
        self._log = log
        self._topic = topic
        self._group = group
        self._member = member
        self._next_offsets: dict[PartitionId, int] = {}
        self._turn = 0

    async def poll(
        self, *, rows_max: int, wait_ms: int, bytes_max: int = BATCH_BYTES_MAX
    ) -> list[LogRecord]:
        give_up = asyncio.timeout(wait_ms / 1000)
        try:
            async with give_up, self._log.appended:
                while True:
                    await self.heartbeat()
                    if records := self._take(rows_max, bytes_max):
                        return records
                    await self._log.appended.wait()
        except TimeoutError:
            return []

    async def heartbeat(self) -> None:
        members = self._log.members[self._topic, self._group]
        if self._member not in members:
            members.append(self._member)
        committed = self._log.positions[self._group]
        self._next_offsets = {
            partition: self._next_offsets.get(partition, committed.get(partition, 0))
            for partition in self._share()
        }

    def assignment(self) -> frozenset[PartitionId]:
        return frozenset(self._next_offsets)

    async def commit(self, offsets: Mapping[PartitionId, int]) -> None:
        refused = offsets.keys() - self._share()
        held = {partition: offsets[partition] for partition in offsets.keys() - refused}
        self._log.commit(self._group, held)
        refuse(self._group, refused)

    async def committed(self, group: str) -> dict[PartitionId, int]:
        committed = self._log.positions[group]
        return {partition: committed.get(partition, 0) for partition in self._partitions()}

    async def lag(self) -> dict[PartitionId, int]:
        committed = await self.committed(self._group)
        return {
            partition: len(self._log.records[partition]) - next_offset
            for partition, next_offset in committed.items()
        }

    async def close(self) -> None:
        members = self._log.members[self._topic, self._group]
        if self._member in members:
            members.remove(self._member)
        self._next_offsets = {}

    def _partitions(self) -> list[PartitionId]:
        return [(self._topic, number) for number in range(self._log.partition_count)]

    def _share(self) -> frozenset[PartitionId]:
        members = self._log.members[self._topic, self._group]
        if self._member not in members:
            return frozenset()
        share = share_of(self._member, members, range(self._log.partition_count))
        return frozenset((self._topic, number) for number in share)

    def _take(self, rows_max: int, bytes_max: int) -> list[LogRecord]:
        held = sorted(self._next_offsets)
        self._turn += 1
        records: list[LogRecord] = []
        for index in range(len(held)):
            partition = held[(index + self._turn) % len(held)]
            for record in self._log.records[partition][self._next_offsets[partition] :]:
                bytes_max -= len(record.value)
                if len(records) == rows_max or (records and bytes_max < 0):
                    return records
                records.append(record)
                self._next_offsets[partition] = record.coordinates.offset + 1
        return records


class MemoryDeadLetters:
    """`DeadLetters` in memory."""

    def __init__(self, log: MemoryCommandLog) -> None:
        self._log = log

    async def append(self, letters: Sequence[DeadLetter]) -> None:
        self._log.letters.extend(letters)

    async def read(self) -> AsyncIterator[tuple[Coordinates, DeadLetter]]:
        for offset, letter in enumerate(tuple(self._log.letters)):
            yield Coordinates(DEAD_LETTER_TOPIC, 0, offset), letter

    async def replayed(self) -> dict[PartitionId, int]:
        return dict(self._log.positions[REPLAY_GROUP])

    async def mark_replayed(self, offsets: Mapping[PartitionId, int]) -> None:
        self._log.commit(REPLAY_GROUP, offsets)

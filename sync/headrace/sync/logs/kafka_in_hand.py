"""What a Kafka consumer handed out and nobody has committed yet.

A rebalance drains: it waits until everything in hand is committed or given up, within a limit,
before partitions go to others. Meanwhile nothing new is handed out, or the wait would never end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterable, Mapping

from headrace.sync.ports import LogRecord, PartitionId


class InHand:
    """Next offsets of what was handed out, by partition; settled when there is nothing."""

    def __init__(self) -> None:
        self._next_offsets: dict[PartitionId, int] = {}
        self._settled = asyncio.Event()
        self._settled.set()
        self._open = asyncio.Event()
        self._open.set()

    @property
    def draining(self) -> bool:
        """Whether a rebalance waits for what is in hand."""
        return not self._open.is_set()

    def hand_out(self, records: Iterable[LogRecord]) -> None:
        """These records are in hand, until a commit beyond the last of each partition."""
        for record in records:
            place = record.coordinates
            self._next_offsets[place.topic, place.partition] = place.offset + 1
        self._look()

    def commit(self, offsets: Mapping[PartitionId, int]) -> None:
        """These next offsets are committed."""
        for partition, offset in offsets.items():
            if offset >= self._next_offsets.get(partition, 0):
                self._next_offsets.pop(partition, None)
        self._look()

    def give_up(self, partitions: Iterable[PartitionId]) -> None:
        """What is in hand of these partitions will never be committed by this member."""
        for partition in partitions:
            self._next_offsets.pop(partition, None)
        self._look()

    def keep(self, partitions: Collection[PartitionId]) -> None:
        """Give up what is in hand of all other partitions."""
        self.give_up([partition for partition in self._next_offsets if partition not in partitions])

    async def drain(self, limit_ms: int) -> None:
        """Return when all is committed or given up; after the limit, what is left is given up."""
        self._open.clear()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit_ms / 1000):
                    await self._settled.wait()
        finally:
            self._open.set()
            self.keep(())

    async def drained(self, wait_ms: int) -> None:
        """Wait for the end of a drain, for `wait_ms` at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_ms / 1000):
                await self._open.wait()

    def _look(self) -> None:
        if self._next_offsets:
            self._settled.clear()
        else:
            self._settled.set()

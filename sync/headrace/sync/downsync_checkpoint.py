"""What downsync remembers of a partition: its next offset, and when each key was last emitted.

Both are stored by one put, so they never disagree (semantics 26). A put holds only what a batch
changed; every `DELTAS_MAX` batches one put holds everything, and the small ones are written over.
Values lie under `sync/downsync/<topic>/<partition>/{base,delta/<slot>}`.
"""

from __future__ import annotations

from typing import Final

import msgspec

from headrace.sync.errors import CommitRefused
from headrace.sync.ports import PartitionId, SyncStateStore

DELTAS_MAX: Final = 256


class Memory(msgspec.Struct, array_like=True):
    """One stored value. `sequence` counts puts; `last_emitted_ms` goes by key bytes."""

    sequence: int
    next_offset: int
    last_emitted_ms: dict[bytes, int]


class Checkpoint:
    """The memory of one partition, as loaded and as it grows."""

    def __init__(self, state: SyncStateStore, partition: PartitionId) -> None:
        self._state = state
        self._place = f"sync/downsync/{partition[0]}/{partition[1]}"
        self._sequence = 0
        self._base_sequence = 0
        self.next_offset = 0
        self.last_emitted_ms: dict[bytes, int] = {}

    @classmethod
    async def load(cls, state: SyncStateStore, partition: PartitionId) -> Checkpoint:
        """The base and every delta put after it; a partition never seen begins empty."""
        checkpoint = cls(state, partition)
        base = await checkpoint._get("base")
        if base is not None:
            checkpoint._absorb(base)
            checkpoint._base_sequence = base.sequence
        while True:
            delta = await checkpoint._get(checkpoint._slot(checkpoint._sequence + 1))
            if delta is None or delta.sequence != checkpoint._sequence + 1:
                return checkpoint
            checkpoint._absorb(delta)

    async def confirm(self) -> None:
        """Raises `CommitRefused` when another worker has noted something since this one loaded."""
        await self._refuse_rival(self._sequence + 1)

    async def save(self, next_offset: int, emitted_ms: dict[bytes, int]) -> None:
        """Durably note that everything before `next_offset` is done and what was emitted in it.

        Raises `CommitRefused` when another worker has noted something since this one loaded.
        """
        delta = Memory(self._sequence + 1, next_offset, emitted_ms)
        await self._refuse_rival(delta.sequence)
        if delta.sequence - self._base_sequence >= DELTAS_MAX:
            whole = {**self.last_emitted_ms, **emitted_ms}
            await self._put("base", Memory(delta.sequence, next_offset, whole))
            self._base_sequence = delta.sequence
        else:
            await self._put(self._slot(delta.sequence), delta)
        self._absorb(delta)

    async def _refuse_rival(self, sequence: int) -> None:
        for leaf in ("base", self._slot(sequence)):
            noted = await self._get(leaf)
            if noted is not None and noted.sequence >= sequence:
                raise CommitRefused(
                    f"another worker has handled `{self._place}` up to offset {noted.next_offset}; "
                    "this one goes on from there"
                )

    def _absorb(self, memory: Memory) -> None:
        self._sequence = memory.sequence
        self.next_offset = memory.next_offset
        self.last_emitted_ms.update(memory.last_emitted_ms)

    def _slot(self, sequence: int) -> str:
        return f"delta/{sequence % DELTAS_MAX}"

    async def _get(self, leaf: str) -> Memory | None:
        value = await self._state.get(f"{self._place}/{leaf}")
        return None if value is None else msgspec.msgpack.decode(value, type=Memory)

    async def _put(self, leaf: str, memory: Memory) -> None:
        await self._state.put(f"{self._place}/{leaf}", msgspec.msgpack.encode(memory))

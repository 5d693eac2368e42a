"""One batch of commands on its way through the writer, and the only order in which it may go."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING

from headrace.sync.errors import StageOrderBroken
from headrace.sync.ports import LogRecord, PartitionId

if TYPE_CHECKING:
    from headrace.codec import CommandBatch
    from headrace.registry.watch import LiveCatalog


class Stage(IntEnum):
    """Stages in their only order: each batch passes every one, once (design 3)."""

    POLLED = 0
    DECODED = 1
    BURIED = 2
    STORED = 3
    INVALIDATED = 4
    COMMITTED = 5


class Batch:
    """Commands of one or a few polls, and how far they have come."""

    __slots__ = ("encoded", "keys", "live", "next_offsets", "records", "safe_at_ms", "stage")

    def __init__(self, records: Sequence[LogRecord]) -> None:
        self.records: Sequence[LogRecord] = records
        self.next_offsets: dict[PartitionId, int] = {
            (record.coordinates.topic, record.coordinates.partition): record.coordinates.offset + 1
            for record in records
        }
        """What to commit: the last offset + 1 of every partition; offsets ascend within one."""
        self.stage = Stage.POLLED
        self.live: LiveCatalog | None = None
        self.encoded: CommandBatch | None = None
        self.keys: Sequence[bytes] = ()
        """Keys whose cache blocks are still to be invalidated."""
        self.safe_at_ms = 0
        """When no older block or lease can exist any more, on the steady clock."""

    def enter(self, stage: Stage) -> None:
        """Go on to the next stage; raises `StageOrderBroken` for any other one."""
        if stage != self.stage + 1:
            raise StageOrderBroken(
                f"a batch at stage `{self.stage.name}` would go on to `{stage.name}`; nothing more "
                "is written or committed, restart the writer and report this"
            )
        self.stage = stage

    def decoded(self) -> tuple[CommandBatch, LiveCatalog]:
        """The encoded commands and the catalog they were encoded under."""
        if self.encoded is None or self.live is None:
            raise StageOrderBroken(f"a batch at stage `{self.stage.name}` was not decoded yet")
        return self.encoded, self.live

    def drop_bytes(self) -> None:
        """Let go of everything that only earlier stages needed."""
        self.records = ()
        self.encoded = None

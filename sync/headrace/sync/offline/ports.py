"""Ports of the offline store: narrow, batched, and free of any one warehouse.

Rows travel as Arrow with the columns that `headrace.sync.offline.types` lists. What compares rows
(latest row per key, row hashes, what was sent) happens inside the warehouse.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import msgspec

from headrace.registry.catalog import Group
from headrace.sync.offline.types import Rows


class LogRange(msgspec.Struct, frozen=True):
    """The commands `first_offset` ≤ offset < `next_offset` of one partition: a token."""

    topic: str
    partition: int
    first_offset: int
    next_offset: int


class ChangeQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows one upsync run is to send.

    `since_ms` is the high-water mark less the overlap, None to look at every row. `full` sends rows
    whether or not their hash was sent before. `snapshot_time_ms` is the event time of rows that
    carry none (semantics 24).
    """

    run_id: str
    snapshot_time_ms: int
    since_ms: int | None = None
    full: bool = False


class ChangeSet(msgspec.Struct, frozen=True, kw_only=True):
    """What a run will send: `rows` of the `scanned` latest ones, and the next high-water mark."""

    rows: int
    scanned: int
    mark_ms: int | None


class OfflineReader(Protocol):
    """The latest rows of a group, in an order that a resumed run meets again."""

    async def prepare(self, group: Group, query: ChangeQuery) -> ChangeSet:
        """Pin the rows to send under the run id.

        The same run id gives the same rows in the same order, whatever was appended since. Raises
        `RunConflict` when another process has a run of this group under way.
        """
        ...

    async def fetch(self, group: Group, run_id: str, *, first_row: int, rows: int) -> Rows:
        """Up to `rows` pinned rows from `first_row` on: key and value fields and `_event_time`."""
        ...

    async def settle(self, group: Group, run_id: str) -> None:
        """Remember the hashes of the pinned rows as sent. Repeating it changes nothing."""
        ...

    async def release(self, group: Group, run_id: str) -> None:
        """Forget the pinned rows and let other runs of the group begin."""
        ...


class OfflineWriter(Protocol):
    """Appends rows that came from commands."""

    async def append(self, group: Group, rows: Rows, token: LogRange) -> None:
        """Append `rows` (declared and system columns); durable when this returns.

        Rows appended before under a token wholly inside this one are replaced: the redo of a worker
        that died before its checkpoint covers them again. Rows of any other token are kept, since
        they may be the work of a worker that came after this one. Where two tokens share offsets
        the rows of one of them count, so each offset is told once (`ranges.py` says which).
        """
        ...


class TransformRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a user's SQL.

    `query` is one SELECT. `prelude` runs before it and may make views. Raw tables are views named
    after the files of `sources`, and the SQL variable `sources` holds that folder. A run id is an
    idempotence token.
    """

    run_id: str
    query: str
    prelude: str
    sources: Path
    now_ms: int


class TransformOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a transform did: rows its query made, and rows of these that were new."""

    rows: int
    appended: int


class OfflineTransformer(Protocol):
    """Runs the user's SQL inside the warehouse."""

    async def transform(self, group: Group, run: TransformRun) -> TransformOutcome:
        """Append the new rows that the query makes to the group's offline table.

        Raises `OfflineSchemaMismatch` naming every column that does not fit the group.
        """
        ...

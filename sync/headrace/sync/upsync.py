"""Upsync: rows of the offline store become bulk commands, chunk by chunk.

prepare (pin the changed rows) → per chunk: fetch → encode → append → note the chunk → settle

A chunk is noted after its commands are durable, so a killed run repeats at most one chunk, and
repeats it exactly: the pinned rows, their order and the snapshot time do not change (semantics 24).
A repeated command changes nothing. Reaching the end settles the hashes, then moves the mark.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from headrace.registry.catalog import Group
from headrace.sync.offline.ports import ChangeQuery, ChangeSet, OfflineReader
from headrace.sync.offline.types import Rows, mark_column
from headrace.sync.ports import CommandProducer, SyncStateStore

CHUNK_ROWS = 10_000
OVERLAP_MS = 3_600_000
"""How far below the mark an incremental run looks again, for rows that were committed late."""

Encode = Callable[[Group, Rows], Sequence[tuple[bytes, bytes]]]
"""Rows → (partition key, command bytes), one a row and in their order."""


class Pace(Protocol):
    """Says how many rows may go now."""

    async def take(self, rows_max: int) -> int:
        """Wait until some of `rows_max` rows may go and say how many (at least one)."""
        ...


class Progress(Protocol):
    """Is told how far a run is."""

    def advance(self, rows_done: int, rows_total: int) -> None: ...


class UpsyncOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a run is made; `full` sends every latest row, changed or not."""

    full: bool = False
    dry_run: bool = False
    chunk_rows: int = CHUNK_ROWS
    overlap_ms: int = OVERLAP_MS


class UpsyncReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a run did: of `scanned` latest rows `changed` were to send and `sent` were sent now.

    `sent` is smaller than `changed` when the run resumed an earlier one.
    """

    feature_group: str
    run_id: str
    scanned: int
    changed: int
    sent: int
    resumed: bool
    mark_ms: int | None


class RunState(msgspec.Struct, frozen=True, kw_only=True):
    """A run under way. `rows` is None until its rows are pinned."""

    run_id: str
    snapshot_time_ms: int
    since_ms: int | None
    full: bool
    rows: int | None = None
    next_row: int = 0


class GroupState(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of a group between runs."""

    mark_ms: int | None = None
    run: RunState | None = None


class Upsync:
    """Sends the changed rows of feature groups; the ports say from where and to where."""

    def __init__(
        self,
        *,
        reader: OfflineReader,
        encode: Encode,
        producer: CommandProducer,
        state: SyncStateStore,
        pace: Pace | None = None,
    ) -> None:
        self._reader = reader
        self._encode = encode
        self._producer = producer
        self._state = state
        self._pace = pace

    async def run(
        self, group: Group, options: UpsyncOptions, *, run_id: str, now_ms: int, progress: Progress
    ) -> UpsyncReport:
        """Begin a run, or resume the one that was interrupted; `run_id` names a new run.

        Raises `RunConflict`, `OfflineUnavailable` or `LogUnavailable`; after any of them the next
        call resumes.
        """
        known = await self._load(group)
        if options.dry_run:
            return await self._preview(group, known, options, run_id, now_ms)
        run = known.run
        if run is not None and options.full and not run.full:
            await self._reader.release(group, run.run_id)
            run = None
        resumed = run is not None
        if run is None:
            run = _new_run(group, known, options, run_id, now_ms)
            # Noted before anything is pinned: no pinned rows are ever without an owner.
            await self._save(group, GroupState(mark_ms=known.mark_ms, run=run))
        change = await self._reader.prepare(group, _query(run))
        if run.rows != change.rows:
            run = msgspec.structs.replace(run, rows=change.rows, next_row=0)
        sent = await self._send(group, known, run, options.chunk_rows, progress)
        await self._reader.settle(group, run.run_id)
        mark_ms = _next_mark(group, known, change)
        await self._save(group, GroupState(mark_ms=mark_ms))
        await self._reader.release(group, run.run_id)
        return _report(group, run, change, sent=sent, resumed=resumed, mark_ms=mark_ms)

    async def _send(
        self, group: Group, known: GroupState, run: RunState, chunk_rows: int, progress: Progress
    ) -> int:
        total, first = run.rows or 0, run.next_row
        progress.advance(run.next_row, total)
        while run.next_row < total:
            rows = await self._reader.fetch(
                group, run.run_id, first_row=run.next_row, rows=chunk_rows
            )
            await self._append(self._encode(group, rows))
            run = msgspec.structs.replace(run, next_row=run.next_row + rows.num_rows)
            await self._save(group, GroupState(mark_ms=known.mark_ms, run=run))
            progress.advance(run.next_row, total)
        return total - first

    async def _append(self, commands: Sequence[tuple[bytes, bytes]]) -> None:
        done = 0
        while done < len(commands):
            allowed = len(commands) - done
            if self._pace is not None:
                allowed = await self._pace.take(allowed)
            await self._producer.append("bulk", commands[done : done + allowed])
            done += allowed

    async def _preview(
        self, group: Group, known: GroupState, options: UpsyncOptions, run_id: str, now_ms: int
    ) -> UpsyncReport:
        """Count what a new run would send; a run that was interrupted is left as it is."""
        run = _new_run(group, known, options, run_id, now_ms)
        change = await self._reader.prepare(group, _query(run))
        await self._reader.release(group, run.run_id)
        return _report(group, run, change, sent=0, resumed=False, mark_ms=known.mark_ms)

    async def _load(self, group: Group) -> GroupState:
        noted = await self._state.get(_state_name(group))
        return GroupState() if noted is None else msgspec.json.decode(noted, type=GroupState)

    async def _save(self, group: Group, state: GroupState) -> None:
        await self._state.put(_state_name(group), msgspec.json.encode(state))


def _state_name(group: Group) -> str:
    return f"sync/upsync/{group.name}"


def _new_run(
    group: Group, known: GroupState, options: UpsyncOptions, run_id: str, now_ms: int
) -> RunState:
    by_mark = group.upsync.incremental_update and mark_column(group) is not None
    since_ms = None
    if by_mark and not options.full and known.mark_ms is not None:
        since_ms = known.mark_ms - options.overlap_ms
    return RunState(run_id=run_id, snapshot_time_ms=now_ms, since_ms=since_ms, full=options.full)


def _query(run: RunState) -> ChangeQuery:
    return ChangeQuery(
        run_id=run.run_id,
        snapshot_time_ms=run.snapshot_time_ms,
        since_ms=run.since_ms,
        full=run.full,
    )


def _next_mark(group: Group, known: GroupState, change: ChangeSet) -> int | None:
    """The mark never falls: a row that vanished from the offline table does not lower it."""
    if mark_column(group) is None:
        return None
    marks = [mark for mark in (known.mark_ms, change.mark_ms) if mark is not None]
    return max(marks, default=None)


def _report(
    group: Group,
    run: RunState,
    change: ChangeSet,
    *,
    sent: int,
    resumed: bool,
    mark_ms: int | None,
) -> UpsyncReport:
    return UpsyncReport(
        feature_group=group.name,
        run_id=run.run_id,
        scanned=change.scanned,
        changed=change.rows,
        sent=sent,
        resumed=resumed,
        mark_ms=mark_ms,
    )

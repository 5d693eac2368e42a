"""Downsync: real-time commands → sampled rows of the offline store.

Per batch: wait until the writer has committed the commands → decide which to emit → read their
records from the online store → append the rows → note offset and emissions → commit the offset.

A crash before the note repeats the batch: the same commands are emitted again (the decision is
pure), and each has one row all the same, because rows are appended under the range of offsets they
came from. A worker that was overtaken is refused before it appends, and should it be overtaken only
then, its rows neither remove nor double those of the other (semantics 25, 28).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import ChainMap, defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from headrace.codec import Catalog
from headrace.registry.catalog import Group
from headrace.registry.watch import CatalogWatcher, LiveCatalog
from headrace.sync.clock import ClockMs, steady_clock_ms, wall_clock_ms
from headrace.sync.downsync_checkpoint import Checkpoint
from headrace.sync.downsync_commands import Command, decode
from headrace.sync.downsync_sampling import is_emitted
from headrace.sync.downsync_telemetry import DownsyncTelemetry
from headrace.sync.errors import CatalogMissing, CommitRefused, SyncError
from headrace.sync.offline.ports import LogRange, OfflineWriter
from headrace.sync.offline.types import arrow_rows, declared_columns, system_columns
from headrace.sync.ports import (
    CommandConsumer,
    LogRecord,
    MergedRecord,
    MergedRecordReader,
    PartitionId,
    SyncStateStore,
)
from headrace.sync.writer import WRITER_GROUP

DOWNSYNC_GROUP: Final = "headrace-downsync"
"""The consumer group of every downsync worker, on the real-time topic only (semantics 25)."""

RETRY_MS: Final = 1_000

logger = logging.getLogger(__name__)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class DownsyncPorts(msgspec.Struct, frozen=True, kw_only=True):
    """What downsync works with; the consumer belongs to `DOWNSYNC_GROUP`."""

    consumer: CommandConsumer
    catalog: CatalogWatcher
    online: MergedRecordReader
    offline: OfflineWriter
    state: SyncStateStore


class DownsyncLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one batch. Longer `linger_ms` means fewer and larger offline files."""

    rows_max: int = 20_000
    linger_ms: int = 2_000
    wait_ms: int = 200


class Downsync:
    """The loop on the real-time topic. `run` returns after `stop`, between two batches."""

    def __init__(
        self,
        ports: DownsyncPorts,
        telemetry: DownsyncTelemetry,
        *,
        limits: DownsyncLimits | None = None,
        now_ms: ClockMs = wall_clock_ms,
        steady_ms: ClockMs = steady_clock_ms,
    ) -> None:
        self._ports = ports
        self._telemetry = telemetry
        self._limits = limits or DownsyncLimits()
        self._now_ms = now_ms
        self._steady_ms = steady_ms
        self._checkpoints: dict[PartitionId, Checkpoint] = {}
        self._waiting: list[LogRecord] = []
        self._waiting_since_ms = 0
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Leave the loop after the batch in hand; safe to call at any time."""
        self._stopping.set()

    async def run(self) -> None:
        """Downsync until `stop`. Raises only what trying again cannot help."""
        trouble = ""
        try:
            while not self._stopping.is_set():
                try:
                    await self.turn()
                    if trouble:
                        trouble = ""
                        logger.info("downsync goes on")
                except CommitRefused as error:
                    logger.info("downsync gave way", extra={"reason": str(error)})
                    self._checkpoints.clear()
                except SyncError as error:
                    if not error.retriable:
                        raise
                    if str(error) != trouble:
                        trouble = str(error)
                        logger.warning("downsync tries again", extra={"reason": trouble})
                    self._checkpoints.clear()
                    await self._pause(RETRY_MS)
        finally:
            await self._ports.consumer.close()

    async def turn(self) -> int:
        """Poll once and handle what is due; returns how many commands were handled."""
        await self._poll()
        young = self._steady_ms() - self._waiting_since_ms < self._limits.linger_ms
        if not self._waiting or (young and len(self._waiting) < self._limits.rows_max):
            return 0
        return await self._handle_committed()

    async def flush(self) -> int:
        """Handle every waiting command that the writer has committed, however young."""
        return await self._handle_committed()

    async def _poll(self) -> None:
        consumer = self._ports.consumer
        room = self._limits.rows_max - len(self._waiting)
        if room <= 0:
            await consumer.heartbeat()
            await self._pause(self._limits.wait_ms)
            return
        records = await consumer.poll(rows_max=room, wait_ms=self._limits.wait_ms)
        if records and not self._waiting:
            self._waiting_since_ms = self._steady_ms()
        self._waiting += records

    async def _handle_committed(self) -> int:
        """Commands the writer has not committed yet go on waiting (semantics 25)."""
        consumer = self._ports.consumer
        committed = await consumer.committed(WRITER_GROUP)
        held = consumer.assignment()
        waiting = [item for item in self._waiting if _partition(item) in held]
        ready: defaultdict[PartitionId, dict[int, LogRecord]] = defaultdict(dict)
        for record in waiting:
            offset = record.coordinates.offset
            if offset < committed.get(_partition(record), 0):
                # By offset: a partition that left and came back brings its records again.
                ready[_partition(record)][offset] = record
        for partition, records in ready.items():
            for run in _unbroken(records):
                await self._handle(partition, run)
            waiting = [
                item
                for item in waiting
                if _partition(item) != partition or item.coordinates.offset not in records
            ]
            self._waiting = waiting  # A later partition may fail: this one is done.
        self._waiting = waiting
        self._telemetry.waiting_rows.set(len(waiting))
        self._waiting_since_ms = self._steady_ms()
        return sum(len(records) for records in ready.values())

    async def _handle(self, partition: PartitionId, records: Sequence[LogRecord]) -> None:
        checkpoint = await self._checkpoint(partition)
        next_offset = records[-1].coordinates.offset + 1
        fresh = [item for item in records if item.coordinates.offset >= checkpoint.next_offset]
        if fresh:
            live, commands = await self._decode(fresh)
            groups = {group.name: group for group in live.document.groups if group.downsync.enabled}
            emitted_ms: dict[bytes, int] = {}
            chosen = _chosen(commands, groups, checkpoint.last_emitted_ms, emitted_ms)
            if chosen:
                await checkpoint.confirm()
                token = LogRange(*partition, fresh[0].coordinates.offset, next_offset)
                await self._append(chosen, groups, live.compiled, token)
                await checkpoint.save(next_offset, emitted_ms)
            self._telemetry.emitted.inc(len(chosen))
            self._telemetry.left_out.inc(len(fresh) - len(chosen))
        await self._ports.consumer.commit({partition: next_offset})

    async def _decode(self, records: Sequence[LogRecord]) -> tuple[LiveCatalog, list[Command]]:
        """Decode under the newest catalog, looking for a newer one when a name is unknown."""
        watcher = self._ports.catalog
        live = watcher.current or await watcher.refresh()
        if live is None:
            why = watcher.problem or "none was ever published"
            raise CatalogMissing(f"no catalog is in force: {why}; run `headrace apply`")
        decoded = decode(live.compiled, records)
        if decoded.has_unknown:
            live = await watcher.refresh() or live
            decoded = decode(live.compiled, records)
        return live, decoded.commands

    async def _append(
        self,
        chosen: Sequence[Command],
        groups: dict[str, Group],
        catalog: Catalog,
        token: LogRange,
    ) -> None:
        records = await self._merged(chosen, groups, catalog)
        for name in dict.fromkeys(command.group for command in chosen):
            group = groups[name]
            rows = [
                self._row(command, catalog, records) for command in chosen if command.group == name
            ]
            columns = declared_columns(group) + system_columns()
            await self._ports.offline.append(group, arrow_rows(columns, rows), token)

    async def _merged(
        self, chosen: Sequence[Command], groups: dict[str, Group], catalog: Catalog
    ) -> dict[bytes, MergedRecord | None]:
        """Records as the online store serves them now, each key asked for once."""
        keys = list(dict.fromkeys(command.key for command in chosen if command.method == "UPDATE"))
        if not keys:
            return {}
        found = await self._ports.online.fetch(catalog, keys, now_ms=self._now_ms())
        return dict(zip(keys, found, strict=True))

    def _row(
        self,
        command: Command,
        catalog: Catalog,
        records: dict[bytes, MergedRecord | None],
    ) -> dict[str, object]:
        """The offline row of one emitted command.

        An UPDATE whose record is gone again (deleted or expired since) becomes a deleted row: that
        is how the online store serves it, and the command still has its one row.
        """
        record = records.get(command.key) if command.method == "UPDATE" else None
        values = command.event or (record.values if record is not None else {})
        event_time_ms = command.event_time_ms if record is None else record.newest_event_time_ms
        _, keys = catalog.decode_key(command.key)
        return {
            **values,
            **keys,
            "_event_time": _instant(event_time_ms),
            "_source": "downsync",
            "_deleted": command.event is None and record is None,
            "_ingested_at": _instant(self._now_ms()),
            "_command_event_time": _instant(command.event_time_ms),
            "_command_topic": command.coordinates.topic,
            "_command_partition": command.coordinates.partition,
            "_command_offset": command.coordinates.offset,
        }

    async def _checkpoint(self, partition: PartitionId) -> Checkpoint:
        known = self._checkpoints.get(partition)
        if known is None:
            known = await Checkpoint.load(self._ports.state, partition)
            self._checkpoints[partition] = known
        return known

    async def _pause(self, wait_ms: int) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), wait_ms / 1000)


def _partition(record: LogRecord) -> PartitionId:
    return record.coordinates.topic, record.coordinates.partition


def _unbroken(records: Mapping[int, LogRecord]) -> list[list[LogRecord]]:
    """Records by offset, cut where offsets are missing: a range tells of every offset in it, and
    what is missing may have been handled elsewhere while the partition was away."""
    runs: list[list[LogRecord]] = []
    for offset in sorted(records):
        if offset - 1 not in records:
            runs.append([])
        runs[-1].append(records[offset])
    return runs


def _chosen(
    commands: Sequence[Command],
    groups: dict[str, Group],
    last_emitted_ms: dict[bytes, int],
    emitted_ms: dict[bytes, int],
) -> list[Command]:
    """Commands to emit, in log order; fills `emitted_ms`. A DELETE is emitted unsampled and moves
    nothing (semantics 25, 26)."""
    known = ChainMap(emitted_ms, last_emitted_ms)
    chosen: list[Command] = []
    for command in commands:
        group = groups.get(command.group)
        if group is None:
            continue
        at_ms = command.event_time_ms
        if command.method == "DELETE":
            chosen.append(command)
        elif is_emitted(group.name, command.key, at_ms, group.downsync, known):
            emitted_ms[command.key] = at_ms
            chosen.append(command)
    return chosen


def _instant(milliseconds: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=milliseconds)

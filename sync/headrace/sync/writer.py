"""The writer: command log → online store, one batch after the other.

Poll, decode, dead-letter what cannot be applied, write the store, invalidate the cache, commit the
offsets: never another order, and `Batch.enter` holds every batch to it. A crash anywhere replays
commands that were written already, which changes nothing (design 3). What cannot be done now is
tried again until it can: nothing is committed meanwhile, and nothing is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import msgspec

from headrace.codec import Catalog, encode_commands
from headrace.registry.watch import CatalogWatcher, LiveCatalog
from headrace.sync.backoff import Backoff
from headrace.sync.batch import Batch, Stage
from headrace.sync.clock import ClockMs, steady_clock_ms, wall_clock_ms
from headrace.sync.errors import (
    CacheUnavailable,
    CatalogMissing,
    CommitRefused,
    StoreRefused,
    SyncError,
)
from headrace.sync.held_commits import KEYS_MAX, HeldCommits, holding_times_ms, longest_hold_ms
from headrace.sync.ports import (
    BATCH_BYTES_MAX,
    CacheInvalidator,
    CommandConsumer,
    DeadLetter,
    DeadLetters,
    LogRecord,
    OnlineWriter,
    PartitionId,
    Topic,
)
from headrace.sync.rate_limit import RateLimiter
from headrace.sync.telemetry import WriterTelemetry

if TYPE_CHECKING:
    from headrace.codec import CommandBatch, Rejection

T = TypeVar("T")

WRITER_GROUP = "headrace-writer"
"""The consumer group of every writer; downsync follows its committed offsets (semantics 25)."""

UNKNOWN_CODES = frozenset({"UNKNOWN_GROUP", "UNKNOWN_FIELD"})
"""Rejections that a newer catalog may turn into writes (semantics 21)."""

REFRESH_RETRIES = 6
"""Looks for a newer catalog while it cannot be read, about a second in all; then names are taken to
be unknown: a dead letter can be replayed, a writer that waits for ever helps nobody."""

logger = logging.getLogger(__name__)


class WriterLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one batch and of what may be held in memory."""

    rows_max: int = 5_000
    bytes_max: int = BATCH_BYTES_MAX
    age_max_ms: int = 5
    """How long the first command of a batch may wait for company."""
    wait_ms: int = 200
    """How long one poll waits; also how soon an idle writer notices that it should stop."""
    held_keys_max: int = KEYS_MAX
    lag_interval_ms: int = 5_000


class WriterPorts(msgspec.Struct, frozen=True, kw_only=True):
    """What a writer works with. Without an invalidator there is no cache."""

    consumer: CommandConsumer
    dead_letters: DeadLetters
    store: OnlineWriter
    catalog: CatalogWatcher
    invalidator: CacheInvalidator | None = None


class Abandoned(Exception):
    """The writer should stop and what it does cannot be done now; nothing was committed."""


class Writer:
    """The loop on one topic. `run` returns after `stop`, with the batch in hand written."""

    def __init__(
        self,
        topic: Topic,
        ports: WriterPorts,
        telemetry: WriterTelemetry,
        *,
        limits: WriterLimits | None = None,
        limiter: RateLimiter | None = None,
        now_ms: ClockMs = wall_clock_ms,
        steady_ms: ClockMs = steady_clock_ms,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._ports = ports
        self._telemetry = telemetry
        self._limits = limits or WriterLimits()
        self._limiter = limiter
        self._now_ms = now_ms
        self._steady_ms = steady_ms
        self._draw = draw
        self._topic = topic
        self._held = HeldCommits(self._limits.held_keys_max)
        self._invalidation = Backoff(draw)
        self._invalidation_due_ms = 0
        self._lag_due_ms = 0
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Finish the batch in hand and leave the loop; safe to call at any time."""
        self._stopping.set()

    async def run(self) -> None:
        """Write until `stop`. Raises only what trying again cannot help."""
        self._say(logging.INFO, "writer started")
        try:
            while not self._stopping.is_set():
                await self._turn()
        except Abandoned:
            self._say(logging.WARNING, "writer stopped with a batch in hand; it will be replayed")
        finally:
            await self._ports.consumer.close()
        self._say(logging.INFO, "writer stopped", held_keys=self._held.key_count)

    async def _turn(self) -> None:
        """One batch through all stages; batches whose cache blocks linger are committed later."""
        if batch := await self._poll():
            await self._decode(batch)
            await self._bury(batch)
            await self._store(batch)
            self._held.hold(batch)
        await self._commit(await self._invalidate())
        await self._observe_lag()

    async def _poll(self) -> Batch | None:
        """Commands bounded by rows, bytes and age; None when none came or polling is paused."""
        if self._held.full:
            await self._pause()
            return None
        rows_max = self._limits.rows_max
        if self._limiter is not None:
            rows_max = await self._limiter.take(rows_max)
        records = await self._until_done("poll", lambda: self._gather(rows_max))
        if self._limiter is not None:
            self._limiter.give_back(rows_max - len(records))
        if not records:
            return None
        self._telemetry.batch_rows.observe(len(records))
        return Batch(records)

    async def _gather(self, rows_max: int) -> list[LogRecord]:
        """One poll, and more of them while the batch is small and its first command is young."""
        poll = self._ports.consumer.poll
        limits = self._limits
        records = await poll(rows_max=rows_max, wait_ms=limits.wait_ms, bytes_max=limits.bytes_max)
        full_at_ms = self._steady_ms() + limits.age_max_ms
        bytes_left = limits.bytes_max - sum(len(record.value) for record in records)
        while records and len(records) < rows_max and bytes_left > 0:
            wait_ms = full_at_ms - self._steady_ms()
            if wait_ms <= 0:
                break
            try:
                more = await poll(
                    rows_max=rows_max - len(records), wait_ms=wait_ms, bytes_max=bytes_left
                )
            except SyncError:
                break  # What came is in hand; the next poll meets the trouble again.
            records += more
            bytes_left -= sum(len(record.value) for record in more)
        return records

    async def _pause(self) -> None:
        """Stay a member of the group without polling, until the cache answers or time is up."""
        await self._until_done("heartbeat", self._ports.consumer.heartbeat)
        await self._sleep(self._limits.wait_ms)

    async def _decode(self, batch: Batch) -> None:
        """Encode the whole batch; look for a newer catalog before calling a name unknown."""
        batch.enter(Stage.DECODED)
        payloads = [record.value for record in batch.records]
        with self._telemetry.stage("decode"):
            live = await self._until_done("catalog", self._catalog)
            encoded = await self._encode(live.compiled, payloads)
            if any(rejection.code in UNKNOWN_CODES for rejection in encoded.rejections):
                newest = await self._newest_catalog(live)
                if newest.generation != live.generation:
                    live, encoded = newest, await self._encode(newest.compiled, payloads)
        batch.live, batch.encoded = live, encoded

    async def _catalog(self) -> LiveCatalog:
        live = self._ports.catalog.current or await self._ports.catalog.refresh()
        if live is None:
            why = self._ports.catalog.problem or "none was ever published; run `headrace apply`"
            raise CatalogMissing(f"no catalog is in force: {why}")
        return live

    async def _newest_catalog(self, live: LiveCatalog) -> LiveCatalog:
        """The newest generation; if it cannot be told after some tries, the one in force."""
        backoff = Backoff(self._draw)
        watcher = self._ports.catalog
        newest = await watcher.refresh()
        while watcher.problem is not None and backoff.attempts < REFRESH_RETRIES:
            await self._sleep(backoff.next_ms())
            newest = await watcher.refresh()
        return newest or live

    async def _encode(self, catalog: Catalog, payloads: Sequence[bytes]) -> CommandBatch:
        return await asyncio.to_thread(encode_commands, catalog, payloads, now_ms=self._now_ms())

    async def _bury(self, batch: Batch) -> None:
        """Send what cannot be applied to the dead letters, so that its partition goes on."""
        batch.enter(Stage.BURIED)
        encoded, _ = batch.decoded()
        await self._append_letters(
            [
                self._letter(batch.records[rejection.index], rejection.code, reason(rejection))
                for rejection in encoded.rejections
            ]
        )

    def _letter(self, record: LogRecord, code: str, message: str) -> DeadLetter:
        return DeadLetter(
            record.coordinates, code, message, record.key, record.value, self._now_ms()
        )

    async def _append_letters(self, letters: Sequence[DeadLetter]) -> None:
        if not letters:
            return
        with self._telemetry.stage("bury"):
            await self._until_done("bury", lambda: self._ports.dead_letters.append(letters))
        for letter in letters:
            self._telemetry.count_dead(letter.code)
        codes = Counter(letter.code for letter in letters)
        first = letters[0]
        self._say(
            logging.WARNING,
            "commands cannot be applied and went to the dead letters",
            codes=dict(codes),
            first_partition=first.source.partition,
            first_offset=first.source.offset,
            first_message=first.message,
        )

    async def _store(self, batch: Batch) -> None:
        """Write the batch durably, and note which cache blocks are old from now on."""
        batch.enter(Stage.STORED)
        encoded, live = batch.decoded()
        with self._telemetry.stage("store"):
            await self._write(batch.records, encoded, live.compiled)
        self._observe_written(batch.records, encoded)
        if self._ports.invalidator is not None:
            batch.keys = encoded.touched_keys()
            held_ms = longest_hold_ms(batch.keys, holding_times_ms(live.document))
            batch.safe_at_ms = self._steady_ms() + held_ms
        batch.drop_bytes()

    async def _write(
        self, records: Sequence[LogRecord], encoded: CommandBatch, catalog: Catalog
    ) -> None:
        """Write cells; of a batch that the store refuses for good, bury the culprits alone."""
        if encoded.mutation_count == 0:
            return
        try:
            await self._until_done(
                "store",
                lambda: self._ports.store.store(encoded, catalog, now_ms=self._now_ms()),
            )
        except StoreRefused as error:
            if len(records) == 1:
                await self._append_letters([self._letter(records[0], error.code, str(error))])
                return
            middle = len(records) // 2
            for half in (records[:middle], records[middle:]):
                part = await self._encode(catalog, [record.value for record in half])
                await self._write(half, part, catalog)

    async def _invalidate(self) -> list[Batch]:
        """Invalidate what is new, and from time to time what is held; the batches that are free."""
        if self._ports.invalidator is not None:
            await self._attempt(self._ports.invalidator)
        free = self._held.release(self._steady_ms())
        self._telemetry.held_keys.set(self._held.key_count)
        return free

    async def _attempt(self, invalidator: CacheInvalidator) -> None:
        again = self._steady_ms() >= self._invalidation_due_ms
        attempt = self._held.attempt(again=again)
        if not attempt.keys:
            return
        try:
            with self._telemetry.stage("invalidate"):
                await invalidator.invalidate(attempt.keys)
        except CacheUnavailable as error:
            self._held.settle(attempt, error.keys)
            if again:
                self._try_later(error)
            return
        self._held.settle(attempt)
        if again:
            self._invalidation = Backoff(self._draw)

    def _try_later(self, error: CacheUnavailable) -> None:
        wait_ms = self._invalidation.next_ms()
        self._invalidation_due_ms = self._steady_ms() + wait_ms
        self._telemetry.count_retry("invalidate")
        self._say(
            logging.WARNING,
            "cache unavailable, commits are held",
            held_keys=self._held.key_count,
            error=str(error),
        )

    async def _commit(self, batches: Sequence[Batch]) -> None:
        """Commit the offsets of batches that are durable and invalidated."""
        offsets: dict[PartitionId, int] = {}
        for batch in batches:
            batch.enter(Stage.COMMITTED)
            offsets |= batch.next_offsets
        held = self._ports.consumer.assignment()
        offsets = {place: offset for place, offset in offsets.items() if place in held}
        if not offsets:
            return
        try:
            with self._telemetry.stage("commit"):
                await self._until_done("commit", lambda: self._ports.consumer.commit(offsets))
            self._telemetry.commits_done.inc()
        except CommitRefused as error:
            self._telemetry.commits_refused.inc()
            self._say(logging.WARNING, "commit refused", error=str(error))

    async def _until_done(self, stage: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try until it succeeds, waiting longer each time; raises `Abandoned` when told to stop.

        Says when trouble begins, changes and ends, not each attempt: the metrics count those.
        """
        backoff = Backoff(self._draw)
        trouble = ""
        while True:
            try:
                outcome = await attempt()
            except SyncError as error:
                if not error.retriable or isinstance(error, CommitRefused):
                    raise
                if self._stopping.is_set():
                    raise Abandoned(stage) from error
                wait_ms = backoff.next_ms()
                self._telemetry.count_retry(stage)
                if str(error) != trouble:
                    trouble = str(error)
                    self._say(logging.WARNING, "trying again", stage=stage, error=trouble)
            else:
                if trouble:
                    self._say(logging.INFO, "going on", stage=stage, attempts=backoff.attempts)
                return outcome
            await self._sleep(wait_ms)
            await self._keep_membership()

    async def _keep_membership(self) -> None:
        # Without the log there is no membership to keep: what is tried again will say so.
        with contextlib.suppress(SyncError):
            await self._ports.consumer.heartbeat()

    async def _sleep(self, wait_ms: int) -> None:
        """Wait, but not past `stop`."""
        try:
            async with asyncio.timeout(wait_ms / 1000):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _say(self, level: int, event: str, **fields: object) -> None:
        """One structured line: a constant sentence, and what differs as fields of the record."""
        logger.log(level, event, extra={"topic": self._topic, **fields})

    def _observe_written(self, records: Sequence[LogRecord], encoded: CommandBatch) -> None:
        now_ms = self._now_ms()
        self._telemetry.written.inc(encoded.accepted - encoded.expired)
        self._telemetry.expired.inc(encoded.expired)
        oldest_ms = min(record.appended_at_ms for record in records)
        self._telemetry.log_delay_s.observe(max(0, now_ms - oldest_ms) / 1000)
        if encoded.newest_event_time_ms is not None:
            event_delay_ms = now_ms - encoded.newest_event_time_ms
            self._telemetry.event_delay_s.observe(max(0, event_delay_ms) / 1000)

    async def _observe_lag(self) -> None:
        if self._steady_ms() < self._lag_due_ms:
            return
        self._lag_due_ms = self._steady_ms() + self._limits.lag_interval_ms
        try:
            lag: Mapping[PartitionId, int] = await self._ports.consumer.lag()
        except SyncError:
            return  # The gauge keeps its last value; polling meets the same trouble and says so.
        self._telemetry.lag_rows.set(sum(lag.values()))


def reason(rejection: Rejection) -> str:
    """One sentence of what is wrong with a command, and where in it."""
    place = f" at `{rejection.path}`" if rejection.path else ""
    offset = f", byte {rejection.offset}" if rejection.offset is not None else ""
    return f"{rejection.message}{place}{offset}"

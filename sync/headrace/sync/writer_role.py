"""The writer role: one loop on the real-time topic and one on the bulk topic, over one store.

They share nothing but the store, so a nightly upsync costs a real-time command at most the bulk
batch that is being written when it comes; small bulk batches and a rate limit bound that.
"""

from __future__ import annotations

import asyncio

from headrace.registry.watch import CatalogWatcher
from headrace.sync.ports import CacheInvalidator, CommandLog, OnlineWriter, Topic
from headrace.sync.rate_limit import RateLimiter
from headrace.sync.telemetry import SyncTelemetry
from headrace.sync.writer import WRITER_GROUP, Writer, WriterLimits, WriterPorts

REALTIME_LIMITS = WriterLimits(rows_max=5_000, age_max_ms=5)
BULK_LIMITS = WriterLimits(rows_max=2_000, age_max_ms=20)


class WriterRole:
    """Both loops. `bulk_rows_per_s` None leaves the bulk topic without a rate limit."""

    def __init__(
        self,
        command_log: CommandLog,
        store: OnlineWriter,
        catalog: CatalogWatcher,
        telemetry: SyncTelemetry,
        *,
        invalidator: CacheInvalidator | None = None,
        bulk_rows_per_s: float | None = None,
    ) -> None:
        def writer(topic: Topic, limits: WriterLimits, limiter: RateLimiter | None) -> Writer:
            ports = WriterPorts(
                consumer=command_log.consumer(topic, WRITER_GROUP),
                dead_letters=command_log.dead_letters(),
                store=store,
                catalog=catalog,
                invalidator=invalidator,
            )
            return Writer(topic, ports, telemetry.topic(topic), limits=limits, limiter=limiter)

        limiter = None if bulk_rows_per_s is None else RateLimiter(bulk_rows_per_s)
        self._writers = [
            writer("realtime", REALTIME_LIMITS, None),
            writer("bulk", BULK_LIMITS, limiter),
        ]

    async def run(self) -> None:
        """Write until `stop`; the loops end together."""
        async with asyncio.TaskGroup() as tasks:
            for writer in self._writers:
                tasks.create_task(writer.run())

    def stop(self) -> None:
        """Let both loops finish the batch in hand."""
        for writer in self._writers:
            writer.stop()

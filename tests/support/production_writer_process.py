"""A real writer process on Kafka, a ScyllaDB-speaking store and a cache, that dies where told.

The production twin of `writer_process`: the same plans and points around the real adapters.
"""

from __future__ import annotations

import asyncio
import random
import signal

import msgspec
from prometheus_client import CollectorRegistry
from writer_process import (
    FixedCatalogReader,
    MortalConsumer,
    MortalDeadLetters,
    MortalStore,
    Plan,
    Reaper,
)

from headrace.cli.scylla import ScyllaEngine
from headrace.registry.cache_url import CacheUrl
from headrace.registry.catalog import CatalogDocument
from headrace.registry.watch import CatalogWatcher
from headrace.sync.clock import wall_clock_ms
from headrace.sync.logs.kafka import KafkaCommandLog
from headrace.sync.logs.kafka_url import KafkaUrl
from headrace.sync.ports import Topic
from headrace.sync.stores.redis import RedisInvalidator
from headrace.sync.telemetry import SyncTelemetry
from headrace.sync.writer import WRITER_GROUP, Writer, WriterLimits, WriterPorts

STARTUP_LIMIT_MS = 20_000
"""Of a store request: many processes start at once here, and none may die of that."""


class Servers(msgspec.Struct, frozen=True):
    """Where the writer works, as the URLs of a configuration."""

    online: str
    commands: str
    cache: str


def run_production_writer(servers: Servers, catalog: CatalogDocument, plan: Plan) -> None:
    """Write the real-time topic until the plan's end or SIGTERM."""
    asyncio.run(_run(servers, catalog, plan))


async def _run(servers: Servers, catalog: CatalogDocument, plan: Plan) -> None:
    reaper = Reaper(plan)
    topic: Topic = "realtime"
    engine = await ScyllaEngine.open(servers.online, request_limit_ms=STARTUP_LIMIT_MS)
    command_log = KafkaCommandLog(KafkaUrl.parse(servers.commands), session_ms=plan.session_ms)
    invalidator = RedisInvalidator(CacheUrl.parse(servers.cache))
    writer = Writer(
        topic,
        WriterPorts(
            consumer=MortalConsumer(command_log.consumer(topic, WRITER_GROUP), reaper),
            dead_letters=MortalDeadLetters(command_log.dead_letters(), reaper),
            store=MortalStore(engine.writer(), reaper),
            catalog=CatalogWatcher(FixedCatalogReader(catalog), wall_clock_ms),
            invalidator=invalidator,
        ),
        SyncTelemetry(CollectorRegistry()).topic(topic),
        limits=WriterLimits(rows_max=plan.rows_max, age_max_ms=0, wait_ms=50),
        draw=random.random,
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, writer.stop)
    await writer.run()
    await command_log.close()
    await invalidator.close()
    await engine.close()

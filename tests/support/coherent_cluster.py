"""A whole system for the coherence checker: writers, gateways, one cache, one store, one history.

The writers are the product's own, over a command log in memory; the cache node is a Valkey that may
be flushed and killed, behind one fault proxy a client; the store is shared and never killed, so its
outages are made at its port.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any

import msgspec
from coherence import (
    LEVEL,
    NAME,
    Audited,
    Checker,
    Disturbed,
    Event,
    Key,
    Lying,
    ReadBegun,
    ReadEnded,
    Rules,
    StoreOutage,
    WriteAcknowledged,
    WriteBegun,
    WriteStored,
    value_of,
)
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from store_reads import DEADLINE_MS, Gateway, now_ms, until

from headrace.cli.scylla import ScyllaEngine
from headrace.codec import CachedReads, Catalog, CommandBatch, PendingRead, Placement, ReadEngine
from headrace.gateway.cached.reads import StoreReads
from headrace.gateway.catalog_in_force import CatalogInForce
from headrace.gateway.ports import Cells, Clock, RowReader, Unreachable
from headrace.gateway.stores.scylla import ScyllaRows
from headrace.loadtest.fault_proxy import FaultProxy, Pass, resp_reply_end
from headrace.loadtest.servers import Server
from headrace.registry.cache_url import CacheUrl
from headrace.registry.catalog import (
    CachePolicy,
    CatalogDocument,
    Group,
    KeyField,
    Schema,
    ValueField,
    encode_document,
)
from headrace.registry.watch import CatalogWatcher
from headrace.sync.logs.memory import MemoryCommandLog, MemoryConsumer
from headrace.sync.ports import (
    BATCH_BYTES_MAX,
    CacheInvalidator,
    LogRecord,
    OnlineWriter,
    PartitionId,
)
from headrace.sync.stores.redis import RedisInvalidator
from headrace.sync.telemetry import SyncTelemetry
from headrace.sync.writer import WRITER_GROUP, Writer, WriterLimits, WriterPorts

KEYSPACE = "coherence"
USERS, PLAYS, BRIEF, NEAR = "live::users", "live::plays", "live::brief", "live::near"
CACHE_TTL_MS = 1_500
BRIEF_TTL_MS = 2_000
BRIEF_CACHE_TTL_MS = 60_000
LOCAL_TTL_MS = 200
EVENTS_MAX = 5
HOUR_MS = 3_600_000
BATCH_ROWS_MAX = 8
RULES = {
    USERS: Rules(ttl_ms=HOUR_MS, cache_ttl_ms=CACHE_TTL_MS),
    PLAYS: Rules(history_events=EVENTS_MAX, cache_ttl_ms=CACHE_TTL_MS),
    BRIEF: Rules(ttl_ms=BRIEF_TTL_MS, cache_ttl_ms=BRIEF_CACHE_TTL_MS),
    NEAR: Rules(ttl_ms=HOUR_MS, cache_ttl_ms=CACHE_TTL_MS, local_ttl_ms=LOCAL_TTL_MS),
}
PATIENT_RULES = {
    name: msgspec.structs.replace(rules, cache_ttl_ms=BRIEF_CACHE_TTL_MS)
    for name, rules in RULES.items()
}
"""The same with blocks that do not expire while a scenario is played."""
USER_NUMBERS = count(1)
"""Each key is of one scenario only, so that the tables need no emptying between them."""


def document(declared: Mapping[str, Rules] = RULES) -> CatalogDocument:
    """An Object, a History, and an Object whose rows soon expire, and one kept in process."""
    fields = (
        ValueField(id=1, name=LEVEL, type="Long", default=7),
        ValueField(id=2, name=NAME, type="Text", default=""),
    )
    groups = tuple(
        Group(
            id=number,
            name=name,
            feature_type="Object" if rules.history_events is None else "History",
            owner="o",
            keys=(KeyField(name="user_id", type="Long"),),
            schemas=(Schema(ordinal=1, fields=fields),),
            ttl_ms=rules.ttl_ms or HOUR_MS,
            max_events=EVENTS_MAX,
            cache=CachePolicy(ttl_ms=rules.cache_ttl_ms, local_ttl_ms=rules.local_ttl_ms),
        )
        for number, (name, rules) in enumerate(declared.items(), start=1)
    )
    return CatalogDocument(generation=1, published_at_ms=0, groups=groups)


@asynccontextmanager
async def open_engine(server: Server) -> AsyncGenerator[ScyllaEngine]:
    """A session on the keyspace of the coherence tests, with its tables."""
    url = f"scylla://{server.host}:{server.port}/{KEYSPACE}?replication=1"
    engine = await ScyllaEngine.open(url, create=True)
    await engine.table_admin().create(document().groups)
    yield engine
    await engine.close()


class Published:
    """A `CatalogReader` of one document."""

    def __init__(self, published: CatalogDocument) -> None:
        self._published = published

    async def generation(self) -> int:
        return self._published.generation

    async def load(self) -> bytes | None:
        return encode_document(self._published)


class Recorder:
    """Gives events their time, keeps them and hands them to the checker."""

    def __init__(self, rules: Mapping[str, Rules]) -> None:
        self.checker = Checker(rules)
        self.history: list[Event] = []
        self._loop = asyncio.get_running_loop()

    def note(self, kind: Callable[..., Event], *parts: object) -> None:
        """An event of this kind, now."""
        event = kind(self._loop.time(), *parts)
        self.checker.take(event)
        self.history.append(event)

    def about(self, key: Key) -> str:
        """What happened to one key, the last events of it, one a line."""
        reads = {
            event.read
            for event in self.history
            if isinstance(event, ReadBegun) and event.key == key
        }
        lines = [
            f"{position} {event}"
            for position, event in enumerate(self.history)
            if getattr(event, "key", key) == key
            and (not isinstance(event, ReadEnded) or event.read in reads)
        ]
        return "\n".join(lines[-60:])


class NotingConsumer(MemoryConsumer):
    """Writes begin when they are polled and are acknowledged when they are committed."""

    def __init__(self, log: MemoryCommandLog, member: str, recorder: Recorder) -> None:
        super().__init__(log, "realtime", WRITER_GROUP, member)
        self._recorder = recorder
        self._uncommitted: list[tuple[PartitionId, int, Key, int]] = []
        self.in_hand: list[tuple[Key, int]] = []
        """What was polled and is not in the store yet."""

    async def poll(
        self, *, rows_max: int, wait_ms: int, bytes_max: int = BATCH_BYTES_MAX
    ) -> list[LogRecord]:
        rows_max = min(rows_max, BATCH_ROWS_MAX)
        records = await super().poll(rows_max=rows_max, wait_ms=wait_ms, bytes_max=bytes_max)
        for record in records:
            command = msgspec.json.decode(record.value)
            key = (command["feature_name"], command["keys"]["user_id"])
            fields = tuple(field for field in command["values"] if not field.startswith("_"))
            event_time_ms = command["values"]["_last_updated_at_ms"]
            self._recorder.note(WriteBegun, key, event_time_ms, fields)
            place = (record.coordinates.topic, record.coordinates.partition)
            self._uncommitted.append((place, record.coordinates.offset, key, event_time_ms))
            self.in_hand.append((key, event_time_ms))
        return records

    async def commit(self, offsets: Mapping[PartitionId, int]) -> None:
        await super().commit(offsets)
        kept: list[tuple[PartitionId, int, Key, int]] = []
        for waiting in self._uncommitted:
            place, offset, key, at_ms = waiting
            if offset < offsets.get(place, 0):
                self._recorder.note(WriteAcknowledged, key, at_ms)
            else:
                kept.append(waiting)
        self._uncommitted = kept

    @property
    def uncommitted(self) -> int:
        """Commands that were polled and not committed."""
        return len(self._uncommitted)


class NotingWriter:
    """The store's writer, which takes its time and notes what is stored."""

    def __init__(
        self, writer: OnlineWriter, consumer: NotingConsumer, recorder: Recorder, lag: Lag
    ) -> None:
        self._writer = writer
        self._consumer = consumer
        self._recorder = recorder
        self._lag = lag

    async def store(self, batch: CommandBatch, catalog: Catalog, *, now_ms: int) -> None:
        in_hand, self._consumer.in_hand = self._consumer.in_hand, []
        await self._lag.pass_by()
        await self._writer.store(batch, catalog, now_ms=now_ms)
        for key, at_ms in in_hand:
            self._recorder.note(WriteStored, key, at_ms)
        await self._lag.pass_by()


class Lag:
    """Seeded delays: most of them none, some of a few milliseconds."""

    def __init__(self, chance: random.Random, *, longest_ms: float) -> None:
        self._chance = chance
        self._longest_ms = longest_ms

    async def pass_by(self) -> None:
        """Wait, or not."""
        draw = self._chance.random()
        if draw < 0.3:
            await asyncio.sleep(draw / 0.3 * self._longest_ms / 1000)


class LaggingRows:
    """The store's rows: sometimes late, and out of reach while `down`."""

    def __init__(self, rows: RowReader, lag: Lag) -> None:
        self._rows = rows
        self._lag = lag
        self.down = False

    async def fetch(
        self, catalog: Catalog, wanted: Sequence[tuple[bytes, int | None]], *, limit_ms: int
    ) -> list[Cells | Unreachable]:
        await self._lag.pass_by()
        if self.down:
            return [Unreachable("the store is out of reach")] * len(wanted)
        outcomes = await self._rows.fetch(catalog, wanted, limit_ms=limit_ms)
        await self._lag.pass_by()
        return outcomes


class Design(msgspec.Struct, kw_only=True):
    """How the parts of a cluster are made; planted bugs put others in their place."""

    document: CatalogDocument = msgspec.field(default_factory=document)
    older: CatalogDocument | None = None
    """What the first gateway starts with, until it looks for a newer generation."""
    rules: Mapping[str, Rules] = msgspec.field(default_factory=lambda: RULES)
    gateways: int = 3
    writer: type[Writer] = Writer
    rows: Callable[[RowReader], RowReader] = lambda rows: rows
    invalidator: Callable[[CacheInvalidator], CacheInvalidator] = lambda port: port
    store: Callable[[OnlineWriter], OnlineWriter] = lambda port: port
    longest_lag_ms: float = 6.0
    clock: Clock = now_ms


class Cluster:
    """Everything, opened by `open_cluster`. Drives reads and writes and notes them."""

    def __init__(self, engine: ScyllaEngine, node: Server, seed: int, design: Design) -> None:
        self.engine = engine
        self.node = node
        self.design = design
        self.chance = random.Random(seed)
        self.catalog = Catalog(encode_document(design.document))
        self.recorder = Recorder(design.rules)
        self.log = MemoryCommandLog(partition_count=4)
        self.consumers: list[NotingConsumer] = []
        self.gateways: list[Gateway] = []
        self.rows: list[LaggingRows] = []
        self.proxies: list[FaultProxy] = []
        """One before each gateway, and the writers' last."""
        self._readings = count()
        self._opened = 0
        self._event_times: dict[Key, int] = {}
        self._late: set[tuple[Key, int]] = set()
        self._appended = 0

    @property
    def checker(self) -> Checker:
        return self.recorder.checker

    @property
    def redis(self) -> Redis:
        """A client of one use, straight to the node."""
        return Redis(host=self.node.host, port=self.node.port)

    def cache_url(self, proxy: FaultProxy) -> CacheUrl:
        """The cache behind a proxy. Where keys lie is told by the epoch alone: one node."""
        return CacheUrl.parse(f"redis://127.0.0.1:{proxy.port}/0?epoch=1")

    def placement(self) -> Placement:
        return Placement([f"127.0.0.1:{self.node.port}"], epoch=1)

    async def write(self, key: Key, *, late_ms: int = 0, fields: tuple[str, ...] = ()) -> int:
        """Append one command; its event time. Without fields it is a DELETE.

        `late_ms`: that much older than the newest of its key, or than now when it is the first.
        """
        newest = self._event_times.get(key, 0)
        event_time_ms = max(newest + 2, (now_ms() - (0 if newest else late_ms)) // 2 * 2)
        if late_ms and newest:
            event_time_ms = newest - late_ms // 2 * 2 - 1  # Odd, so that it is no other's.
            while (key, event_time_ms) in self._late:
                event_time_ms -= 2
            self._late.add((key, event_time_ms))
        else:
            self._event_times[key] = event_time_ms
        history = self.design.rules[key[0]].history_events is not None
        method = "DELETE" if not fields else "APPEND" if history else "UPDATE"
        values: dict[str, Any] = {field: value_of(key, event_time_ms, field) for field in fields}
        command = {
            "feature_name": key[0],
            "method": method,
            "keys": {"user_id": key[1]},
            "values": values | {"_last_updated_at_ms": event_time_ms},
        }
        place = f"{key[0]}/{key[1]}".encode()
        await self.log.producer().append("realtime", [(place, json.dumps(command).encode())])
        self._appended += 1
        return event_time_ms

    async def write_through(
        self, key: Key, *, late_ms: int = 0, fields: tuple[str, ...] = (LEVEL, NAME)
    ) -> int:
        """Append one command and wait until it is acknowledged."""
        event_time_ms = await self.write(key, late_ms=late_ms, fields=fields)
        await until(lambda: self.acknowledged(key, event_time_ms))
        return event_time_ms

    def acknowledged(self, key: Key, event_time_ms: int) -> bool:
        written = self.checker.register(key).writes.get(event_time_ms)
        return written is not None and written.acknowledged is not None

    def stored(self, key: Key, event_time_ms: int) -> bool:
        written = self.checker.register(key).writes.get(event_time_ms)
        return written is not None and written.stored_s is not None

    async def read(
        self,
        reader: str,
        keys: Sequence[Key],
        gateway: int | None = None,
        fields: tuple[str, ...] | None = None,
    ) -> None:
        """One request for these keys and fields (all of them), through one gateway."""
        chosen = self.chance.randrange(len(self.gateways)) if gateway is None else gateway
        by_group: dict[str, list[Key]] = {}
        for key in keys:
            by_group.setdefault(key[0], []).append(key)
        body = {
            "reads": [
                {"feature_group": group, "keys": {"user_id": [user for _, user in asked]}}
                | ({} if fields is None else {"fields": list(fields)})
                for group, asked in by_group.items()
            ]
        }
        self.note_disturbance()
        readings: list[list[int]] = []
        for asked in by_group.values():
            readings.append([next(self._readings) for _ in asked])
            for reading, key in zip(readings[-1], asked, strict=True):
                self.recorder.note(ReadBegun, reading, reader, key, now_ms(), fields)
        status, answer = await self.gateways[chosen].read(body)
        self.note_disturbance()
        ended_ms = now_ms()
        groups = list(by_group)
        for position, reads in enumerate(readings):
            if status == 503:
                result: dict[str, Any] = {"rows": [None] * len(reads), "statuses": []}
                result["statuses"] = [
                    {"row": row, "status": "UNAVAILABLE"} for row in range(len(reads))
                ]
            else:
                assert status == 200, answer
                result = answer["results"][position]
            shown = fields or self.design.rules[groups[position]].fields
            for row, reading in enumerate(reads):
                values, statuses = result["rows"][row], statuses_of(result, row, shown)
                self.recorder.note(ReadEnded, reading, ended_ms, values, statuses)

    def note_disturbance(self) -> None:
        """Note when any gateway lost the cache since the last look, or is without it."""
        opened = 0
        down = False
        for gateway in self.gateways:
            counters = gateway.reads.counters()
            opened += counters["breaker_opened"]
            down = down or counters["cache_nodes_up"] == 0
        if down or opened != self._opened:
            self._opened = opened
            self.recorder.note(Disturbed)

    def lying(self, *, begins: bool) -> None:
        self.recorder.note(Lying, begins)

    def store_outage(self, rows: LaggingRows, *, begins: bool) -> None:
        """Take the store from one gateway, or give it back."""
        rows.down = begins
        self.recorder.note(StoreOutage, begins)

    @property
    def unacknowledged(self) -> int:
        """Commands that were appended and not committed."""
        return self._appended - sum(self.log.positions[WRITER_GROUP].values())

    async def settled(self) -> None:
        """Wait until all is healed, written, acknowledged and filled."""
        for proxy in self.proxies:
            proxy.fault = Pass()
        await until(
            lambda: (
                self.unacknowledged == 0
                and not any(consumer.uncommitted for consumer in self.consumers)
            ),
            limit_s=20,
        )
        await until(
            lambda: all(
                not gateway.reads.nodes_down and gateway.reads.counters()["keys_under_way"] == 0
                for gateway in self.gateways
            ),
            limit_s=20,
        )

    async def audit(self, keys: Sequence[Key]) -> int:
        """Compare every cached block with what the store folds to; how many there were."""
        found = 0
        engine = ReadEngine()
        engine.install(self.catalog)
        placement = self.placement()
        reads = CachedReads(engine, placement)
        rows = ScyllaRows(self.engine.session, KEYSPACE)
        async with self.redis as redis:
            for token, key in enumerate(keys):
                body = {"reads": [{"feature_group": key[0], "keys": {"user_id": [key[1]]}}]}
                pending = reads.submit(
                    msgspec.json.encode(body),
                    caller=token,
                    accept=0,
                    now_ms=now_ms(),
                    request_id=b"audit",
                    keep_alive=True,
                )
                assert isinstance(pending, PendingRead)
                ((slot, key_bytes, events, cache_ttl_ms),) = pending.wanted()
                block_key = placement.block_key(key_bytes)
                cached, life_ms = await redis.get(block_key), await redis.pttl(block_key)
                (cells,) = await rows.fetch(
                    self.catalog, [(key_bytes, events)], limit_ms=DEADLINE_MS
                )
                assert isinstance(cells, Cells)
                looked_ms = now_ms()
                folded = pending.take_cells(slot, cells.cells, looked_ms)
                assert folded is not None
                block, longest_ms = folded
                usable = isinstance(cached, bytes) and reads_as_hit(reads, body, cached, looked_ms)
                pending.finish()
                if not usable or life_ms < 0:
                    continue
                found += 1
                whole = longest_ms >= min(cache_ttl_ms, 60_000)
                # Jitter is of the cache's own ttl; else a fill may come as late as its lease.
                longest_ms = int(longest_ms * 1.1) if whole else longest_ms + 2_000
                self.recorder.note(Audited, key, cached, block, life_ms, longest_ms)
        return found

    def verdict(self, seed: int) -> str:
        """Empty when every promise held; else what broke, with the seed and the key's history."""
        if not self.checker.violations:
            return ""
        first = self.checker.violations[0]
        told = "\n".join(str(violation) for violation in self.checker.violations[:10])
        return f"seed {seed}: {told}\n{self.recorder.about(first.key)}"


def reads_as_hit(reads: CachedReads, body: dict[str, Any], block: bytes, at_ms: int) -> bool:
    """Whether a gateway would answer from this block."""
    pending = reads.submit(
        msgspec.json.encode(body),
        caller=1 << 40,
        accept=0,
        now_ms=at_ms,
        request_id=b"audit",
        keep_alive=True,
    )
    assert isinstance(pending, PendingRead)
    usable = pending.take_block(pending.wanted()[0][0], block, at_ms)
    pending.finish()
    return usable


def statuses_of(result: dict[str, Any], row: int, fields: tuple[str, ...]) -> tuple[str, ...]:
    """The status of each field of a row."""
    found = dict.fromkeys(fields, "OK")
    for entry in result["statuses"]:
        if entry["row"] == row:
            found |= dict.fromkeys(entry.get("fields", fields), entry["status"])
    return tuple(found.values())


@asynccontextmanager
async def open_cluster(
    engine: ScyllaEngine, node: Server, *, seed: int, design: Design | None = None
) -> AsyncGenerator[Cluster]:
    """Gateways and two writers, at work; ended with the block."""
    cluster = Cluster(engine, node, seed, design or Design())
    async with AsyncExitStack() as stack:
        for _ in range(cluster.design.gateways + 1):
            proxy = FaultProxy(node.host, node.port, framing=resp_reply_end)
            cluster.proxies.append(await stack.enter_async_context(proxy))
        for proxy in cluster.proxies[:-1]:
            await _open_gateway(cluster, proxy, stack)
        await until(lambda: not any(gateway.reads.nodes_down for gateway in cluster.gateways))
        invalidator = RedisInvalidator(cluster.cache_url(cluster.proxies[-1]))
        stack.push_async_callback(invalidator.close)
        await _open_writers(cluster, invalidator, stack)
        yield cluster


class Newest:
    """A catalog watch that finds a newer generation when it is asked to look."""

    problem: str | None = None

    def __init__(self, engine: ReadEngine, published: CatalogDocument) -> None:
        self._engine = engine
        self._published = published
        self.in_force = CatalogInForce(self)

    def install(self, document: CatalogDocument) -> None:
        catalog = Catalog(encode_document(document))
        self._engine.install(catalog)
        self.in_force.install(catalog, document)

    async def refresh(self) -> None:
        """Put the published generation into force."""
        self.install(self._published)


async def _open_gateway(cluster: Cluster, proxy: FaultProxy, stack: AsyncExitStack) -> None:
    engine = ReadEngine()
    watch = Newest(engine, cluster.design.document)
    first = not cluster.gateways
    watch.install((cluster.design.older if first else None) or cluster.design.document)
    in_force = watch.in_force
    rows = LaggingRows(
        ScyllaRows(cluster.engine.session, KEYSPACE),
        Lag(cluster.chance, longest_ms=cluster.design.longest_lag_ms),
    )
    reads = StoreReads(
        engine,
        in_force,
        cluster.design.rows(rows),
        cluster.cache_url(proxy),
        cluster.design.clock,
        default_deadline_ms=DEADLINE_MS,
    )
    reads.open()
    stack.push_async_callback(reads.close)
    cluster.rows.append(rows)
    cluster.gateways.append(Gateway(reads))


async def _open_writers(
    cluster: Cluster, invalidator: RedisInvalidator, stack: AsyncExitStack
) -> None:
    telemetry = SyncTelemetry(CollectorRegistry())
    watcher = CatalogWatcher(Published(cluster.design.document), now_ms)
    await watcher.refresh()
    cluster.consumers = [
        NotingConsumer(cluster.log, member, cluster.recorder) for member in ("one", "two")
    ]
    for consumer in cluster.consumers:
        await consumer.heartbeat()
    for consumer in cluster.consumers:
        store = NotingWriter(
            cluster.design.store(cluster.engine.writer()),
            consumer,
            cluster.recorder,
            Lag(cluster.chance, longest_ms=cluster.design.longest_lag_ms),
        )
        ports = WriterPorts(
            consumer=consumer,
            dead_letters=cluster.log.dead_letters(),
            store=store,
            catalog=watcher,
            invalidator=cluster.design.invalidator(invalidator),
        )
        writer = cluster.design.writer(
            "realtime",
            ports,
            telemetry.topic("realtime"),
            limits=WriterLimits(age_max_ms=0, wait_ms=20),
            draw=cluster.chance.random,
        )
        running = asyncio.create_task(writer.run())
        stack.push_async_callback(_stop, writer, running)


async def _stop(writer: Writer, running: asyncio.Task[None]) -> None:
    writer.stop()
    await running

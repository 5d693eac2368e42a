"""The lane over a real cache node: a usual request never meets a Python frame, a missed one does.

Rows come from memory where a networked store would be; everything before it is the real thing.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from running_gateway import Connection, limits, post, until

from headrace.codec import Catalog, LaneConnection, ReadEngine, SystemClock, encode_commands
from headrace.gateway.app import Ports, create_app
from headrace.gateway.cached import link, reads
from headrace.gateway.cached.reads import StoreReads
from headrace.gateway.catalog_in_force import CatalogInForce
from headrace.gateway.lane import LaneProtocol
from headrace.gateway.lane_state import Lane
from headrace.gateway.ports import Cells, Unreachable
from headrace.gateway.serve import GatewayServer, listen
from headrace.loadtest.servers import Server, start_valkey
from headrace.registry.cache_url import CacheUrl
from headrace.registry.catalog import (
    CatalogDocument,
    Group,
    KeyField,
    Schema,
    ValueField,
    encode_document,
)

USERS = 64
GROUP = "live::users"


def document() -> CatalogDocument:
    group = Group(
        id=1,
        name=GROUP,
        feature_type="Object",
        owner="o",
        keys=(KeyField(name="user_id", type="Long"),),
        schemas=(
            Schema(ordinal=1, fields=(ValueField(id=1, name="level", type="Long", default=0),)),
        ),
    )
    return CatalogDocument(generation=4, published_at_ms=0, groups=(group,), next_group_id=2)


class NoWatch:
    """A catalog that never changes."""

    problem: str | None = None

    async def refresh(self) -> None:
        """Nothing newer is there."""


@dataclass
class MemoryRows:
    """`RowReader` over cells in memory; reads wait while it is not `open`."""

    cells: dict[bytes, list[tuple[int, bytes]]]
    asked: int = 0
    open: asyncio.Event = field(default_factory=asyncio.Event)

    async def fetch(
        self, catalog: Catalog, wanted: Sequence[tuple[bytes, int | None]], *, limit_ms: int
    ) -> list[Cells | Unreachable]:
        self.asked += len(wanted)
        await self.open.wait()
        return [Cells(self.cells.get(key, [])) for key, _ in wanted]


@dataclass
class CachedGateway:
    """A running gateway over a cache node and rows in memory."""

    port: int
    lane: Lane
    reads: StoreReads
    rows: MemoryRows
    valkey: Server
    connections: list[Connection] = field(default_factory=list)

    async def connect(self) -> Connection:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        connection = Connection(reader, writer)
        self.connections.append(connection)
        return connection

    async def warm(self, connection: Connection) -> None:
        """Let every row be in the cache, and the head of `ask` be known."""
        await connection.exchange(ask(*range(USERS)))
        while True:
            before = self.rows.asked
            await connection.exchange(ask(*range(USERS)))
            if self.rows.asked == before:
                return


def ask(*users: int) -> bytes:
    reads = [{"feature_group": GROUP, "keys": {"user_id": list(users)}}]
    return post(json.dumps({"reads": reads}).encode())


def turns_of(gateway: CachedGateway) -> list[LaneConnection]:
    """The codec's half of every connection."""
    protocols = [each for each in gateway.lane.connections if isinstance(each, LaneProtocol)]
    return [protocol.turns for protocol in protocols]


def level_of(user: int) -> int:
    return 1_000 + user


async def levels(connection: Connection) -> list[int]:
    """The rows of the next answer."""
    answer = await connection.answer()
    assert answer.status == 200, answer.raw
    (result,) = json.loads(answer.body)["results"]
    assert result["statuses"] == []
    return [row[0] for row in result["rows"]]


def cells_of_users(catalog: Catalog) -> dict[bytes, list[tuple[int, bytes]]]:
    now_ms = SystemClock()()
    commands = [
        {
            "feature_name": GROUP,
            "method": "UPDATE",
            "keys": {"user_id": user},
            "values": {"level": level_of(user), "_last_updated_at_ms": now_ms},
        }
        for user in range(USERS)
    ]
    batch = encode_commands(
        catalog, [json.dumps(each).encode() for each in commands], now_ms=now_ms
    )
    return {each.key: [(each.field_id, each.cell)] for each in batch.mutations()}


@asynccontextmanager
async def serving(valkey: Server) -> AsyncGenerator[CachedGateway]:
    catalog = Catalog(encode_document(document()))
    engine, in_force = ReadEngine(), CatalogInForce(NoWatch())
    engine.install(catalog)
    in_force.install(catalog, document())
    rows, clock = MemoryRows(cells_of_users(catalog)), SystemClock()
    rows.open.set()
    url = CacheUrl.parse(f"redis://{valkey.host}:{valkey.port}/0")
    reads = StoreReads(engine, in_force, rows, url, clock, default_deadline_ms=5_000)
    reads.open()
    await until(lambda: not reads.nodes_down)
    ports = Ports(
        in_force=in_force,
        clock=clock,
        envelope_schema=ReadEngine.envelope_schema(),
        metrics=CollectorRegistry(),
        late=reads,
        direct=reads.direct,
    )
    app = create_app(ports, limits())
    server, listener = GatewayServer(app), listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    task = asyncio.create_task(server.serve_on(listener))
    await until(lambda: server.started or task.done())
    gateway = CachedGateway(port, app.state.lane, reads, rows, valkey)
    try:
        yield gateway
    finally:
        rows.open.set()
        for connection in gateway.connections:
            connection.abort()
        server.stop()
        await task
        await reads.close()


@pytest.fixture
async def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[CachedGateway]:
    monkeypatch.setattr(link, "REPLY_LIMIT_S", 5.0)  # a frozen node is not left, as a slow one is
    valkey = await asyncio.to_thread(start_valkey, tmp_path / "valkey")
    try:
        async with serving(valkey) as live:
            yield live
    finally:
        await asyncio.to_thread(valkey.stop)


async def test_a_missed_read_comes_from_the_store_and_then_from_the_cache(
    gateway: CachedGateway,
) -> None:
    connection = await gateway.connect()
    connection.send(ask(3, 5))
    assert await levels(connection) == [level_of(3), level_of(5)]
    assert gateway.rows.asked == 2
    await gateway.warm(connection)
    asked, hits = gateway.rows.asked, gateway.reads.counters()["cache_hits"]
    connection.send(ask(5, 3, 5))
    assert await levels(connection) == [level_of(5), level_of(3), level_of(5)]
    assert gateway.rows.asked == asked
    assert gateway.reads.counters()["cache_hits"] == hits + 3
    assert gateway.lane.direct.known_heads == 1


async def test_every_answer_is_counted_once_wherever_it_comes_from(gateway: CachedGateway) -> None:
    connection = await gateway.connect()
    await connection.exchange(ask(1))
    await gateway.warm(connection)
    before = dict(gateway.lane.telemetry.reads.totals()[2])
    written = gateway.lane.telemetry.lane_requests
    await connection.exchange(ask(1))
    assert (await connection.exchange(post(b"{}"))).status == 400
    statuses = dict(gateway.lane.telemetry.reads.totals()[2])
    assert (statuses[200], statuses[400]) == (before[200] + 1, 1)
    assert gateway.lane.telemetry.lane_requests == written + 2


async def test_each_of_many_callers_gets_its_own_rows(gateway: CachedGateway) -> None:
    """Many answers come in one reply of the node, and go to as many connections."""
    connections = [await gateway.connect() for _ in range(24)]
    await gateway.warm(connections[0])
    source = random.Random(8)
    for _ in range(30):
        wanted = [source.choices(range(USERS), k=source.randrange(1, 9)) for _ in connections]
        for connection, users in zip(connections, wanted, strict=True):
            connection.send(ask(*users))
        for connection, users in zip(connections, wanted, strict=True):
            assert await levels(connection) == [level_of(user) for user in users]
    assert gateway.lane.held_bytes == 0


async def test_pipelined_hits_wait_for_the_miss_before_them(gateway: CachedGateway) -> None:
    connection = await gateway.connect()
    await gateway.warm(connection)
    gateway.rows.open.clear()
    missed = 10_000
    gateway.rows.cells[
        Catalog(encode_document(document())).encode_key(GROUP, {"user_id": missed})
    ] = next(iter(gateway.rows.cells.values()))
    connection.send(ask(missed))
    await until(lambda: gateway.reads.counters()["keys_under_way"] == 1)
    for user in (1, 2):
        connection.send(ask(user))
        await asyncio.sleep(0)
    await until(lambda: [each.due for each in turns_of(gateway)] == [3])
    gateway.rows.open.set()
    assert [await levels(connection) for _ in range(3)] == [
        [level_of(0)],
        [level_of(1)],
        [level_of(2)],
    ]
    assert gateway.lane.held_bytes == 0


async def test_a_caller_that_leaves_while_the_cache_is_asked_takes_nobodys_answer(
    gateway: CachedGateway,
) -> None:
    gone, stays = await gateway.connect(), await gateway.connect()
    await gateway.warm(stays)
    await gone.exchange(ask(1))
    gateway.valkey.freeze()
    try:
        gone.send(ask(7))
        stays.send(ask(8))
        await until(lambda: gateway.reads.direct.work_under_way > 1_000)
        gone.abort()
        await until(lambda: not all(each.usual for each in turns_of(gateway)))
    finally:
        gateway.valkey.resume()
    assert await levels(stays) == [level_of(8)]
    await until(lambda: len(gateway.lane.connections) == 1)
    assert gateway.lane.held_bytes == 0
    assert gateway.reads.direct.work_under_way == 0


async def test_a_node_that_dies_while_it_is_asked_leaves_its_reads_to_the_store(
    gateway: CachedGateway,
) -> None:
    connections = [await gateway.connect() for _ in range(6)]
    await gateway.warm(connections[0])
    gateway.valkey.freeze()
    for user, connection in enumerate(connections):
        connection.send(ask(user, user + 1))
    await until(lambda: gateway.reads.direct.work_under_way > 6 * 500)
    await asyncio.to_thread(gateway.valkey.stop)
    for user, connection in enumerate(connections):
        assert await levels(connection) == [level_of(user), level_of(user + 1)]
    assert gateway.reads.direct.work_under_way == 0
    assert gateway.lane.held_bytes == 0


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that lets in one read at a time."""
    monkeypatch.setattr(reads, "CACHED_WORK_LEAST", 1)
    monkeypatch.setattr(reads, "CACHED_READS_LEAST", 1)
    monkeypatch.setattr(reads, "CACHED_WORK_UNKNOWN", 1)


@pytest.mark.usefixtures("narrow")
async def test_reads_beyond_what_is_admitted_are_refused_in_their_turn(
    gateway: CachedGateway,
) -> None:
    connection = await gateway.connect()
    await gateway.warm(connection)
    gateway.valkey.freeze()
    try:
        connection.send(ask(1))
        await until(lambda: gateway.reads.direct.work_under_way > 0)
        connection.send(ask(3))
        await until(lambda: gateway.reads.counters()["reads_refused"] == 1)
    finally:
        gateway.valkey.resume()
    assert await levels(connection) == [level_of(1)]
    refused = await connection.answer()
    assert (refused.status, refused.json()["code"]) == (503, "OVERLOADED")
    assert gateway.lane.held_bytes == 0
    assert await connection.exchange(ask(3))

"""A gateway's reads over a real ScyllaDB-speaking store and a real cache, without HTTP around."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import acsylla
import msgspec

from headrace.cli.scylla import ScyllaEngine
from headrace.codec import Catalog, ReadEngine, encode_commands
from headrace.gateway.cached.reads import StoreReads
from headrace.gateway.catalog_in_force import CatalogInForce
from headrace.gateway.ports import Clock, RowReader
from headrace.gateway.stores.scylla import ScyllaRows
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
from headrace.registry.physical import table_name
from headrace.sync.stores.redis import RedisInvalidator

USERS, PLAYS = "live::users", "live::plays"
FIELDS = (
    ValueField(id=1, name="level", type="Long", default=7),
    ValueField(id=2, name="name", type="Text", default=""),
)
DEADLINE_MS = 5_000


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def document() -> CatalogDocument:
    """An Object and a History group, both cached, with a ttl of an hour."""
    groups = tuple(
        Group(
            id=number,
            name=name,
            feature_type="Object" if name == USERS else "History",
            owner="o",
            keys=(KeyField(name="user_id", type="Long"),),
            schemas=(Schema(ordinal=1, fields=FIELDS),),
            ttl_ms=3_600_000,
            max_events=5,
            cache=CachePolicy(ttl_ms=600_000),
        )
        for number, name in ((1, USERS), (2, PLAYS))
    )
    return CatalogDocument(generation=1, published_at_ms=0, groups=groups)


class NoWatch:
    """A catalog that never changes."""

    problem: str | None = None

    async def refresh(self) -> None:
        """Nothing newer is there."""


class Store:
    """One keyspace with its tables, written as the writer writes: store, then invalidate."""

    def __init__(self, engine: ScyllaEngine, catalog: Catalog) -> None:
        self.engine = engine
        self.catalog = catalog
        self.writer = engine.writer()
        self.invalidator: RedisInvalidator | None = None

    async def write(self, *commands: dict[str, Any]) -> None:
        payloads = [json.dumps(command).encode() for command in commands]
        batch = encode_commands(self.catalog, payloads, now_ms=now_ms())
        assert batch.rejections == []
        await self.writer.store(batch, self.catalog, now_ms=now_ms())
        if self.invalidator is not None:
            await self.invalidator.invalidate(batch.touched_keys())


def command(
    user: int,
    *,
    group: str = USERS,
    method: str = "UPDATE",
    at_ms: int | None = None,
    **values: Any,
) -> dict[str, Any]:
    at = now_ms() if at_ms is None else at_ms
    return {
        "feature_name": group,
        "method": method,
        "keys": {"user_id": user},
        "values": values | {"_last_updated_at_ms": at},
    }


KEYSPACE = "store_reads"


@asynccontextmanager
async def open_store(
    server: Server, *, port: int | None = None, options: str = ""
) -> AsyncGenerator[Store]:
    """The keyspace of these tests, emptied; `port` may be that of a proxy before the server."""
    engine = await ScyllaEngine.open(
        f"scylla://{server.host}:{port or server.port}/{KEYSPACE}?replication=1{options}",
        create=True,
    )
    made = document()
    await engine.table_admin().create(made.groups)
    for group in made.groups:
        truncate = f"TRUNCATE {KEYSPACE}.{table_name(group.name)}"
        await engine.session.execute(acsylla.create_statement(truncate, timeout=30.0))
    yield Store(engine, Catalog(encode_document(made)))
    await engine.close()


class Gateway:
    """`StoreReads` with an awaitable read."""

    def __init__(self, reads: StoreReads) -> None:
        self.reads = reads

    async def answer(self, body: dict[str, Any], form: int = 0) -> bytes:
        """The whole response to one request."""
        delivered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        text = msgspec.json.encode(body)
        now = self.reads.start(text, form, b"test", keep_alive=True, deliver=delivered.set_result)
        return now or await delivered

    async def read(self, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and decoded body of one request."""
        head, _, answer = (await self.answer(body)).partition(b"\r\n\r\n")
        return int(head[9:12]), msgspec.json.decode(answer)

    async def rows(self, *users: int, group: str = USERS) -> list[Any]:
        """Rows of a request that must succeed."""
        body = {"reads": [{"feature_group": group, "keys": {"user_id": list(users)}}]}
        status, answer = await self.read(body)
        assert status == 200, answer
        rows: list[Any] = answer["results"][0]["rows"]
        return rows

    async def statuses(self, *users: int, group: str = USERS) -> list[str]:
        """The whole-row status of each row, OK where none is listed."""
        body = {"reads": [{"feature_group": group, "keys": {"user_id": list(users)}}]}
        _, answer = await self.read(body)
        found = ["OK"] * len(users)
        for entry in answer["results"][0]["statuses"]:
            found[entry["row"]] = entry["status"]
        return found


@asynccontextmanager
async def open_gateway(
    store: Store,
    cache: CacheUrl | None,
    *,
    rows: RowReader | None = None,
    clock: Clock = now_ms,
    wait_for_cache: bool = True,
) -> AsyncGenerator[Gateway]:
    engine = ReadEngine()
    engine.install(store.catalog)
    in_force = CatalogInForce(NoWatch())
    in_force.install(store.catalog, document())
    reads = StoreReads(
        engine,
        in_force,
        rows or ScyllaRows(store.engine.session, store.engine.url.keyspace),
        cache,
        clock,
        default_deadline_ms=DEADLINE_MS,
    )
    reads.open()
    if cache is not None and wait_for_cache:
        await until(lambda: not reads.nodes_down)
    yield Gateway(reads)
    await reads.close()


async def until(holds: Any, *, limit_s: float = 10.0) -> None:
    """Wait for a condition, by looking at it every few milliseconds."""
    async with asyncio.timeout(limit_s):
        while not holds():  # noqa: ASYNC110 - nothing signals what tests wait for
            await asyncio.sleep(0.005)

"""The store frozen or gone: the cache answers what it may, the rest is UNAVAILABLE (R5, R7, R8).

A default or a MISSING that was never read from the store would be a lie that a model cannot see.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from store_reads import (
    PLAYS,
    USERS,
    Gateway,
    Store,
    command,
    now_ms,
    open_gateway,
    open_store,
    until,
)

from headrace.codec import Catalog
from headrace.gateway.ports import Cells, Unreachable
from headrace.gateway.stores.scylla import READS_IN_FLIGHT_MAX, ScyllaRows
from headrace.loadtest.servers import Server, start_cassandra
from headrace.registry.cache_url import CacheUrl
from headrace.sync.errors import StoreUnavailable
from headrace.sync.stores.redis import RedisInvalidator

CACHED, UNCACHED, ABSENT = [1, 2, 3], [4, 5], 6
DEADLINE_MS = 150
HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def cassandra(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """A Cassandra that these tests may freeze and kill."""
    server = start_cassandra(tmp_path_factory.mktemp("cassandra"), durable=True)
    yield server
    server.stop()


class CountedSession:
    """The driver's session, and when on the loop's clock each statement was sent."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.create_prepared = session.create_prepared
        self.sent_at_s: list[float] = []

    async def execute(self, statement: Any) -> Any:
        self.sent_at_s.append(asyncio.get_running_loop().time())
        return await self._session.execute(statement)


class CountedRows:
    """The store's rows; counts the keys that were asked for."""

    def __init__(self, rows: ScyllaRows) -> None:
        self._rows = rows
        self.asked = 0

    async def fetch(
        self, catalog: Catalog, wanted: Sequence[tuple[bytes, int | None]], *, limit_ms: int
    ) -> list[Cells | Unreachable]:
        self.asked += len(wanted)
        return await self._rows.fetch(catalog, wanted, limit_ms=limit_ms)


@dataclass
class Scene:
    """A gateway whose cache knows some users and not others, and the clock it lives by."""

    server: Server
    store: Store
    gateway: Gateway
    session: CountedSession
    rows: CountedRows
    clock_ahead_ms: int = 0

    async def read(
        self, *users: int, group: str = USERS, **options: Any
    ) -> tuple[int, list[Any], dict[int, str]]:
        """Status code, rows, and the status of each row that is not OK, with the cache up."""
        while True:
            opened = self.gateway.reads.counters()["breaker_opened"]
            await until(lambda: not self.gateway.reads.nodes_down)
            outcome = await self.read_once(*users, group=group, **options)
            if self.gateway.reads.counters()["breaker_opened"] == opened:
                return outcome  # Else a busy machine made the cache late: not what is tested here.

    async def read_once(
        self, *users: int, group: str = USERS, **options: Any
    ) -> tuple[int, list[Any], dict[int, str]]:
        """The same, whatever the cache does."""
        read = {"feature_group": group, "keys": {"user_id": list(users)}}
        body = {"reads": [read], "deadline_ms": DEADLINE_MS, **options}
        code, answer = await self.gateway.read(body)
        if code != 200:
            assert answer["code"] == ("STRICT_PARTIAL" if "strict" in options else "UNAVAILABLE")
            return code, [], {}
        (result,) = answer["results"]
        return code, result["rows"], {each["row"]: each["status"] for each in result["statuses"]}

    async def fill_the_cache(self, group: str) -> None:
        async with asyncio.timeout(10):
            while True:
                before = self.rows.asked
                await self.gateway.rows(*CACHED, ABSENT, group=group)
                await self.settled()
                if self.rows.asked == before:
                    return

    async def settled(self) -> None:
        """Wait until no key is being read."""
        await until(lambda: self.gateway.reads.counters()["keys_under_way"] == 0)

    async def recovered(self) -> None:
        """Wait until the store answers again, through the same gateway."""
        async with asyncio.timeout(20):
            while (await self.read(*UNCACHED))[0] != 200:
                pass


@pytest.fixture
async def scene(cassandra: Server, valkey_server: Server) -> AsyncGenerator[Scene]:
    epoch = uuid.uuid4().int % 2**31
    url = CacheUrl.parse(f"redis://{valkey_server.host}:{valkey_server.port}/0?epoch={epoch}")
    async with open_store(cassandra) as store:
        store.invalidator = RedisInvalidator(url)
        for user in CACHED + UNCACHED:
            await store.write(
                command(user, level=user, name="x"),
                command(user, group=PLAYS, method="APPEND", level=user, name="p"),
            )
        session = CountedSession(store.engine.session)
        rows = CountedRows(ScyllaRows(session, store.engine.url.keyspace))
        made: list[Scene] = []

        def clock() -> int:
            return now_ms() + (made[0].clock_ahead_ms if made else 0)

        async with open_gateway(store, url, rows=rows, clock=clock) as gateway:
            made.append(Scene(cassandra, store, gateway, session, rows))
            for group in (USERS, PLAYS):
                await made[0].fill_the_cache(group)
            yield made[0]
            cassandra.resume()
        await store.invalidator.close()


async def check_that_nothing_is_made_up(scene: Scene) -> None:
    code, rows, statuses = await scene.read(*CACHED, *UNCACHED, ABSENT)
    assert code == 200
    assert rows[:3] == [[1, "x"], [2, "x"], [3, "x"]]
    assert rows[3:5] == [[None, None], [None, None]]
    assert statuses == {3: "UNAVAILABLE", 4: "UNAVAILABLE", 5: "MISSING"}

    code, rows, statuses = await scene.read(1, 4, ABSENT, group=PLAYS)
    assert code == 200
    assert [event[1:] for event in rows[0]] == [[1, "p"]]
    assert rows[1] is None
    assert statuses == {1: "UNAVAILABLE", 2: "MISSING"}

    for options in ({"missing": "default"}, {"missing": "null"}, {"layout": "columns"}):
        assert (await scene.read(*UNCACHED, **options))[0] == 503
    assert (await scene.read(1, 4, strict=True))[0] == 503
    assert (await scene.read(*CACHED, strict=True))[0] == 200
    assert b"\r\nretry-after: " in await scene.gateway.answer(
        {"reads": [{"feature_group": USERS, "keys": {"user_id": UNCACHED}}], "deadline_ms": 50}
    )


async def test_with_the_store_frozen_nothing_is_made_up_and_it_recovers(scene: Scene) -> None:
    scene.server.freeze()
    await check_that_nothing_is_made_up(scene)
    scene.server.resume()
    await scene.recovered()
    assert await scene.gateway.statuses(*CACHED, *UNCACHED) == ["OK"] * 5


async def test_with_the_store_killed_nothing_is_made_up_and_it_recovers(scene: Scene) -> None:
    scene.server.stop()
    try:
        await check_that_nothing_is_made_up(scene)
    finally:
        await asyncio.to_thread(scene.server.start)
    await scene.recovered()
    assert await scene.gateway.statuses(*CACHED, *UNCACHED) == ["OK"] * 5
    await scene.store.write(command(4, level=40))
    assert await scene.gateway.rows(4) == [[40, "x"]]


async def test_an_outage_does_not_stretch_a_rows_life(scene: Scene) -> None:
    """What the group's ttl ended is not served from the cache because the store is away."""
    scene.server.freeze()
    scene.clock_ahead_ms = HOUR_MS - 60_000
    assert (await scene.read(*CACHED))[2] == {}
    scene.clock_ahead_ms = HOUR_MS
    assert (await scene.read(*CACHED))[0] == 503


async def test_after_the_deadline_no_statement_is_sent(scene: Scene) -> None:
    """More keys than may be in flight: those still in line when time is up are never asked."""
    scene.server.freeze()
    before = len(scene.session.sent_at_s)
    users = range(1_000, 1_000 + READS_IN_FLIGHT_MAX + 200)
    begun_s = asyncio.get_running_loop().time()
    assert (await scene.read_once(*users))[0] == 503
    await scene.settled()
    sent = scene.session.sent_at_s[before:]
    assert len(sent) == READS_IN_FLIGHT_MAX
    assert max(sent) < begun_s + DEADLINE_MS / 1000


async def test_an_impossible_deadline_asks_nothing(scene: Scene) -> None:
    before = len(scene.session.sent_at_s)
    loop = asyncio.get_running_loop()
    delivered: asyncio.Future[bytes] = loop.create_future()
    body = b'{"reads":[{"feature_group":"live::users","keys":{"user_id":[4]}}],"deadline_ms":1}'
    scene.gateway.reads.start(body, 0, b"r", keep_alive=True, deliver=delivered.set_result)
    due_s = loop.time() + 0.001
    while loop.time() < due_s:
        pass  # The loop stands still: by the time the cache's reply is heard, it is too late.
    assert b"UNAVAILABLE" in await delivered
    await scene.settled()
    assert len(scene.session.sent_at_s) == before


async def test_an_outage_is_not_made_worse_by_trying_again(scene: Scene) -> None:
    """Each request asks for each key at most once, shared reads that failed included (R8)."""
    scene.server.freeze()
    before, requests = scene.rows.asked, 40
    reads = [scene.read_once(4, deadline_ms=50 + 5 * number) for number in range(requests)]
    outcomes = await asyncio.gather(*reads)
    assert {code for code, _, _ in outcomes} == {503}
    assert scene.rows.asked - before <= requests


async def test_who_joins_a_hurried_read_does_not_share_its_failure(scene: Scene) -> None:
    """A read that one caller's deadline cut short is done again for a caller that can wait."""
    scene.server.freeze()
    hurried = asyncio.create_task(scene.read_once(4, deadline_ms=100))
    patient = asyncio.create_task(scene.read_once(4, deadline_ms=10_000))
    assert (await hurried)[0] == 503
    scene.server.resume()
    assert await patient == (200, [[4, "x"]], {})


async def test_a_write_to_a_frozen_store_is_refused_and_can_be_done_again(scene: Scene) -> None:
    scene.server.freeze()
    update = command(4, level=44)
    with pytest.raises(StoreUnavailable):
        await scene.store.write(update)
    scene.server.resume()
    await scene.store.write(update)
    assert await scene.gateway.rows(4) == [[44, "x"]]

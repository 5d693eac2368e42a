"""A cache that fails in every way we know: never a wrong value, never a failed request (R3).

Between the gateway and a real Valkey stands the fault proxy; behind it is the real store. Whatever
the cache does, each row must be the one that was written last, and the breaker must say so.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from redis.asyncio import Redis
from store_reads import USERS, Gateway, Store, command, open_gateway, open_store, until

from headrace.codec import Placement
from headrace.gateway.cached.link import REPLY_LIMIT_S, WATCH_INTERVAL_S
from headrace.loadtest.fault_proxy import (
    BlackHole,
    CutMidReply,
    Delay,
    DuplicateReply,
    Fault,
    FaultProxy,
    Garble,
    Pass,
    Refuse,
    SlowDrip,
    SwapReplies,
    resp_reply_end,
)
from headrace.loadtest.servers import Server, start_valkey
from headrace.registry.cache_url import CacheUrl
from headrace.sync.errors import CacheUnavailable
from headrace.sync.stores.redis import RedisInvalidator

WRITTEN, ABSENT = range(30), range(30, 36)
EVERYONE = [*WRITTEN, *ABSENT]
ROUNDS = 8
REQUESTS = 6


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """A Valkey that these tests may freeze, fill and kill."""
    server = start_valkey(tmp_path_factory.mktemp("valkey"))
    yield server
    server.stop()


@dataclass
class Scene:
    """A gateway over the proxy, and what the store holds."""

    server: Server
    client: Redis
    proxy: FaultProxy
    store: Store
    gateway: Gateway
    epoch: int
    invalidator: RedisInvalidator
    draw: random.Random = field(default_factory=lambda: random.Random(7))
    levels: dict[int, int] = field(default_factory=dict)
    uninvalidated: set[bytes] = field(default_factory=set)

    def count(self, name: str) -> int:
        return self.gateway.reads.counters()[name]

    async def write(self, *users: int) -> None:
        """New values, invalidated as the writer does: kept for later while the cache is away."""
        for user in users:
            self.levels[user] = self.levels.get(user, 0) + 1
        await self.store.write(
            *(command(user, level=self.levels[user], name=f"user {user}") for user in users)
        )
        keys = [self.store.catalog.encode_key(USERS, {"user_id": user}) for user in users]
        self.uninvalidated.update(keys)
        await self.invalidate()

    async def invalidate(self) -> None:
        try:
            await self.invalidator.invalidate(sorted(self.uninvalidated))
        except CacheUnavailable:
            return
        self.uninvalidated.clear()

    async def all_invalidated(self) -> None:
        """Wait until it is so: a node that did not answer is not asked for a few seconds."""
        async with asyncio.timeout(60):
            while self.uninvalidated:
                await self.invalidate()
                await asyncio.sleep(0.02)

    async def read(self, users: list[int]) -> None:
        """One request, which must succeed with exactly what was written last."""
        body = {"reads": [{"feature_group": USERS, "keys": {"user_id": users}}]}
        status, answer = await self.gateway.read(body)
        assert status == 200, answer
        expected = [
            [self.levels[user], f"user {user}"] if user in self.levels else [7, ""]
            for user in users
        ]
        assert answer["results"][0]["rows"] == expected
        missing = [row for row, user in enumerate(users) if user not in self.levels]
        assert answer["results"][0]["statuses"] == [
            {"row": row, "status": "MISSING"} for row in missing
        ]

    async def settled(self) -> None:
        await until(lambda: self.count("keys_under_way") == 0)

    async def is_served_by_the_cache(self) -> bool:
        """Whether one read of every key needs the store for none of them."""
        before = self.count("store_reads")
        await self.read(EVERYONE)
        await self.settled()
        return self.count("store_reads") == before

    async def served_by_the_cache(self) -> None:
        """Wait until it is so: leases of requests that were cut off live two seconds."""
        async with asyncio.timeout(10):
            while not await self.is_served_by_the_cache():  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.02)

    async def load(self, at_round: Callable[[int], None]) -> None:
        """Rounds of simultaneous requests of different sizes, with a few writes before each."""
        for number in range(ROUNDS):
            at_round(number)
            await self.write(*self.draw.sample(WRITTEN, 3))
            sizes = [self.draw.randint(1, 12) for _ in range(REQUESTS)]
            requests = (self.read(self.draw.sample(EVERYONE, size)) for size in sizes)
            await asyncio.gather(*requests)


@pytest.fixture
async def scene(cassandra_server: Server, valkey: Server) -> AsyncGenerator[Scene]:
    epoch = uuid.uuid4().int % 2**31
    direct = CacheUrl.parse(f"redis://{valkey.host}:{valkey.port}/0?epoch={epoch}")
    async with (
        open_store(cassandra_server) as store,
        FaultProxy(valkey.host, valkey.port, framing=resp_reply_end) as proxy,
        Redis(host=valkey.host, port=valkey.port) as client,
    ):
        through_proxy = CacheUrl.parse(f"redis://127.0.0.1:{proxy.port}/0?epoch={epoch}")
        invalidator = RedisInvalidator(direct)
        async with open_gateway(store, through_proxy) as gateway:
            opened = Scene(valkey, client, proxy, store, gateway, epoch, invalidator)
            await opened.write(*WRITTEN)
            yield opened
        await invalidator.close()


Act = Callable[[Scene], Awaitable[None]]


async def _nothing(_: Scene) -> None:
    """No act at this point."""


async def _freeze(scene: Scene) -> None:
    scene.server.freeze()


async def _resume(scene: Scene) -> None:
    scene.server.resume()


async def _kill(scene: Scene) -> None:
    scene.server.stop()


async def _restart(scene: Scene) -> None:
    await asyncio.to_thread(scene.server.start)


async def _fill_memory(scene: Scene) -> None:
    await scene.client.config_set("maxmemory-policy", "noeviction")
    await scene.client.config_set("maxmemory", "1mb")


async def _give_memory(scene: Scene) -> None:
    await scene.client.config_set("maxmemory", "256mb")


async def _flush(scene: Scene) -> None:
    await scene.client.flushall()


async def _flush_scripts(scene: Scene) -> None:
    await scene.client.script_flush()


@dataclass(frozen=True)
class Case:
    """One way to fail, and what the breaker must make of it."""

    name: str
    opens: bool | None
    """Whether the breaker opens; None where it depends on which bytes are hit."""
    fault: Callable[[int], Fault] = lambda _: Pass()
    begin: Act = _nothing
    end: Act = _nothing


CASES = [
    Case("refused", True, lambda _: Refuse()),
    Case("black-holed", True, lambda _: BlackHole()),
    Case("200 ms slow", True, lambda _: Delay(ms=200)),
    Case("cut in mid-reply", True, lambda _: CutMidReply()),
    Case("one byte at a time", True, lambda _: SlowDrip(bytes_per_second=100)),
    Case("every reply twice", True, lambda _: DuplicateReply()),
    Case("replies swapped", True, lambda _: SwapReplies()),
    Case("garbled", None, lambda number: Garble(seed=number)),
    Case("frozen", True, begin=_freeze, end=_resume),
    Case("killed and restarted", True, begin=_kill, end=_restart),
    Case("out of memory", False, begin=_fill_memory, end=_give_memory),
    Case("flushed", False, begin=_flush),
    Case("scripts flushed", False, begin=_flush_scripts),
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_a_failing_cache_costs_no_request_and_no_value(scene: Scene, case: Case) -> None:
    await scene.served_by_the_cache()
    opened = scene.count("breaker_opened")
    await case.begin(scene)

    def spoil(number: int) -> None:
        scene.proxy.fault = case.fault(number)

    try:
        await scene.load(spoil)
        if case.opens is not None:
            assert (scene.count("breaker_opened") > opened) is case.opens
    finally:
        scene.proxy.fault = Pass()
        await case.end(scene)
    await scene.all_invalidated()
    await until(lambda: not scene.gateway.reads.nodes_down)
    await scene.served_by_the_cache()


@pytest.mark.parametrize("rotten", ["torn", "of another key", "no block at all"])
async def test_a_rotten_block_is_replaced_from_the_store(scene: Scene, rotten: str) -> None:
    """What stands in the cache and cannot be used is a miss, and does not stand there for long."""
    await scene.is_served_by_the_cache()
    placement = Placement(["any:1"], epoch=scene.epoch)
    first, second = (
        placement.block_key(scene.store.catalog.encode_key(USERS, {"user_id": user}))
        for user in (0, 1)
    )
    sound = await scene.client.get(first)
    foreign = await scene.client.get(second)
    assert isinstance(sound, bytes)
    assert isinstance(foreign, bytes)
    put = {"torn": sound[:-1], "of another key": foreign}
    await scene.client.set(first, put.get(rotten, b"x"))
    await scene.read([0])
    await scene.served_by_the_cache()


class StandingClock(asyncio.SelectorEventLoop):
    """A loop whose clock moves only when told, so that waits are counted and not measured."""

    now_s = 1_000.0

    def time(self) -> float:
        return self.now_s


async def _wait_for_the_cache_s(server: Server, valkey: Server, fault: Fault) -> float:
    """How far the clock goes for a request that meets `fault`, beyond the store's own time."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, StandingClock)
    async with (
        open_store(server) as store,
        FaultProxy(valkey.host, valkey.port, framing=resp_reply_end) as proxy,
        AsyncExitStack() as stack,
    ):
        await store.write(command(1, level=1, name="x"))
        url = CacheUrl.parse(f"redis://127.0.0.1:{proxy.port}/0?epoch={uuid.uuid4().int % 2**31}")
        opening = asyncio.create_task(stack.enter_async_context(open_gateway(store, url)))
        while not opening.done():  # It waits for the cache by looking every few milliseconds.
            loop.now_s += 0.000_001
            await asyncio.sleep(0)
        gateway = opening.result()
        proxy.fault = fault
        begun_s = loop.time()
        reading = asyncio.create_task(gateway.rows(1))

        while gateway.reads.counters()["store_reads"] == 0:
            loop.now_s += 0.000_1
            await asyncio.sleep(0)
        waited_s = loop.time() - begun_s
        assert await reading == [[1, "x"]]
        return waited_s


@pytest.mark.parametrize(
    "fault", [BlackHole(), Delay(ms=200), SlowDrip(bytes_per_second=10)], ids=lambda f: f"{f}"
)
def test_a_request_waits_for_a_slow_cache_up_to_the_limit_of_its_link(
    cassandra_server: Server, valkey: Server, fault: Fault
) -> None:
    with asyncio.Runner(loop_factory=StandingClock) as runner:
        waited_s = runner.run(_wait_for_the_cache_s(cassandra_server, valkey, fault))
    assert waited_s <= REPLY_LIMIT_S + 2 * WATCH_INTERVAL_S


async def _serve_across_a_pause(server: Server, valkey: Server) -> int:
    """How often the breaker opens when this loop, and not the cache, stands still for a second."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, StandingClock)

    async def run(task: asyncio.Task[Any]) -> None:
        while not task.done():
            loop.now_s += 0.000_001  # A real reply may take many turns of a busy machine.
            await asyncio.sleep(0)

    async with (
        open_store(server) as store,
        FaultProxy(valkey.host, valkey.port, framing=resp_reply_end) as proxy,
        AsyncExitStack() as stack,
    ):
        await store.write(command(1, level=1, name="x"))
        url = CacheUrl.parse(f"redis://127.0.0.1:{proxy.port}/0?epoch={uuid.uuid4().int % 2**31}")
        opening = asyncio.create_task(stack.enter_async_context(open_gateway(store, url)))
        await run(opening)
        gateway = opening.result()
        proxy.fault = Delay(ms=10)
        reading = asyncio.create_task(gateway.rows(1))
        for _ in range(3):  # Submitted in the first turn, sent by the end of the second.
            await asyncio.sleep(0)
        loop.now_s += 1.0
        await run(reading)
        assert reading.result() == [[1, "x"]]
        return gateway.reads.counters()["breaker_opened"]


def test_a_cache_is_not_left_for_the_time_that_nobody_listened(
    cassandra_server: Server, valkey: Server
) -> None:
    with asyncio.Runner(loop_factory=StandingClock) as runner:
        assert runner.run(_serve_across_a_pause(cassandra_server, valkey)) == 0

"""Two gateways and a writer over a Redis Cluster, and load that nothing may make wrong."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from store_reads import USERS, Gateway, Store, command, open_gateway, open_store, until
from valkey_cluster import ValkeyCluster

from headrace.loadtest.servers import Server
from headrace.registry.cache_slots import SlotPlacement
from headrace.registry.cache_url import CacheUrl
from headrace.sync.errors import CacheUnavailable
from headrace.sync.stores.redis_cluster import RedisClusterInvalidator

EVERYONE = list(range(40))
LOADED = EVERYONE[:8]
"""Those that are written and read under load."""


@dataclass
class Scene:
    """Two gateways over a cluster, the writer's invalidation, and what was written last."""

    url: CacheUrl
    valkeys: ValkeyCluster
    store: Store
    gateways: list[Gateway]
    invalidator: RedisClusterInvalidator
    placement: SlotPlacement
    levels: dict[int, int] = field(default_factory=dict)

    def key(self, user: int) -> bytes:
        return self.store.catalog.encode_key(USERS, {"user_id": user})

    def slot(self, user: int) -> int:
        return self.placement.node(self.key(user))

    async def write(self, *users: int) -> None:
        """New values, and their invalidation, tried until it returns as the writer does."""
        written = {user: self.levels.get(user, 0) + 1 for user in users}
        await self.store.write(
            *(command(user, level=level, name="x") for user, level in written.items())
        )
        async with asyncio.timeout(60):
            while True:
                try:
                    await self.invalidator.invalidate([self.key(user) for user in users])
                    break
                except CacheUnavailable:
                    await asyncio.sleep(0.02)
        self.levels |= written

    async def went_on(self) -> None:
        """Wait until something was written that was not before."""
        before = sum(self.levels.values())
        await until(lambda: sum(self.levels.values()) > before)

    async def read(self, gateway: int = 0, users: list[int] | None = None) -> None:
        """One request, which must give what was written last."""
        asked = EVERYONE if users is None else users
        expected = [[self.levels[user], "x"] for user in asked]
        assert await self.gateways[gateway].rows(*asked) == expected

    def store_reads(self, gateway: int = 0) -> int:
        return self.gateways[gateway].reads.counters()["store_reads"]

    async def served_by_the_cache(self, gateway: int = 0, users: list[int] | None = None) -> None:
        """Wait until a read needs the store for no key."""
        async with asyncio.timeout(60):
            while True:
                before = self.store_reads(gateway)
                await self.read(gateway, users)
                await self.settled(gateway)
                if self.store_reads(gateway) == before:
                    return

    async def settled(self, gateway: int = 0) -> None:
        counters = self.gateways[gateway].reads.counters
        await until(lambda: counters()["keys_under_way"] == 0)


@asynccontextmanager
async def open_scene(cassandra: Server, valkeys: ValkeyCluster) -> AsyncGenerator[Scene]:
    """Everyone written once, in an epoch of its own."""
    epoch = uuid.uuid4().int % 2**31
    url = CacheUrl.parse(f"{valkeys.url}&epoch={epoch}")
    async with open_store(cassandra) as store, AsyncExitStack() as stack:
        gateways = [await stack.enter_async_context(open_gateway(store, url)) for _ in range(2)]
        invalidator = RedisClusterInvalidator(url)
        stack.push_async_callback(invalidator.close)
        scene = Scene(url, valkeys, store, gateways, invalidator, SlotPlacement(epoch=epoch))
        await scene.write(*EVERYONE)
        yield scene


Disturb = Callable[[], Awaitable[object]]


async def under_load(scene: Scene, draw: random.Random, disturb: Disturb) -> list[int]:
    """Write one after the other and read from both gateways until `disturb` is over.

    Every read must give at least what was written last when it was asked for, and never less than
    the same reader saw before. Returns how many writes and how many reads there were.
    """
    users, over, counts = LOADED, asyncio.Event(), [0, 0]

    async def write() -> None:
        while not over.is_set():
            await scene.write(draw.choice(users))
            counts[0] += 1

    async def read(gateway: int) -> None:
        seen = dict.fromkeys(users, 0)
        while not over.is_set():
            asked = draw.sample(users, 4)
            invalidated = {user: scene.levels[user] for user in asked}
            rows = await scene.gateways[gateway].rows(*asked)
            for user, (level, _) in zip(asked, rows, strict=True):
                told = f"user {user} of gateway {gateway} is at {level}"
                assert level >= invalidated[user], f"{told}, invalidated was {invalidated[user]}"
                assert level >= seen[user], f"{told}, this reader saw {seen[user]}"
                seen[user] = level
            counts[1] += 1

    async def disturbed() -> None:
        try:
            await disturb()
        finally:
            over.set()

    async with asyncio.TaskGroup() as together:
        for work in (write(), read(0), read(0), read(1), disturbed()):
            together.create_task(work)
    for gateway in (0, 1):
        await scene.served_by_the_cache(gateway, users)
    return counts

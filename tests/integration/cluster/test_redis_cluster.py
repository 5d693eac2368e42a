"""A Redis Cluster as the cache, its slots moved and its nodes killed under reads and writes.

Whatever a node cannot answer is a miss (semantics 19), and an invalidation follows a slot to where
it went, so that no read is ever older than a write whose invalidation has returned (semantics 18).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import uuid
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
from store_reads import USERS, Gateway, Store, command, open_gateway, open_store, until
from valkey_cluster import ValkeyCluster, open_valkey_cluster, started_cluster

from headrace.cli.doctor_cache import examine_cache
from headrace.loadtest.servers import Server
from headrace.registry.cache_slots import SlotPlacement
from headrace.registry.cache_url import CacheUrl
from headrace.sync.errors import CacheUnavailable
from headrace.sync.stores.redis_cluster import RedisClusterInvalidator

EVERYONE = list(range(40))
SEED = random.SystemRandom().randrange(1_000_000)
"""Another run each time; a failure prints it."""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Generator[list[Server]]:
    with started_cluster(tmp_path_factory.mktemp("cluster")) as started:
        yield started


@pytest.fixture
async def valkeys(nodes: list[Server]) -> AsyncGenerator[ValkeyCluster]:
    async with open_valkey_cluster(nodes) as opened:
        yield opened


@dataclass
class Scene:
    """Two gateways over a cluster, the writer's invalidation, and what was written last."""

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


@pytest.fixture
async def scene(cassandra_server: Server, valkeys: ValkeyCluster) -> AsyncGenerator[Scene]:
    epoch = uuid.uuid4().int % 2**31
    url = CacheUrl.parse(f"{valkeys.url}&epoch={epoch}")
    async with open_store(cassandra_server) as store, AsyncExitStack() as stack:
        gateways = [await stack.enter_async_context(open_gateway(store, url)) for _ in range(2)]
        invalidator = RedisClusterInvalidator(url)
        stack.push_async_callback(invalidator.close)
        scene = Scene(valkeys, store, gateways, invalidator, SlotPlacement(epoch=epoch))
        await scene.write(*EVERYONE)
        yield scene


async def test_what_one_gateway_filled_the_other_finds_on_every_node(scene: Scene) -> None:
    await scene.served_by_the_cache(0)
    await scene.served_by_the_cache(1)
    assert scene.store_reads(1) == 0
    assert {await scene.valkeys.owner(scene.slot(user)) for user in EVERYONE} == {0, 1, 2}
    assert scene.gateways[1].reads.counters()["cache_hits"] >= len(EVERYONE)


async def test_after_a_write_is_invalidated_every_gateway_reads_it(scene: Scene) -> None:
    for _ in range(5):
        await scene.served_by_the_cache(0)
        await scene.write(*EVERYONE)
        await scene.read(1)
        await scene.read(0)


async def test_a_slot_that_moves_with_its_keys_is_followed(scene: Scene) -> None:
    user, valkeys = EVERYONE[0], scene.valkeys
    slot = scene.slot(user)
    target = (await valkeys.owner(slot) + 1) % len(valkeys.servers)
    await scene.served_by_the_cache()
    await valkeys.begin_move(slot, target)
    await scene.read()
    await scene.write(user)  # The block is gone from the source, and none is filled half-way.
    await scene.read(0)
    await scene.read(1)
    await valkeys.move_keys(slot, target)
    await scene.read()
    await valkeys.end_move(slot, target)
    await scene.served_by_the_cache(0)
    await scene.write(user)
    await scene.read(0)
    await scene.read(1)
    assert await valkeys.owner(slot) == target


async def test_a_block_that_moved_is_served_and_invalidated_where_it_went(scene: Scene) -> None:
    user, valkeys = EVERYONE[1], scene.valkeys
    slot = scene.slot(user)
    target = (await valkeys.owner(slot) + 1) % len(valkeys.servers)
    await scene.served_by_the_cache()
    await valkeys.begin_move(slot, target)
    assert await valkeys.move_keys(slot, target) >= 1
    await valkeys.end_move(slot, target)
    assert await valkeys.clients[target].get(scene.placement.block_key(scene.key(user)))
    await scene.served_by_the_cache(1)
    await scene.write(user)
    await scene.read(0)
    await scene.read(1)


async def test_doctor_finds_every_node_of_a_cluster_well(valkeys: ValkeyCluster) -> None:
    hosts = ",".join(f"{server.host}:{server.port}" for server in valkeys.servers)
    findings = await examine_cache(CacheUrl.parse(f"redis://{hosts}/0?cluster=true"))
    assert [finding for finding in findings if finding.ok is False] == []
    assert [finding.check for finding in findings].count("cluster") == len(valkeys.servers)


async def test_keys_of_a_dead_node_are_misses_and_the_others_go_on(scene: Scene) -> None:
    await scene.served_by_the_cache()
    dead = await scene.valkeys.owner(scene.slot(EVERYONE[2]))
    gone = [user for user in EVERYONE if await scene.valkeys.owner(scene.slot(user)) == dead]
    alive = [user for user in EVERYONE if user not in gone]
    scene.valkeys.servers[dead].stop()
    try:
        await scene.read()
        await scene.served_by_the_cache(0, alive)
        before = scene.store_reads()
        await scene.read(0, gone)
        assert scene.store_reads() == before + len(gone)
        with pytest.raises(CacheUnavailable):
            await scene.invalidator.invalidate([scene.key(user) for user in gone])
        await scene.write(*alive)
        await scene.read()
    finally:
        await asyncio.to_thread(scene.valkeys.servers[dead].start)
    await scene.served_by_the_cache()
    await scene.write(*EVERYONE)
    await scene.read()


async def test_reads_are_never_older_than_a_write_while_slots_move(scene: Scene) -> None:
    """Writers, readers that remember what they saw, and slots that go round, all at once."""
    draw = random.Random(SEED)
    users, done, went_on = EVERYONE[:8], asyncio.Event(), asyncio.Event()

    async def write() -> None:
        for _ in range(120):
            await scene.write(draw.choice(users))
            went_on.set()
        done.set()

    async def read(gateway: int) -> None:
        seen = dict.fromkeys(users, 0)
        while not done.is_set():
            asked = draw.sample(users, 4)
            least = {user: max(seen[user], scene.levels[user]) for user in asked}
            rows = await scene.gateways[gateway].rows(*asked)
            for user, (level, _) in zip(asked, rows, strict=True):
                assert level >= least[user], f"seed {SEED}: user {user} went backwards"
                seen[user] = level

    async def move() -> None:
        while not done.is_set():
            slot = scene.slot(draw.choice(users))
            target = (await scene.valkeys.owner(slot) + 1) % len(scene.valkeys.servers)
            await scene.valkeys.begin_move(slot, target)
            await scene.valkeys.move_keys(slot, target)
            await scene.valkeys.end_move(slot, target)
            # On a slow machine a slot could move on before anybody has followed it, for ever.
            went_on.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await went_on.wait()

    async with asyncio.TaskGroup() as together:
        for work in (write(), read(0), read(0), read(1), move()):
            together.create_task(work)
    for gateway in (0, 1):
        await scene.served_by_the_cache(gateway, users)

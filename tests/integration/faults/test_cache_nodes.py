"""Several cache nodes: keys spread over them, one of them dead, and a list of nodes that changes.

A dead node's keys are misses and never remapped; a changed list is a new key epoch (semantics 19).
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from redis.asyncio import Redis
from store_reads import USERS, Gateway, Store, command, open_gateway, open_store, until

from headrace.codec import Placement
from headrace.loadtest.servers import Server, start_valkey
from headrace.registry.cache_url import CacheUrl
from headrace.sync.errors import CacheUnavailable
from headrace.sync.stores.redis import RedisInvalidator

EVERYONE = list(range(40))
NODES = 3


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Generator[list[Server]]:
    """Nodes that these tests may kill."""
    started = [start_valkey(tmp_path_factory.mktemp(f"node-{each}")) for each in range(NODES)]
    yield started
    for server in started:
        server.stop()


def url_of(servers: list[Server], epoch: int) -> CacheUrl:
    names = ",".join(f"{server.host}:{server.port}" for server in servers)
    return CacheUrl.parse(f"redis://{names}/0?epoch={epoch}")


@dataclass
class Scene:
    """A gateway over some nodes, the writer's invalidation there, and what was written last."""

    store: Store
    gateway: Gateway
    url: CacheUrl
    invalidator: RedisInvalidator
    levels: dict[int, int] = field(default_factory=dict)

    def key(self, user: int) -> bytes:
        return self.store.catalog.encode_key(USERS, {"user_id": user})

    def users_of(self, position: int) -> list[int]:
        """Whose keys a node holds."""
        placement = self.placement
        return [user for user in EVERYONE if placement.node(self.key(user)) == position]

    @property
    def placement(self) -> Placement:
        return Placement([node.name for node in self.url.nodes], epoch=self.url.epoch)

    async def write(self, *users: int) -> None:
        """New values in the store, then their invalidation; raises `CacheUnavailable`."""
        for user in users:
            self.levels[user] = self.levels.get(user, 0) + 1
        await self.store.write(
            *(command(user, level=self.levels[user], name="x") for user in users)
        )
        await self.invalidator.invalidate([self.key(user) for user in users])

    async def read(self, users: list[int]) -> int:
        """One request, which must give what was written last; how many keys the store was asked."""
        before = self.gateway.reads.counters()["store_reads"]
        assert await self.gateway.rows(*users) == [[self.levels[user], "x"] for user in users]
        await until(lambda: self.gateway.reads.counters()["keys_under_way"] == 0)
        return self.gateway.reads.counters()["store_reads"] - before

    async def served_by_the_cache(self, users: list[int]) -> None:
        async with asyncio.timeout(20):
            while await self.read(users):
                pass

    async def blocks_at(self, position: int) -> set[bytes]:
        """The blocks of this epoch on a node."""
        node = self.url.nodes[position]
        async with Redis(host=node.host, port=node.port) as client:
            found = await client.keys(f"hb{self.url.epoch}:*")
        return {key for key in found if isinstance(key, bytes)}

    async def are_up(self, *down: int) -> None:
        """Wait until exactly these nodes are left."""
        names = [self.url.nodes[position].name for position in down]
        await until(lambda: self.gateway.reads.nodes_down == names)


@asynccontextmanager
async def opened(store: Store, url: CacheUrl, levels: dict[int, int]) -> AsyncGenerator[Scene]:
    invalidator = RedisInvalidator(url)
    async with open_gateway(store, url) as gateway:
        yield Scene(store, gateway, url, invalidator, levels)
    await invalidator.close()


@pytest.fixture
async def scene(cassandra_server: Server, nodes: list[Server]) -> AsyncGenerator[Scene]:
    url = url_of(nodes, uuid.uuid4().int % 2**31)
    async with open_store(cassandra_server) as store, opened(store, url, {}) as made:
        await made.write(*EVERYONE)
        await made.served_by_the_cache(EVERYONE)
        yield made


async def test_every_key_is_on_the_one_node_that_the_list_of_nodes_gives_it(scene: Scene) -> None:
    for position in range(NODES):
        users = scene.users_of(position)
        assert users
        blocks = {scene.placement.block_key(scene.key(user)) for user in users}
        assert await scene.blocks_at(position) == blocks


async def test_the_keys_of_a_dead_node_are_misses_and_go_nowhere_else(
    scene: Scene, nodes: list[Server]
) -> None:
    gone, alive = scene.users_of(1), scene.users_of(0) + scene.users_of(2)
    before = await scene.blocks_at(0), await scene.blocks_at(2)
    nodes[1].stop()
    try:
        await scene.are_up(1)
        for _ in range(2):  # What was missed once was not filled elsewhere meanwhile.
            assert await scene.read(EVERYONE) >= len(gone)
        await scene.served_by_the_cache(alive)
        assert (await scene.blocks_at(0), await scene.blocks_at(2)) == before
    finally:
        await asyncio.to_thread(nodes[1].start)
    await scene.are_up()
    await scene.served_by_the_cache(EVERYONE)


async def test_while_a_node_is_dead_writes_to_the_others_are_seen_at_once(
    scene: Scene, nodes: list[Server]
) -> None:
    nodes[1].stop()
    try:
        await scene.are_up(1)
        with pytest.raises(CacheUnavailable, match=f"`{scene.url.nodes[1].name}`"):
            await scene.write(*EVERYONE)
        await scene.read(EVERYONE)
        await scene.write(*scene.users_of(0), *scene.users_of(2))
        await scene.read(EVERYONE)
    finally:
        await asyncio.to_thread(nodes[1].start)
    await scene.are_up()
    await scene.invalidator.invalidate([scene.key(user) for user in EVERYONE])
    await scene.served_by_the_cache(EVERYONE)


async def test_the_order_of_the_list_moves_no_key(scene: Scene, nodes: list[Server]) -> None:
    before = [await scene.blocks_at(position) for position in range(NODES)]
    async with opened(scene.store, url_of(nodes[::-1], scene.url.epoch), scene.levels) as other:
        await other.served_by_the_cache(EVERYONE)
    assert [await scene.blocks_at(position) for position in range(NODES)] == before


async def test_a_shorter_list_under_a_new_epoch_never_meets_an_older_block(
    scene: Scene, nodes: list[Server]
) -> None:
    """Old blocks are left where they are, also when the list becomes what it was."""
    shorter = url_of(nodes[:2], scene.url.epoch + 1)
    async with opened(scene.store, shorter, scene.levels) as other:
        await other.write(*EVERYONE)
        assert await other.read(EVERYONE) >= len(EVERYONE)
        await other.served_by_the_cache(EVERYONE)
    again = url_of(nodes, scene.url.epoch + 2)
    async with opened(scene.store, again, scene.levels) as other:
        assert await other.read(EVERYONE) >= len(EVERYONE)
    assert len(await scene.blocks_at(0)) == len(scene.users_of(0))

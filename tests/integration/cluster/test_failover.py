"""A replica takes its master's place under reads and writes: nothing wrong, and no restart.

What a node has not told its replica when it dies may be lost, up to an invalidation: that is the
staleness bound of semantics 19. A failover that loses none of them must not show at all.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Generator

import pytest
from cluster_scene import EVERYONE, LOADED, Scene, open_scene, under_load
from valkey_cluster import MASTERS, open_valkey_cluster, started_cluster

from headrace.loadtest.servers import Server

SEED = random.SystemRandom().randrange(1_000_000)
"""Another run each time; a failure prints it."""
PAIR = (0, MASTERS)
"""The node that the URL names, and the one that follows it: or the other way round."""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Generator[list[Server]]:
    with started_cluster(tmp_path_factory.mktemp("replicated"), replicas=1) as started:
        yield started


@pytest.fixture
async def scene(cassandra_server: Server, nodes: list[Server]) -> AsyncGenerator[Scene]:
    async with (
        open_valkey_cluster(nodes) as valkeys,
        open_scene(cassandra_server, valkeys) as opened,
    ):
        yield opened


async def kept_by(scene: Scene, position: int) -> list[int]:
    return [user for user in EVERYONE if await scene.valkeys.owner(scene.slot(user)) == position]


async def master_and_replica(scene: Scene) -> tuple[int, int]:
    """The two of the pair, in step."""
    master, replica = PAIR if await scene.valkeys.is_master(PAIR[0]) else PAIR[::-1]
    await scene.valkeys.until_follows(replica)
    return master, replica


async def test_a_planned_failover_under_load_is_not_seen(scene: Scene) -> None:
    master, replica = await master_and_replica(scene)
    moved = await kept_by(scene, master)
    assert set(moved) & set(LOADED)

    async def there_and_back() -> None:
        for _ in range(2):
            for follower, leader in ((replica, master), (master, replica)):
                await scene.valkeys.fail_over(follower)
                await scene.valkeys.until_follows(leader)
                assert await kept_by(scene, follower) == moved

    writes, reads = await under_load(scene, random.Random(SEED), there_and_back)
    assert min(writes, reads) > 0, f"seed {SEED}"


async def test_a_killed_master_is_followed_to_its_replica_without_a_restart(scene: Scene) -> None:
    valkeys = scene.valkeys
    master, replica = await master_and_replica(scene)
    lost = await kept_by(scene, master)
    assert set(lost) & set(LOADED)
    await scene.served_by_the_cache()
    assert await valkeys.clients[master].execute_command("WAIT", 1, 20_000) == 1

    async def kill_and_wait() -> None:
        valkeys.servers[master].stop()
        await valkeys.until_master(replica)

    try:
        writes, reads = await under_load(scene, random.Random(SEED), kill_and_wait)
        assert min(writes, reads) > 0, f"seed {SEED}"
        for gateway in (0, 1):
            await scene.served_by_the_cache(gateway)
        await scene.write(*EVERYONE)
        await scene.read(0)
        await scene.read(1)
        await scene.served_by_the_cache()
        block = scene.placement.block_key(scene.key(lost[0]))
        assert await valkeys.clients[replica].get(block), "the new master caches nothing"
    finally:
        await asyncio.to_thread(valkeys.servers[master].start)
        await valkeys.until_follows(master)

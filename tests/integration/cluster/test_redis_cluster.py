"""A Redis Cluster as the cache, its slots moved and its nodes killed under reads and writes.

Whatever a node cannot answer is a miss (semantics 19), and an invalidation follows a slot to where
it went, so that no read is ever older than a write whose invalidation has returned (semantics 18).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
from collections.abc import AsyncGenerator, Generator

import pytest
from cluster_scene import EVERYONE, LOADED, Scene, open_scene, under_load
from store_reads import USERS, NoWatch, command, document, now_ms, open_gateway, until
from valkey_cluster import ValkeyCluster, open_valkey_cluster, started_cluster

from headrace.cli.doctor_cache import examine_cache
from headrace.gateway.cached.tiers import open_tiers
from headrace.gateway.catalog_in_force import CatalogInForce
from headrace.gateway.explain import Explainer
from headrace.gateway.wire import TierShape
from headrace.loadtest.servers import Server
from headrace.loadtest.servers.process import free_port
from headrace.registry.cache_url import CacheUrl
from headrace.sync.errors import CacheUnavailable

MOVES = 60
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


@pytest.fixture
async def scene(cassandra_server: Server, valkeys: ValkeyCluster) -> AsyncGenerator[Scene]:
    async with open_scene(cassandra_server, valkeys) as opened:
        yield opened


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

    async def move() -> None:
        for _ in range(MOVES):
            slot = scene.slot(draw.choice(LOADED))
            target = (await scene.valkeys.owner(slot) + 1) % len(scene.valkeys.servers)
            await scene.valkeys.begin_move(slot, target)
            await scene.valkeys.move_keys(slot, target)
            await scene.valkeys.end_move(slot, target)
            # On a slow machine a slot could move on before anybody has followed it, for ever.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await scene.went_on()

    writes, reads = await under_load(scene, draw, move)
    assert min(writes, reads) > 0, f"seed {SEED}"


async def test_explain_names_the_node_that_keeps_a_key_and_what_it_holds(scene: Scene) -> None:
    user = EVERYONE[3]
    await scene.served_by_the_cache()
    keeper = scene.valkeys.servers[await scene.valkeys.owner(scene.slot(user))]
    cache = await cache_tier(scene, user)
    assert cache.node == f"{keeper.host}:{keeper.port}"
    assert (cache.holds, cache.lease, cache.equals_store) == ("row", "none", True)
    await scene.store.write(command(user, level=99))  # Not invalidated: a lost one.
    assert (await cache_tier(scene, user)).equals_store is False
    await scene.write(user)
    assert (await cache_tier(scene, user)).holds == "nothing"


async def test_the_command_explains_over_a_cluster(scene: Scene) -> None:
    user = EVERYONE[4]
    await scene.served_by_the_cache()
    await scene.store.engine.catalog_writer().publish(document())
    online = scene.store.engine.url
    command_line = [
        *(sys.executable, "-m", "headrace.cli", "explain", USERS, f"user_id={user}", "--json"),
        *("--online", f"scylla://{online.hosts[0]}:{online.port}/{online.keyspace}"),
        *("--cache", f"{scene.valkeys.url}&epoch={scene.url.epoch}"),
    ]
    done = await asyncio.create_subprocess_exec(*command_line, stdout=asyncio.subprocess.PIPE)
    out, _ = await done.communicate()
    [cache] = json.loads(out)["tiers"]
    keeper = scene.valkeys.servers[await scene.valkeys.owner(scene.slot(user))]
    assert done.returncode == 0
    assert (cache["node"], cache["holds"], cache["equals_store"]) == (
        f"{keeper.host}:{keeper.port}",
        "row",
        True,
    )


async def test_explain_tells_why_a_cluster_cannot_be_asked(
    scene: Scene, valkey_server: Server
) -> None:
    alone = f"redis://{valkey_server.host}:{valkey_server.port}/0?cluster=true"
    cache = await cache_tier(scene, EVERYONE[0], CacheUrl.parse(alone))
    assert "cluster support disabled" in str(cache.reason)
    nowhere = f"redis://127.0.0.1:{free_port()}/0?cluster=true"
    cache = await cache_tier(scene, EVERYONE[0], CacheUrl.parse(nowhere))
    assert "Connect call failed" in str(cache.reason)


async def cache_tier(scene: Scene, user: int, url: CacheUrl | None = None) -> TierShape:
    """What `headrace explain` tells of the cache, which it opens for itself."""
    in_force = CatalogInForce(NoWatch())
    in_force.install(scene.store.catalog, document())
    engine = scene.store.engine
    async with open_tiers(url or scene.url, now_ms) as tiers:
        explainer = Explainer(in_force, engine.inspector(), now_ms, tiers)
        [cache] = (await explainer.explain(USERS, {"user_id": str(user)})).tiers
    return cache


async def test_a_gateway_tells_that_no_node_of_its_cluster_answers(scene: Scene) -> None:
    port = free_port()
    url = CacheUrl.parse(f"redis://127.0.0.1:{port}/0?cluster=true")
    async with open_gateway(scene.store, url, wait_for_cache=False) as gateway:
        await until(lambda: "Connect call failed" in str(gateway.reads.parts()), limit_s=60)
        assert await gateway.rows(EVERYONE[0]) == [[1, "x"]]

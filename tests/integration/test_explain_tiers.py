"""What `explain` tells of the tiers before the store: over a real cache and a real store."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from redis.asyncio import Redis
from store_reads import (
    PLAYS,
    USERS,
    Gateway,
    NoWatch,
    Store,
    command,
    document,
    now_ms,
    open_gateway,
    open_store,
    until,
)

from headrace.codec import Placement
from headrace.gateway.catalog_in_force import CatalogInForce
from headrace.gateway.explain import Explainer
from headrace.gateway.stores.scylla import ScyllaRows
from headrace.gateway.stores.scylla_reads import ScyllaInspector
from headrace.gateway.wire import TierShape
from headrace.loadtest.servers import Server
from headrace.registry.cache_url import CacheUrl


class Scene:
    """A gateway, its explainer, and a client straight to the cache."""

    def __init__(self, store: Store, gateway: Gateway, cache: CacheUrl, client: Redis) -> None:
        self.store = store
        self.gateway = gateway
        self.client = client
        self._placement = Placement([node.name for node in cache.nodes], epoch=cache.epoch)
        in_force = CatalogInForce(NoWatch())
        in_force.install(store.catalog, document())
        rows = ScyllaRows(store.engine.session, store.engine.url.keyspace)
        self._explainer = Explainer(in_force, ScyllaInspector(rows), now_ms, gateway.reads.tiers)

    async def in_cache(self, user: int, *, group: str = USERS) -> TierShape:
        explained = await self._explainer.explain(group, {"user_id": str(user)})
        process, cache = explained.tiers
        assert (process.tier, process.holds) == ("process", "nothing")
        assert cache.tier == "cache"
        return cache

    async def cached(self, user: int, *, group: str = USERS) -> None:
        await self.gateway.rows(user, group=group)
        await until(lambda: self.gateway.reads.counters()["keys_under_way"] == 0)

    def block_key(self, user: int) -> bytes:
        return self._placement.block_key(self._key(user))

    def lease_key(self, user: int) -> bytes:
        return self._placement.lease_key(self._key(user))

    def _key(self, user: int) -> bytes:
        return self.store.catalog.encode_key(USERS, {"user_id": user})


@pytest.fixture
async def scene(cassandra_server: Server, valkey_server: Server) -> AsyncGenerator[Scene]:
    epoch = uuid.uuid4().int % 2**31
    cache = CacheUrl.parse(f"redis://{valkey_server.host}:{valkey_server.port}/0?epoch={epoch}")
    async with (
        open_store(cassandra_server) as store,
        open_gateway(store, cache) as gateway,
        Redis(host=valkey_server.host, port=valkey_server.port) as client,
    ):
        yield Scene(store, gateway, cache, client)


async def test_a_cache_that_holds_nothing_says_so(scene: Scene) -> None:
    found = await scene.in_cache(1)
    assert (found.holds, found.lease, found.equals_store) == ("nothing", "none", None)


@pytest.mark.parametrize("group", [USERS, PLAYS])
async def test_a_filled_block_is_that_of_the_store_and_has_its_times(
    scene: Scene, group: str
) -> None:
    at_ms = now_ms() - 5_000
    method = "UPDATE" if group == USERS else "APPEND"
    await scene.store.write(
        command(1, group=group, method=method, at_ms=at_ms, level=1, name="a"),
        command(1, group=group, method=method, at_ms=at_ms + 1_000, level=2),
    )
    await scene.cached(1, group=group)
    found = await scene.in_cache(1, group=group)
    assert (found.holds, found.lease, found.equals_store) == ("row", "none", True)
    assert (found.oldest_event_time_ms, found.newest_event_time_ms) == (at_ms, at_ms + 1_000)
    assert found.age_ms is not None
    assert found.age_ms >= 4_000
    assert found.expires_in_ms is not None
    assert 0 < found.expires_in_ms <= 600_000


async def test_a_block_that_is_behind_the_store_is_told_from_it(scene: Scene) -> None:
    await scene.store.write(command(1, level=1, name="old"))
    await scene.cached(1)
    await scene.store.write(command(1, level=2, name="new"))  # No invalidator: a lost one.
    found = await scene.in_cache(1)
    assert (found.holds, found.equals_store) == ("row", False)


async def test_an_absent_row_that_is_cached_is_no_row(scene: Scene) -> None:
    await scene.cached(404)
    found = await scene.in_cache(404)
    assert (found.holds, found.equals_store) == ("absent row", True)
    assert found.newest_event_time_ms is None


async def test_damaged_bytes_are_told_as_such(scene: Scene) -> None:
    await scene.store.write(command(1, level=1, name="x"))
    await scene.cached(1)
    block: Any = await scene.client.get(scene.block_key(1))
    await scene.client.set(scene.block_key(1), block[:-1] + b"?")
    found = await scene.in_cache(1)
    assert (found.holds, found.equals_store, found.expires_in_ms) == ("unusable bytes", False, None)


@pytest.mark.parametrize(("length", "standing"), [(8, "held"), (48, "observed")])
async def test_the_standing_of_a_lease_is_told(scene: Scene, length: int, standing: str) -> None:
    await scene.client.set(scene.lease_key(1), b"t" * length, px=2_000)
    assert (await scene.in_cache(1)).lease == standing


async def test_looking_changes_nothing(scene: Scene) -> None:
    await scene.in_cache(1)
    assert await scene.client.exists(scene.block_key(1), scene.lease_key(1)) == 0
    assert scene.gateway.reads.counters()["leases"] == 0


async def test_a_node_that_is_down_is_told_with_its_reason(
    scene: Scene, cassandra_server: Server
) -> None:
    cache = CacheUrl.parse("redis://127.0.0.1:1/0")
    from headrace.gateway.cached.tiers import open_tiers

    async with open_tiers(cache, now_ms) as tiers:
        [found] = await tiers.look(scene.store.catalog.encode_key(USERS, {"user_id": 1}))
    assert (found.tier, found.node, found.block) == ("cache", "127.0.0.1:1", None)
    assert found.problem is not None
    assert "not connected yet" not in found.problem

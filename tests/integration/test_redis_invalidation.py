"""Invalidation against a real Valkey (semantics 18)."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from redis.asyncio import Redis

from headrace.codec import Placement
from headrace.loadtest.servers import Server
from headrace.loadtest.servers.process import free_port
from headrace.registry.cache_url import CacheUrl
from headrace.sync.errors import CacheUnavailable
from headrace.sync.stores.redis import RedisInvalidator

EPOCH = 41
KEYS = [b"\0\0\0\1key-%d" % number for number in range(1_200)]


@pytest.fixture
async def client(valkey_server: Server) -> AsyncGenerator[Redis]:
    opened = Redis(host=valkey_server.host, port=valkey_server.port)
    yield opened
    await opened.aclose()


async def test_blocks_and_leases_of_the_keys_are_gone_and_others_stay(
    valkey_server: Server, client: Redis
) -> None:
    name = f"{valkey_server.host}:{valkey_server.port}"
    placement = Placement([name], epoch=EPOCH)
    for key in [*KEYS, b"another"]:
        await client.set(placement.block_key(key), b"block")
        await client.set(placement.lease_key(key), b"lease")
    invalidator = RedisInvalidator(CacheUrl.parse(f"redis://{name}/0?epoch={EPOCH}"))
    await invalidator.invalidate(KEYS)
    await invalidator.close()
    left = {key async for key in client.scan_iter(match=f"h?{EPOCH}:*")}
    assert left == {placement.block_key(b"another"), placement.lease_key(b"another")}


async def test_an_unreachable_node_is_named_and_the_others_are_invalidated(
    valkey_server: Server, client: Redis
) -> None:
    up, down = f"{valkey_server.host}:{valkey_server.port}", f"127.0.0.1:{free_port()}"
    placement = Placement([up, down], epoch=EPOCH)
    for key in KEYS:
        await client.set(placement.block_key(key), b"block")
    invalidator = RedisInvalidator(CacheUrl.parse(f"redis://{up},{down}/0?epoch={EPOCH}"))
    with pytest.raises(CacheUnavailable, match=f"`{down}`"):
        await invalidator.invalidate(KEYS)
    await invalidator.close()
    left = [key for key in KEYS if await client.exists(placement.block_key(key))]
    assert left == [key for key in KEYS if placement.node(key) == 1]

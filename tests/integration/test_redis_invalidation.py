"""Invalidation against a real Valkey (semantics 18)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from headrace.codec import Placement
from headrace.loadtest.fault_proxy import (
    BlackHole,
    CutMidReply,
    DuplicateReply,
    Fault,
    FaultProxy,
    Garble,
    SwapReplies,
    resp_reply_end,
)
from headrace.loadtest.servers import Server
from headrace.loadtest.servers.process import free_port
from headrace.registry.cache_url import CacheUrl
from headrace.sync.errors import CacheUnavailable
from headrace.sync.stores.redis import Patience, RedisInvalidator
from headrace.sync.stores.redis_cluster import RedisClusterInvalidator

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
    with pytest.raises(CacheUnavailable, match=f"`{down}`") as raised:
        await invalidator.invalidate(KEYS)
    await invalidator.close()
    left = [key for key in KEYS if await client.exists(placement.block_key(key))]
    assert left == [key for key in KEYS if placement.node(key) == 1]
    assert raised.value.keys == left


async def test_a_node_that_let_us_wait_is_left_for_longer_and_the_others_are_not(
    valkey_server: Server, client: Redis
) -> None:
    """Store writes never wait for the cache (semantics 18)."""
    up = f"{valkey_server.host}:{valkey_server.port}"
    async with FaultProxy(valkey_server.host, valkey_server.port) as proxy:
        proxy.fault = BlackHole()
        silent = f"127.0.0.1:{proxy.port}"
        placement = Placement([up, silent], epoch=EPOCH)
        invalidator = RedisInvalidator(CacheUrl.parse(f"redis://{up},{silent}/0?epoch={EPOCH}"))
        alive = [key for key in KEYS if placement.node(key) == 0][:5]
        with pytest.raises(CacheUnavailable, match=f"`{silent}`"):
            await invalidator.invalidate(KEYS)
        asked = proxy.connections_seen
        for _ in range(10):
            await client.mset({placement.block_key(key): b"block" for key in alive})
            with pytest.raises(CacheUnavailable, match=f"`{silent}`"):
                await invalidator.invalidate(KEYS)
            assert await client.exists(*map(placement.block_key, alive)) == 0
        assert proxy.connections_seen == asked
        await invalidator.close()


def test_a_cache_is_left_for_nine_times_as_long_as_it_made_us_wait_but_not_for_ever() -> None:
    patience = Patience()
    assert patience.left(0.0) is None
    assert patience.failed(TimeoutError(), began_s=1.0, now_s=1.5) == "TimeoutError"
    assert patience.left(5.9) == "TimeoutError"
    assert patience.left(6.0) is None
    patience.failed(TimeoutError("late"), began_s=10.0, now_s=12.0)
    assert patience.left(16.9) == "late"
    assert patience.left(17.0) is None


WRONG_REPLIES = [b"+OK\r\n", b":1\r\n", b"*1\r\n:1\r\n", b"_\r\n", b"#t\r\n", b"%0\r\n"]


@asynccontextmanager
async def answering(reply: bytes) -> AsyncGenerator[int]:
    """The port of a node that says the same to every command."""
    serving: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        asked = b""
        try:
            while received := await reader.read(65_536):
                asked += received
                while asked and (end := resp_reply_end(asked, 0)) is not None:
                    asked = asked[end:]
                    writer.write(reply)
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        await asyncio.sleep(0.01)  # Who came last is served before the loop ends.
        await asyncio.gather(*(task for task in serving if task), return_exceptions=True)


URLS = [f"{login}127.0.0.1:{{}}/0{options}" for login in ("", ":x@") for options in ("", "?resp=2")]


@pytest.mark.parametrize("reply", WRONG_REPLIES)
@pytest.mark.parametrize("at", [*URLS, "127.0.0.1:{}/0?cluster=true"])
async def test_what_is_no_count_of_this_deletion_invalidates_nothing(reply: bytes, at: str) -> None:
    """A reply to another command, or to none, must neither pass for one nor end the writer."""
    async with answering(reply) as port:
        url = CacheUrl.parse(f"redis://{at.format(port)}")
        invalidator = RedisClusterInvalidator(url) if url.cluster else RedisInvalidator(url)
        with pytest.raises(CacheUnavailable, match=r"2 keys could not be invalidated; ."):
            await invalidator.invalidate(KEYS[:2])
        await invalidator.close()


LIES: list[Callable[[int], Fault]] = [
    lambda seed: Garble(seed),
    lambda _: DuplicateReply(),
    lambda _: SwapReplies(),
    lambda _: CutMidReply(),
]


@pytest.mark.parametrize("lie", LIES, ids=["garbled", "twice", "swapped", "cut"])
async def test_a_key_that_passes_for_invalidated_is_gone_whatever_its_node_says(
    valkey_server: Server, client: Redis, lie: Callable[[int], Fault]
) -> None:
    name = f"{valkey_server.host}:{valkey_server.port}"
    placement = Placement([name], epoch=EPOCH)
    refused = 0
    async with FaultProxy(valkey_server.host, valkey_server.port, framing=resp_reply_end) as proxy:
        url = CacheUrl.parse(f"redis://127.0.0.1:{proxy.port}/0?epoch={EPOCH}")
        for seed in range(20):
            invalidator = RedisInvalidator(url)
            blocks = [placement.block_key(key) for key in KEYS[seed : seed + 3]]
            await client.mset(dict.fromkeys(blocks, b"block"))
            proxy.fault = lie(seed)
            try:
                await invalidator.invalidate(KEYS[seed : seed + 3])
            except CacheUnavailable:
                refused += 1
            else:
                assert await client.exists(*blocks) == 0
            await invalidator.close()
    assert refused > 0

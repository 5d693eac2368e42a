"""One key in the tiers before the store, looked at for `explain`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from headrace.codec import CachedReads, Placement, ReadEngine
from headrace.gateway.cached.link import CONNECT_LIMIT_S, Links, Outcome
from headrace.gateway.cached.nodes import CacheNodes, KeyPlacement
from headrace.gateway.cached.scripts import LOOK, TOKEN_BYTES
from headrace.gateway.ports import Clock, HeldBlock
from headrace.registry.cache_slots import SlotPlacement
from headrace.registry.cache_url import CacheUrl

LOOK_PAUSE_S = 0.005


class CacheTiers:
    """`TierInspector` over the cache nodes, and over the tier in this process if it reads."""

    def __init__(
        self,
        reads: CachedReads,
        nodes: CacheNodes | None,
        placement: KeyPlacement,
        clock: Clock,
        *,
        in_process: bool,
    ) -> None:
        self._reads = reads
        self._nodes = nodes
        self._placement = placement
        self._clock = clock
        self._in_process = in_process

    async def look(self, key: bytes) -> list[HeldBlock]:
        """The in-process tier, then the cache."""
        held = [self._look_here(key)] if self._in_process else []
        if self._nodes is not None:
            held.append(await self._look_there(self._nodes, key))
        return held

    def _look_here(self, key: bytes) -> HeldBlock:
        found = self._reads.local_block(key)
        if found is None or found[1] <= self._clock():
            return HeldBlock(tier="process")
        return HeldBlock(tier="process", block=found[0], life_ms=found[1] - self._clock())

    async def _look_there(self, nodes: CacheNodes, key: bytes) -> HeldBlock:
        [(node, block_key, lease_key)] = self._placement.places([key])
        reply = await nodes.run_script(node, LOOK, [block_key, lease_key], [])
        keeper = nodes.keeper(node)
        name = None if keeper is None else keeper.node.name
        if reply is None or len(reply) != 3:
            problem = (None if keeper is None else keeper.problem) or "no node answered"
            return HeldBlock(tier="cache", node=name, problem=problem)
        block, life_ms, lease = reply
        standing = "none"
        if isinstance(lease, bytes):
            standing = "observed" if len(lease) > TOKEN_BYTES else "held"
        return HeldBlock(
            tier="cache",
            node=name,
            block=block if isinstance(block, bytes) else None,
            life_ms=life_ms if isinstance(life_ms, int) and life_ms >= 0 else None,
            lease=standing,
        )


@asynccontextmanager
async def open_tiers(cache: CacheUrl, clock: Clock) -> AsyncGenerator[CacheTiers]:
    """The cache as a process sees it that reads nothing itself."""
    named = Placement([node.name for node in cache.nodes], epoch=cache.epoch)
    reads = CachedReads(ReadEngine(), named)
    placement: KeyPlacement = named
    nodes: CacheNodes
    if cache.cluster:
        from headrace.gateway.cached.cluster import ClusterLinks

        placement, nodes = SlotPlacement(epoch=cache.epoch), ClusterLinks(cache)
    else:
        nodes = Links(reads, cache, _undelivered, clock)
    nodes.start()
    try:
        give_up_s = asyncio.get_running_loop().time() + 2 * CONNECT_LIMIT_S
        while not nodes.tried():
            if asyncio.get_running_loop().time() > give_up_s:
                break
            await asyncio.sleep(LOOK_PAUSE_S)
        yield CacheTiers(reads, nodes, placement, clock, in_process=False)
    finally:
        await nodes.stop()


def _undelivered(token: int, outcome: Outcome) -> None:
    """No request is ever submitted here."""

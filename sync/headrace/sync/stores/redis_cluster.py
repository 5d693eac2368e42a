"""Invalidation in a Redis Cluster, by redis-py's client, which follows slots that move.

A key's lease goes first and its block after: once the lease is gone nothing read before the write
can be filled, so that the block that is deleted then was the last old one. Deleting both with one
command is refused while their slot moves and only one of them is there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from headrace.registry.cache_slots import SlotPlacement
from headrace.registry.cache_url import CacheUrl
from headrace.sync.errors import CacheUnavailable
from headrace.sync.stores.redis import (
    KEYS_PER_COMMAND,
    REQUEST_LIMIT_S,
    Patience,
    check_count,
)

LIMIT_S = 4 * REQUEST_LIMIT_S
"""Of one invalidation, the client's own look for the nodes included."""


class RedisClusterInvalidator:
    """`CacheInvalidator` over a Redis Cluster."""

    def __init__(self, url: CacheUrl) -> None:
        self._placement = SlotPlacement(epoch=url.epoch)
        self._patience = Patience()
        self._cluster: Any = RedisCluster(
            startup_nodes=[ClusterNode(node.host, node.port) for node in url.nodes],
            require_full_coverage=False,
            username=url.user,
            password=url.password,
            ssl=url.tls,
            ssl_ca_certs=url.ca,
            protocol=url.resp,
            socket_timeout=REQUEST_LIMIT_S,
            socket_connect_timeout=REQUEST_LIMIT_S,
            # The writer holds the offsets and tries again; once is for a map that is old.
            retry=Retry(NoBackoff(), 1),
        )

    async def invalidate(self, keys: Sequence[bytes]) -> None:
        """Delete lease and block of each key; raises `CacheUnavailable` with what is left."""
        now_s = asyncio.get_running_loop().time
        began_s, done = now_s(), 0
        if (reason := self._patience.left(began_s)) is None:
            try:
                async with asyncio.timeout(LIMIT_S):
                    for done in range(0, len(keys), KEYS_PER_COMMAND):
                        some = keys[done : done + KEYS_PER_COMMAND]
                        await self._delete(map(self._placement.lease_key, some))
                        await self._delete(map(self._placement.block_key, some))
            except Exception as error:  # noqa: BLE001 - as with one node
                with contextlib.suppress(Exception):
                    await self.close()  # The next call connects anew.
                reason = self._patience.failed(error, began_s=began_s, now_s=now_s())
        if reason is not None:
            left = keys[done:]
            raise CacheUnavailable(f"{len(left)} keys could not be invalidated; {reason}", left)

    async def close(self) -> None:
        """Close every connection, also those that told the client nothing of its nodes."""
        await self._cluster.aclose()
        await self._cluster.nodes_manager.aclose("startup_nodes")

    async def _delete(self, cache_keys: Iterable[bytes]) -> None:
        pipeline = self._cluster.pipeline()
        for cache_key in cache_keys:
            pipeline.delete(cache_key)
        for reply in await pipeline.execute():
            check_count(reply, 1)

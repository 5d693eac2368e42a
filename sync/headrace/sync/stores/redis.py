"""Invalidation of cache blocks in Redis: what the commit of an offset waits for (semantics 18).

Deleting block and lease together is what makes the cache never permanently stale: a reader that
took its lease before the write can no longer fill.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from headrace.codec import Placement
from headrace.registry.cache_url import CacheUrl
from headrace.sync.errors import CacheUnavailable

REQUEST_LIMIT_S = 0.5
KEYS_PER_COMMAND = 500


class RedisInvalidator:
    """`CacheInvalidator` over every node of a cache, in parallel."""

    def __init__(self, url: CacheUrl) -> None:
        self._names = [node.name for node in url.nodes]
        self._placement = Placement(self._names, epoch=url.epoch)
        self._nodes = [
            Redis(
                host=node.host,
                port=node.port,
                db=url.database,
                username=url.user,
                password=url.password,
                ssl=url.tls,
                ssl_ca_certs=url.ca,
                protocol=url.resp,
                socket_timeout=REQUEST_LIMIT_S,
                socket_connect_timeout=REQUEST_LIMIT_S,
                # The writer holds the offsets and tries again: a retry here would only hide it.
                retry=Retry(NoBackoff(), 0),
            )
            for node in url.nodes
        ]

    async def invalidate(self, keys: Sequence[bytes]) -> None:
        """Delete block and lease of each key; raises `CacheUnavailable` naming the nodes."""
        lists = self._placement.invalidations(list(keys))
        outcomes = await asyncio.gather(
            *(self._delete(node, cache_keys) for node, cache_keys in enumerate(lists)),
            return_exceptions=True,
        )
        failed = {
            self._names[node]: outcome
            for node, outcome in enumerate(outcomes)
            if isinstance(outcome, BaseException)
        }
        for outcome in failed.values():
            if not isinstance(outcome, RedisError | OSError | TimeoutError):
                raise outcome
        if failed:
            reasons = ", ".join(f"`{name}`: {outcome}" for name, outcome in failed.items())
            raise CacheUnavailable(f"{len(keys)} keys could not be invalidated; {reasons}")

    async def close(self) -> None:
        """Close every connection."""
        await asyncio.gather(*(node.aclose() for node in self._nodes))

    async def _delete(self, node: int, cache_keys: list[bytes]) -> None:
        for start in range(0, len(cache_keys), KEYS_PER_COMMAND):
            await self._nodes[node].delete(*cache_keys[start : start + KEYS_PER_COMMAND])

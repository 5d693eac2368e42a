"""Invalidation of cache blocks in Redis: what the commit of an offset waits for (semantics 18).

Deleting block and lease together is what makes the cache never permanently stale: a reader that
took its lease before the write can no longer fill.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from headrace.codec import Placement
from headrace.registry.cache_url import CacheUrl
from headrace.sync.errors import CacheUnavailable

REQUEST_LIMIT_S = 0.5
KEYS_PER_COMMAND = 500
TOKEN_BYTES = 8
LEFT_FOR = 9
"""Times as long as it made us wait in vain."""
LEFT_MAX_S = 5.0


class WrongReply(Exception):
    """A node said what is no answer to what it was asked."""


class Patience:
    """Leaves a cache that failed alone, for nine times as long as it made the writer wait.

    So it costs a tenth of the writer's time: store writes do not wait for the cache (semantics 18).
    """

    def __init__(self) -> None:
        self._reason = ""
        self._left_until_s = 0.0

    def left(self, now_s: float) -> str | None:
        """Why it is not asked now; None when it is."""
        return self._reason if now_s < self._left_until_s else None

    def failed(self, error: Exception, *, began_s: float, now_s: float) -> str:
        """It was asked in vain: why, in the words of the client where it has any."""
        self._reason = str(error) or type(error).__name__
        self._left_until_s = now_s + min(LEFT_MAX_S, LEFT_FOR * (now_s - began_s))
        return self._reason


class RedisInvalidator:
    """`CacheInvalidator` over every node of a cache, in parallel."""

    def __init__(self, url: CacheUrl) -> None:
        self._names = [node.name for node in url.nodes]
        self._placement = Placement(self._names, epoch=url.epoch)
        self._patience = [Patience() for _ in url.nodes]
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
        keys = list(keys)
        lists = self._placement.invalidations(keys)
        outcomes = await asyncio.gather(
            *(self._delete(node, cache_keys) for node, cache_keys in enumerate(lists))
        )
        failed = {node: reason for node, reason in enumerate(outcomes) if reason is not None}
        if failed:
            left = [key for key in keys if self._placement.node(key) in failed]
            reasons = ", ".join(f"`{self._names[node]}`: {failed[node]}" for node in failed)
            raise CacheUnavailable(f"{len(left)} keys could not be invalidated; {reasons}", left)

    async def close(self) -> None:
        """Close every connection."""
        await asyncio.gather(*(node.aclose() for node in self._nodes))

    async def _delete(self, node: int, cache_keys: list[bytes]) -> str | None:
        """Why not all of these are deleted, if so: then the node's connections are dropped."""
        if not cache_keys:
            return None
        now_s = asyncio.get_running_loop().time
        began_s = now_s()
        if (reason := self._patience[node].left(began_s)) is not None:
            return reason
        try:
            for start in range(0, len(cache_keys), KEYS_PER_COMMAND):
                await self._delete_some(node, cache_keys[start : start + KEYS_PER_COMMAND])
        except Exception as error:  # noqa: BLE001 - bytes that are no reply make redis-py raise any
            with contextlib.suppress(Exception):
                await self._nodes[node].connection_pool.disconnect()
            return self._patience[node].failed(error, began_s=began_s, now_s=now_s())
        return None

    async def _delete_some(self, node: int, cache_keys: list[bytes]) -> None:
        """The token that comes back proves that the count before it answers this very command."""
        token = secrets.token_bytes(TOKEN_BYTES)
        pipeline: Any = self._nodes[node].pipeline(transaction=False)
        pipeline.delete(*cache_keys)
        pipeline.echo(token)
        count, echoed = await pipeline.execute()
        check_count(count, len(cache_keys))
        if echoed != token:
            raise WrongReply("the reply to `ECHO` is not what was sent")


def check_count(reply: object, count_max: int) -> None:
    """Raises `WrongReply` unless this may be the answer to the deletion of so many keys."""
    if type(reply) is not int or not 0 <= reply <= count_max:
        raise WrongReply(f"the reply to `DEL` of {count_max} keys is `{reply!r:.60}`, no count")

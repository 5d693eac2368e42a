"""A Redis Cluster as the cache: the slower path, by redis-py, one connection pool a node.

Here a node owns hash slots, which may move while we ask. Whatever a node does not answer, because a
slot moved, moves, or nobody has it, is a miss; nothing is asked twice. After such an answer the map
of slots is fetched anew. A node that cannot be reached is left for a pause that grows to a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    TryAgainError,
)

from headrace.gateway.cached.link import (
    CONNECT_LIMIT_S,
    PAUSE_MAX_S,
    PAUSE_START_S,
    REPLY_LIMIT_S,
)
from headrace.gateway.cached.scripts import OBSERVE, TAKE_LEASES, Script
from headrace.registry.cache_slots import SLOTS
from headrace.registry.cache_url import CacheNode, CacheUrl

logger = logging.getLogger(__name__)

MAP_INTERVAL_S = 5.0
"""How often the map of slots is fetched when nobody says that it is old."""
MAP_LIMIT_S = 0.5
TELL_INTERVAL_S = 0.02
UNTOLD_AT_ONCE = 500
UNTOLD_MAX = 50_000

MOVES = (MovedError, AskError, TryAgainError, ClusterDownError)
"""What a node answers when a slot is not, or not yet, or no longer its own."""

Answers = list[bytes | int | str | None]


class Untold(NamedTuple):
    """What a reader saw in the store and could not tell the owner of a slot."""

    slot: int
    block_key: bytes
    lease_key: bytes
    block: bytes


class UntoldKeys:
    """Until such a key is told, an older block may yet be filled, and is not to be read.

    A slot may be on its way, and the lease of another reader with it; so may what that one fills.
    Bounded: beyond it the oldest are given up, as after the failover of a node (semantics 19).
    """

    def __init__(self) -> None:
        self._by_key: dict[bytes, dict[bytes, Untold]] = {}

    def __contains__(self, block_key: bytes) -> bool:
        return block_key in self._by_key

    def add(self, untold: Untold) -> None:
        """Two different blocks of one key are both told: that ends any lease."""
        self._by_key.setdefault(untold.block_key, {})[untold.block] = untold
        if len(self._by_key) > UNTOLD_MAX:
            del self._by_key[next(iter(self._by_key))]

    def discard(self, untold: Untold) -> None:
        """It was told."""
        blocks = self._by_key.get(untold.block_key, {})
        blocks.pop(untold.block, None)
        if not blocks:
            self._by_key.pop(untold.block_key, None)

    def put_off(self, block_key: bytes) -> None:
        """The others come first."""
        if (blocks := self._by_key.pop(block_key, None)) is not None:
            self._by_key[block_key] = blocks

    def some(self, count: int) -> list[Untold]:
        """Up to so many keys, the oldest first, with all their blocks."""
        keys = itertools.islice(self._by_key.values(), count)
        return [untold for blocks in keys for untold in blocks.values()]


class ClusterNode:
    """One master of the cluster, and the breaker around it."""

    def __init__(self, url: CacheUrl, node: CacheNode) -> None:
        self.node = node
        self.up = True
        self.problem: str | None = None
        """Why the node is left; None while it is up."""
        self.opened = 0
        """How often the breaker opened."""
        self._pause_s = PAUSE_START_S
        self._left_until_s = 0.0
        self._client: Any = Redis(
            host=node.host,
            port=node.port,
            username=url.user,
            password=url.password,
            ssl=url.tls,
            ssl_ca_certs=url.ca,
            protocol=url.resp,
            socket_timeout=REPLY_LIMIT_S,
            socket_connect_timeout=CONNECT_LIMIT_S,
            retry=Retry(NoBackoff(), 0),
        )

    @property
    def asked(self) -> bool:
        """Whether the node is asked now: it is up, or its pause is over."""
        return self.up or asyncio.get_running_loop().time() >= self._left_until_s

    async def ask(self, commands: Sequence[tuple[bytes, ...]]) -> list[Any] | None:
        """The replies, errors among them; None when the node cannot be reached."""
        if not self.asked:
            return None
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        try:
            replies: list[Any] = await pipeline.execute(raise_on_error=False)
        except Exception as error:  # noqa: BLE001 - bytes that are no reply make redis-py raise any
            await self._drop(error)
            return None
        self._answered()
        return replies

    async def slots(self) -> dict[tuple[int, int], CacheNode]:
        """Who owns which slots, both ends included, as this node knows it.

        Asked of a node that is left as well. Raises what the client raises.
        """
        try:
            async with asyncio.timeout(MAP_LIMIT_S):
                told = await self._client.execute_command("CLUSTER", "SLOTS")  # RESP2 and 3 alike.
            spans = {(first, last): self._named(*owner[:2]) for first, last, owner, *_ in told}
        except Exception as error:
            await self._drop(error)
            raise
        self._answered()
        return spans

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def _drop(self, error: Exception) -> None:
        """Leave the node, and every connection that may be out of step."""
        self._leave(str(error) or type(error).__name__)
        with contextlib.suppress(Exception):
            await self._client.connection_pool.disconnect(inuse_connections=False)

    def _named(self, host: str | bytes, port: int) -> CacheNode:
        name = host.decode() if isinstance(host, bytes) else host
        return CacheNode(name or self.node.host, int(port))

    def _answered(self) -> None:
        self.up, self.problem, self._pause_s = True, None, PAUSE_START_S

    def _leave(self, reason: str) -> None:
        if self.up:
            self.opened += 1
            logger.warning("cache node is left", extra={"node": self.node.name, "reason": reason})
        self.up, self.problem = False, reason
        spread = random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        self._left_until_s = asyncio.get_running_loop().time() + self._pause_s * spread
        self._pause_s = min(PAUSE_MAX_S, self._pause_s * 2)


class ClusterLinks:
    """All nodes of a cluster; where `Links` knows nodes by position, this knows slots."""

    def __init__(self, url: CacheUrl) -> None:
        self._url = url
        self._known = {node: ClusterNode(url, node) for node in url.nodes}
        self._owners: list[ClusterNode | None] = [None] * SLOTS
        self._map_old = asyncio.Event()
        self._map_asked = False
        self._tasks: list[asyncio.Task[None]] = []
        self._untold = UntoldKeys()
        self.scripts_refused = 0
        """Replies to scripts that were errors, such as those of a node that is out of memory."""
        self.hits = 0
        """Blocks that nodes gave."""

    @property
    def nodes(self) -> list[ClusterNode]:
        """The owners of slots; before they are known, the nodes of the URL."""
        owners = {owner.node: owner for owner in self._owners if owner is not None}
        return list(owners.values()) or list(self._known.values())

    def start(self) -> None:
        """Begin to fetch the map of slots."""
        self._map_old.set()
        self._tasks = [asyncio.create_task(work) for work in (self._keep_map(), self._tell())]

    async def stop(self) -> None:
        """Leave every node."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(node.close() for node in self._known.values()))

    def tried(self) -> bool:
        """Whether the map of slots was asked for once."""
        return self._map_asked

    def keeper(self, node: int) -> ClusterNode | None:
        """The owner of a slot; when nobody is known to own it, a node that says why."""
        return self._owners[node] or next((each for each in self.nodes if each.problem), None)

    def reaches(self, node: int) -> bool:
        """Always: what a slot's owner cannot be told is kept until it can."""
        return True

    async def blocks(self, keys: Sequence[tuple[int, bytes]]) -> list[bytes | None]:
        """What stands under each (slot, cache key); None for nothing and for no answer."""
        found: list[bytes | None] = [None] * len(keys)
        by_owner: dict[CacheNode, list[int]] = {}
        for position, (slot, key) in enumerate(keys):
            owner = self._owners[slot]
            if owner is not None and key not in self._untold:
                by_owner.setdefault(owner.node, []).append(position)

        async def ask(node: CacheNode, positions: list[int]) -> None:
            commands = [(b"GET", keys[position][1]) for position in positions]
            for position, reply in zip(
                positions, await self._ask(self._known[node], commands), strict=True
            ):
                found[position] = reply if isinstance(reply, bytes) else None

        await asyncio.gather(*(ask(*each) for each in by_owner.items()))
        self.hits += sum(block is not None for block in found)
        return found

    async def run_script(
        self, node: int, script: Script, keys: list[bytes], arguments: list[bytes]
    ) -> Answers | None:
        """The items of the reply of a slot's owner; None when it cannot be asked or refused."""
        if script is TAKE_LEASES:
            return await self._take_leases(node, keys, arguments)
        answers = await self._run(node, script, keys, arguments)
        if answers is None and script is OBSERVE:
            for block_key, lease_key, block in zip(keys[::2], keys[1::2], arguments, strict=True):
                self._untold.add(Untold(node, block_key, lease_key, block))
        return answers

    async def _take_leases(self, node: int, keys: list[bytes], arguments: list[bytes]) -> Answers:
        """As others hold the leases, when nobody can say: the reader then tells what it saw."""
        contested: Answers = [0] * (len(keys) // 2)
        if any(block_key in self._untold for block_key in keys[::2]):
            return contested
        return await self._run(node, TAKE_LEASES, keys, arguments) or contested

    async def _run(
        self, slot: int, script: Script, keys: list[bytes], arguments: list[bytes]
    ) -> Answers | None:
        count = b"%d" % len(keys)
        reply = await self._ask_owner(slot, (b"EVALSHA", script.sha, count, *keys, *arguments))
        if isinstance(reply, NoScriptError):
            reply = await self._ask_owner(slot, (b"EVAL", script.text, count, *keys, *arguments))
        if reply is None or isinstance(reply, Exception):
            self.scripts_refused += reply is not None
            return None
        return reply if isinstance(reply, list) else [reply]

    async def delete(self, node: int, key: bytes) -> None:
        """Delete one key, if the owner of its slot can be asked."""
        await self._ask_owner(node, (b"DEL", key))

    async def _ask_owner(self, slot: int, command: tuple[bytes, ...]) -> Any:
        owner = self._owners[slot]
        return None if owner is None else (await self._ask(owner, [command]))[0]

    async def _ask(self, owner: ClusterNode, commands: Sequence[tuple[bytes, ...]]) -> list[Any]:
        """One reply a command. Who asks may be cancelled; the question is not, so that its
        connection stays in step."""
        replies = await asyncio.shield(asyncio.create_task(owner.ask(commands)))
        if replies is None or any(isinstance(reply, MOVES) for reply in replies):
            self._map_old.set()
        return replies or [None] * len(commands)

    async def _tell(self) -> None:
        """Tell the owners of slots what was seen in the store while they could not be told."""
        while True:
            await asyncio.sleep(TELL_INTERVAL_S)
            try:
                for each in self._untold.some(UNTOLD_AT_ONCE):
                    if await self._is_told(each):
                        self._untold.discard(each)
                    else:
                        self._untold.put_off(each.block_key)
            except Exception:
                logger.exception("owners of slots were not told; this is tried again")

    async def _is_told(self, each: Untold) -> bool:
        owner = self._owners[each.slot]
        if owner is None or not owner.asked:
            return False
        keys = [each.block_key, each.lease_key]
        return await self._run(each.slot, OBSERVE, keys, [each.block]) is not None

    async def _keep_map(self) -> None:
        while True:
            self._map_old.clear()
            try:
                await self._fetch_map()
            except Exception:
                logger.exception("the map of slots was not fetched; this is tried again")
            self._map_asked = True
            await asyncio.sleep(PAUSE_START_S)
            try:
                async with asyncio.timeout(MAP_INTERVAL_S):
                    await self._map_old.wait()
            except TimeoutError:
                continue

    async def _fetch_map(self) -> None:
        """Take the map of the first node that has one, those that are up first."""
        for node in sorted(self._known.values(), key=lambda node: not node.up):
            try:
                spans = await node.slots()
            except Exception as error:  # noqa: BLE001 - as above; the next node may know
                logger.debug("no map of slots from %s: %s", node.node.name, error)
                continue
            if spans:
                self._install(spans)
                return

    def _install(self, spans: dict[tuple[int, int], CacheNode]) -> None:
        owners: list[ClusterNode | None] = [None] * SLOTS
        for (first, last), node in spans.items():
            if node not in self._known:
                self._known[node] = ClusterNode(self._url, node)
            owners[first : last + 1] = [self._known[node]] * (last + 1 - first)
        self._owners = owners

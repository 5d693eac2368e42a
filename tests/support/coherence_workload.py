"""What a coherence run does: producers and readers on a few hot keys, and faults around them."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable

from coherence import LEVEL, NAME, Key
from coherent_cluster import BRIEF, NEAR, PLAYS, USER_NUMBERS, USERS, Cluster
from store_reads import until

from headrace.loadtest.fault_proxy import (
    CutMidReply,
    Delay,
    DuplicateReply,
    Fault,
    FaultProxy,
    Garble,
    Pass,
    Refuse,
    SwapReplies,
)

READERS = 6
PRODUCERS = 2
KEYS_PER_READ = 4
UNACKNOWLEDGED_MAX = 24
HOT_USERS = 8


def fresh_keys(users: int = HOT_USERS) -> list[Key]:
    """Keys that no scenario used before: a row of each group a user, so that all are hot."""
    numbers = [next(USER_NUMBERS) for _ in range(users)]
    return [(group, user) for user in numbers for group in (USERS, PLAYS, BRIEF, NEAR)]


class Workload:
    """Producers and readers until so many operations were made; a row read counts as one."""

    def __init__(self, cluster: Cluster, keys: list[Key], *, operations: int) -> None:
        self._cluster = cluster
        self._keys = keys
        self.go_on_until: Callable[[], bool] = lambda: True
        """What has to be true besides, before it is enough."""
        self._goal = cluster.checker.counts["reads"] + cluster.checker.counts["writes"] + operations

    @property
    def done(self) -> bool:
        """Whether enough was done, or a promise was broken already."""
        counts = self._cluster.checker.counts
        enough = counts["reads"] + counts["writes"] >= self._goal
        return (enough and self.go_on_until()) or bool(self._cluster.checker.violations)

    async def run(self) -> None:
        """All actors side by side, then quiet."""
        async with asyncio.TaskGroup() as actors:
            for number in range(PRODUCERS):
                actors.create_task(self._produce(random.Random(self._cluster.chance.random())))
                actors.create_task(self._read(f"reader-{number}"))
            for number in range(PRODUCERS, READERS):
                actors.create_task(self._read(f"reader-{number}"))
        await self._cluster.settled()

    async def _read(self, reader: str) -> None:
        while not self.done:
            chosen = self._cluster.chance.sample(self._keys, KEYS_PER_READ)
            await self._cluster.read(reader, chosen)

    async def _produce(self, chance: random.Random) -> None:
        while not self.done:
            if self._cluster.unacknowledged >= UNACKNOWLEDGED_MAX:
                await asyncio.sleep(0.002)
                continue
            await self._command(chance)
            await asyncio.sleep(chance.random() * 0.006)

    async def _command(self, chance: random.Random) -> None:
        key = chance.choice(self._keys)
        late_ms = chance.randrange(2, 60) if chance.random() < 0.15 else 0
        draw = chance.random()
        fields: tuple[str, ...] = (LEVEL, NAME)
        if draw < 0.07:
            fields = ()
        elif key[0] != PLAYS and draw < 0.4:
            fields = (LEVEL,) if draw < 0.25 else (NAME,)
        await self._cluster.write(key, late_ms=late_ms, fields=fields)


class Faults:
    """One fault after the other, drawn by the cluster's seed, until the workload is done."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.made: Counter[str] = Counter()

    async def run(self, workload: Workload) -> None:
        """Each kind at least once."""
        faults: list[Callable[[], Awaitable[None]]] = [
            self.cut,
            self.refuse,
            self.flush,
            self.evict,
            self.lose_leases,
            self.lose_scripts,
            self.slow,
            self.cut_mid_reply,
            self.swap,
            self.duplicate,
            self.garble,
            self.lose_store,
            self.restart,
        ]
        workload.go_on_until = lambda: len(self.made) == len(faults)
        while not workload.done:
            # Each kind once before any comes again.
            for fault in self._cluster.chance.sample(faults, len(faults)):
                if workload.done:
                    return
                await fault()
                self.made[fault.__name__] += 1
                await self._pause(20, 60)

    async def _pause(self, least_ms: int, most_ms: int) -> None:
        await asyncio.sleep(self._cluster.chance.randint(least_ms, most_ms) / 1000)

    async def _spell(
        self, fault: Fault, most_ms: int = 120, *, proxy: FaultProxy | None = None
    ) -> None:
        """One proxy misbehaves for a while: a gateway's or the writers'."""
        proxy = proxy or self._cluster.chance.choice(self._cluster.proxies)
        proxy.fault = fault
        await self._pause(30, most_ms)
        proxy.fault = Pass()

    async def cut(self) -> None:
        """Connections are reset, some of them in the middle of commands."""
        for proxy in self._cluster.chance.sample(self._cluster.proxies, 2):
            proxy.cut_connections()

    async def refuse(self) -> None:
        """No connection to the cache for a while; the writers hold their invalidations."""
        await self._spell(Refuse(), 400)

    async def slow(self) -> None:
        """Replies come late, some too late."""
        await self._spell(Delay(self._cluster.chance.choice((2, 5, 15, 60))))

    async def cut_mid_reply(self) -> None:
        """Half a reply."""
        await self._spell(CutMidReply())

    async def swap(self) -> None:
        """Two replies change places."""
        await self._lie(SwapReplies())

    async def duplicate(self) -> None:
        """Every reply comes twice."""
        await self._lie(DuplicateReply())

    async def garble(self) -> None:
        """Bits are flipped."""
        await self._lie(Garble(self._cluster.chance.randrange(1000)))

    async def _lie(self, fault: Fault) -> None:
        """A gateway's cache connection gives replies that are not true, then is replaced.

        Or the writers' does, who must take none of them for an invalidation: nothing is excused.
        """
        position = self._cluster.chance.randrange(len(self._cluster.proxies))
        if position == len(self._cluster.gateways):
            await self._spell(fault, proxy=self._cluster.proxies[position])
            return
        proxy, gateway = self._cluster.proxies[position], self._cluster.gateways[position]
        self._cluster.lying(begins=True)
        proxy.fault = fault
        await self._pause(30, 120)
        proxy.fault = Pass()
        opened = gateway.reads.counters()["breaker_opened"]
        up = not gateway.reads.nodes_down
        proxy.cut_connections()
        await until(
            lambda: not up or gateway.reads.counters()["breaker_opened"] > opened, limit_s=5
        )
        await until(lambda: not gateway.reads.nodes_down, limit_s=5)
        self._cluster.lying(begins=False)

    async def flush(self) -> None:
        """FLUSHALL."""
        async with self._cluster.redis as redis:
            await redis.flushall()

    async def evict(self) -> None:
        """Some blocks are gone, as under memory pressure."""
        await self._drop(b"hb1:*")

    async def lose_leases(self) -> None:
        """Some leases are gone."""
        await self._drop(b"hl1:*")

    async def _drop(self, pattern: bytes) -> None:
        async with self._cluster.redis as redis:
            keys = sorted(await redis.keys(pattern))
            if keys:
                await redis.delete(*keys[:: self._cluster.chance.randint(1, 2)])

    async def lose_scripts(self) -> None:
        """SCRIPT FLUSH."""
        async with self._cluster.redis as redis:
            await redis.script_flush()

    async def lose_store(self) -> None:
        """One gateway cannot reach the store."""
        rows = self._cluster.chance.choice(self._cluster.rows)
        self._cluster.store_outage(rows, begins=True)
        await self._pause(30, 120)
        self._cluster.store_outage(rows, begins=False)

    async def restart(self) -> None:
        """The node is killed and comes back empty."""
        node = self._cluster.node
        await asyncio.to_thread(node.stop)
        await self._pause(10, 60)
        await asyncio.to_thread(node.start)

"""Reads over a networked store with an optional cache in front: what the lane calls.

Most requests never leave `CachedReads`: submitted, answered by a node's reply. What is missed gets
one task, which reads the rest from the store within the request's deadline.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from time import perf_counter_ns
from typing import Any

import msgspec

from headrace.codec import (
    CachedReads,
    Catalog,
    LaneTurn,
    Pace,
    PendingRead,
    Placement,
    ReadEngine,
    StaleCatalog,
)
from headrace.gateway.cached.flights import Block, Boarded, Fill, Flight, Flights, Wanted
from headrace.gateway.cached.link import Links, Outcome
from headrace.gateway.cached.nodes import CacheNodes, ClusteredBlocks, KeyPlacement
from headrace.gateway.cached.tiers import CacheTiers
from headrace.gateway.catalog_in_force import CatalogInForce
from headrace.gateway.errors import Overloaded, refusal_of
from headrace.gateway.ports import Cells, Clock, PartState, RowReader, Unreachable
from headrace.gateway.responses import refusal_parts
from headrace.registry.cache_slots import SlotPlacement
from headrace.registry.cache_url import CacheUrl

logger = logging.getLogger(__name__)

UNCACHED_NODE = "none"
LOCAL_BYTES_MAX = 64 << 20
"""Of blocks kept in the process, for groups that declare a `local_ttl`."""
KEYS_UNDER_WAY_MAX = 20_000
"""Beyond this many keys being read, further misses are told that the store cannot be reached."""
JITTER = 0.1
ROUNDS_MAX = 3
"""Tries of a request at a row whose first read proved nothing; the last asks the store alone."""

CACHE_WAIT_MS = 5
"""How long a request may wait for the cache's replies and for us to read them; more are refused."""
STORE_WAIT_SHARE = 0.25
"""The part of its deadline that a miss may wait for those before it; beyond it is unavailable."""
CACHED_WORK_LEAST = 65_536
STORE_KEYS_LEAST = 256
"""What keeps either stage busy: less is never refused."""
CACHED_READS_LEAST = 8
"""Nor are so few reads, however large: of random arrivals at half of the peak two in a thousand
find so many before them; of four it would be three in a hundred (M/M/1 with so many places)."""
CACHED_WORK_UNKNOWN = 1_048_576
STORE_KEYS_UNKNOWN = 4_096
"""What is let in while the speed of a stage is not known: after a start or a second of rest."""
OVERLOADED = refusal_parts(
    refusal_of(
        Overloaded("this gateway is asked for more than it can answer in time"),
        method="POST",
        path="",
    )
)

Deliver = Callable[[bytes], None]


class Asking(msgspec.Struct):
    """One request, kept until it is delivered."""

    body: bytes
    accept: int
    request_id: bytes
    keep_alive: bool
    deliver: Deliver
    came_s: float
    """By the loop's clock: its deadline runs from here, however often it is started again."""
    started_ns: int
    reloaded: bool = False


class StoreReads:
    """`start` answers a request now or later; one instance a process."""

    def __init__(
        self,
        engine: ReadEngine,
        in_force: CatalogInForce,
        rows: RowReader,
        cache: CacheUrl | None,
        clock: Clock,
        *,
        default_deadline_ms: int,
    ) -> None:
        self._in_force = in_force
        self._clock = clock
        self._default_deadline_s = default_deadline_ms / 1000
        self.observe: Callable[[int, bytes], None] = _unobserved
        """Told the time and status of every answer; the application puts its telemetry here."""
        self._engine = engine
        names, epoch = [UNCACHED_NODE], cache.epoch if cache else 1
        if cache is not None and not cache.cluster:
            names = [node.name for node in cache.nodes]
        placement: KeyPlacement
        placement = nodes = Placement(names, epoch=epoch)
        self._reads = CachedReads(engine, nodes, local_bytes_max=LOCAL_BYTES_MAX)
        self._flush_soon: Callable[[], None] = _nothing_queued
        self._cluster: ClusteredBlocks | None = None
        self._nodes: CacheNodes | None = None
        if cache is not None and cache.cluster:
            placement = SlotPlacement(epoch=epoch)
            self._nodes = self._cluster = _cluster_links(cache)
        elif cache is not None:
            self._nodes = links = Links(self._reads, cache, self._deliver, clock)
            self._flush_soon = links.flush_soon
        self._reads.listen(
            flush_soon=self._flush_soon,
            missed=self._deliver,
            refusal=OVERLOADED,
            least=CACHED_WORK_LEAST,
            least_reads=CACHED_READS_LEAST,
            unknown=CACHED_WORK_UNKNOWN,
            wait_ms=CACHE_WAIT_MS,
        )
        self._placement = placement
        self._tasks: set[asyncio.Task[None]] = set()
        self._store_pace = Pace(least=STORE_KEYS_LEAST, unknown=STORE_KEYS_UNKNOWN)
        self._shed = 0
        self._flights = Flights(rows, self._nodes, placement, self._spawn)
        self.tiers = CacheTiers(self._reads, self._nodes, placement, clock, in_process=True)
        """What stands before the store, for `explain`."""
        self._loop = asyncio.get_running_loop()

    @property
    def direct(self) -> CachedReads:
        """What a lane reads from: a request that the cache answers whole never comes here."""
        return self._reads

    def open(self) -> None:
        """Begin to connect the cache."""
        if self._nodes is not None:
            self._nodes.start()

    async def close(self) -> None:
        """Leave the cache and end what is under way."""
        if self._nodes is not None:
            await self._nodes.stop()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def start(
        self, body: bytes, accept: int, request_id: bytes, *, keep_alive: bool, deliver: Deliver
    ) -> bytes | None:
        """The response, or None when `deliver` is called with it later, exactly once."""
        refused = self._reads.refuse(request_id, keep_alive=keep_alive)
        if refused is not None:
            self.observe(0, refused[9:12])
            return refused
        came_s, started_ns = self._loop.time(), perf_counter_ns()
        asking = Asking(body, accept, request_id, keep_alive, deliver, came_s, started_ns)
        response = self._start(asking)
        if response is not None:
            self.observe(perf_counter_ns() - started_ns, response[9:12])
        return response

    def counters(self) -> dict[str, int]:
        """Totals since start, and how much is under way."""
        counters = self._engine.counters()
        cached = self._reads.counters()
        counters["reads_refused"] = cached.pop("refused")
        counters |= {f"cache_{name}": total for name, total in cached.items()}
        counters |= msgspec.structs.asdict(self._flights.counters)
        counters["keys_under_way"] = self._flights.under_way
        counters["misses_refused"] = self._shed
        if self._nodes is not None:
            counters["cache_nodes_up"] = sum(node.up for node in self._nodes.nodes)
            counters["cache_scripts_refused"] = self._nodes.scripts_refused
            counters["breaker_opened"] = sum(node.opened for node in self._nodes.nodes)
        if self._cluster is not None:
            counters["cache_hits"] += self._cluster.hits
        return counters

    def parts(self) -> list[PartState]:
        """Every cache node, and why it is left if it is."""
        nodes = self._nodes.nodes if self._nodes is not None else []
        return [PartState(f"cache node {node.node.name}", node.problem) for node in nodes]

    @property
    def nodes_down(self) -> list[str]:
        """Cache nodes that are left for now."""
        nodes = self._nodes.nodes if self._nodes is not None else []
        return [node.node.name for node in nodes if not node.up]

    def _start(self, asking: Asking) -> bytes | None:
        outcome = self._reads.submit(
            asking.body,
            caller=asking,
            accept=asking.accept,
            now_ms=self._clock(),
            request_id=asking.request_id,
            keep_alive=asking.keep_alive,
            reloaded=asking.reloaded,
        )
        if outcome is None:
            self._flush_soon()
            return None
        if isinstance(outcome, bytes):
            return outcome
        self._miss(asking, outcome)
        return None

    def _deliver(self, caller: Asking | LaneTurn, outcome: Outcome) -> None:
        asking = self._asking_of(caller) if isinstance(caller, LaneTurn) else caller
        if isinstance(outcome, bytes):
            self._answer(asking, outcome)
        elif isinstance(outcome, PendingRead):
            self._miss(asking, outcome)
        else:
            self._spawn(self._reload(asking))

    def _asking_of(self, turn: LaneTurn) -> Asking:
        """A request of the lane that the cache did not answer whole."""
        age_ns = turn.age_ns
        return Asking(
            turn.body,
            turn.accept,
            turn.request_id,
            turn.keep_alive,
            turn,
            self._loop.time() - age_ns / 1e9,
            perf_counter_ns() - age_ns,
        )

    def _answer(self, asking: Asking, response: bytes) -> None:
        self.observe(perf_counter_ns() - asking.started_ns, response[9:12])
        asking.deliver(response)

    def _miss(self, asking: Asking, pending: PendingRead) -> None:
        now_s = self._loop.time()
        asked_ms = pending.deadline_ms
        limit_s = self._default_deadline_s if asked_ms is None else asked_ms / 1000
        due_s = asking.came_s + limit_s
        wait_s = (due_s - now_s) * STORE_WAIT_SHARE
        if self._store_pace.admits(now_s, wait_s) and self._flights.under_way < KEYS_UNDER_WAY_MAX:
            wanted = pending.wanted()
            self._store_pace.begin(len(wanted))
            self._spawn(self._finish(asking, pending, wanted, due_s))
        else:
            self._shed += 1
            self._loop.call_soon(self._answer, asking, pending.finish())

    async def _finish(
        self, asking: Asking, pending: PendingRead, wanted: list[Wanted], due_s: float
    ) -> None:
        """Read what is missing until the deadline, then answer with what there is."""
        began_ns = perf_counter_ns()
        stale = in_time = False
        try:
            async with asyncio.timeout_at(due_s):
                await self._read_missing(pending, wanted, self._in_force.catalog, due_s)
            in_time = True
        except TimeoutError:
            pass  # Rows still wanted are UNAVAILABLE: past the deadline (semantics 11).
        except StaleCatalog:
            stale = True
        finally:
            elapsed_ns = perf_counter_ns() - began_ns
            self._store_pace.end(len(wanted), elapsed_ns, finished=in_time)
            # Whatever went wrong, the caller gets an answer.
            if not stale:
                self._answer(asking, pending.finish())
        if stale:
            await self._reload(asking)

    async def _reload(self, asking: Asking) -> None:
        """A row of a newer catalog: load that one once and start again (semantics 20)."""
        await self._in_force.refresh()
        asking.reloaded = True
        response = self._start(asking)
        if response is not None:
            self._answer(asking, response)

    async def _read_missing(
        self, pending: PendingRead, wanted: list[Wanted], catalog: Catalog, due_s: float
    ) -> None:
        if self._cluster is not None:
            wanted = await self._take_clustered(self._cluster, pending, wanted)
        for rounds in range(1, ROUNDS_MAX + 1):
            if rounds > 1:
                wanted = pending.wanted()
            if not wanted or self._loop.time() >= due_s:
                return
            alone = rounds == ROUNDS_MAX
            boarded = self._flights.board(catalog, wanted, due_s=due_s, alone=alone)
            try:
                await self._take(pending, boarded, due_s)
            finally:
                self._flights.leave(boarded)

    async def _take_clustered(
        self, cluster: ClusteredBlocks, pending: PendingRead, wanted: list[Wanted]
    ) -> list[Wanted]:
        """Take what a Redis Cluster holds, and say what is wanted still."""
        cached = [(slot, key) for slot, key, _, ttl_ms in wanted if ttl_ms > 0]
        place = self._placement
        blocks = await cluster.blocks(
            [(place.node(key), place.block_key(key)) for _, key in cached]
        )
        now_ms = self._clock()
        for (slot, _), block in zip(cached, blocks, strict=True):
            if block is not None:
                pending.take_block(slot, block, now_ms)
        return pending.wanted()

    async def _take(self, pending: PendingRead, boarded: list[Boarded], due_s: float) -> None:
        """Put what flights bring into the request; what cannot be trusted stays wanted."""
        landed: list[tuple[int, Flight]] = []
        for slot, flight, late in boarded:
            # The keys of one request land together: only the first of them has to be waited for.
            if flight.outcome is None or (late and flight.confirmed is None):
                await self._put(pending, landed, due_s)
                landed = []
                await flight.landed()
                if late:
                    await flight.settled()
            if not late or flight.confirmed or isinstance(flight.outcome, Unreachable):
                landed.append((slot, flight))
        await self._put(pending, landed, due_s)

    async def _put(
        self, pending: PendingRead, landed: list[tuple[int, Flight]], due_s: float
    ) -> None:
        rows: list[tuple[int, list[tuple[int, bytes]]]] = []
        flights: list[Flight] = []
        for slot, flight in landed:
            outcome = flight.outcome
            if isinstance(outcome, Cells):
                rows.append((slot, outcome.cells))
                flights.append(flight)
            elif isinstance(outcome, Block):
                if not pending.take_block(slot, outcome.block, self._clock()):
                    await self._flights.discard(flight.key)
            # Whose deadline lies beyond that of the flight tries anew, once: its own is as late.
            elif flight.due_s >= due_s:
                pending.take_unavailable(slot)
        if rows:
            await self._pass_on(flights, pending.take_rows(rows, self._clock()))

    async def _pass_on(self, flights: list[Flight], blocks: list[tuple[bytes, int] | None]) -> None:
        """Fill the cache with what was read, or tell it what was seen where others may fill."""
        fills: list[Fill] = []
        seen: list[tuple[bytes, bytes]] = []
        for flight, made in zip(flights, blocks, strict=True):
            if made is None:
                continue
            block, ttl_ms = made
            if flight.contested:
                seen.append((flight.key, block))
            elif flight.token is not None:
                fills.append((flight, block, jittered(ttl_ms)))
        self._flights.offer(fills)
        if seen:
            await self._flights.observe(seen)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a read failed", exc_info=task.exception())


def _cluster_links(url: CacheUrl) -> ClusteredBlocks:
    """redis-py is imported for a cluster only."""
    from headrace.gateway.cached.cluster import ClusterLinks

    return ClusterLinks(url)


def _nothing_queued() -> None:
    """Without nodes named one by one, no request waits for any."""


def _unobserved(elapsed_ns: int, status: bytes) -> None:
    """Until an application asks for telemetry."""


def jittered(ttl_ms: int) -> int:
    """Up to 10 % less, so that keys filled together do not expire together, nor outlive a cell."""
    return int(ttl_ms * random.uniform(1 - JITTER, 1))  # noqa: S311 - no secret

"""Reading what the cache missed: one store read a key, under a lease, shared by who waits.

A read under way may have begun before a write that a caller has already seen elsewhere. So who
comes after the store was asked does not take its outcome on trust: it counts once the lease has
proved that nothing was written since (the fill was taken); else the key is read anew.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec

from headrace.codec import Catalog, Placement
from headrace.gateway.cached.link import Links
from headrace.gateway.cached.scripts import FILL, LEASE_MS, OBSERVE, TAKE_LEASES, TOKEN_BYTES
from headrace.gateway.ports import Cells, RowReader, Unreachable

Spawn = Callable[[Coroutine[Any, Any, None]], None]


class Asked(msgspec.Struct, frozen=True):
    """One key to read. `events` is how many events a History keeps, None for an Object."""

    key: bytes
    events: int | None
    cached: bool


class Block(msgspec.Struct, frozen=True):
    """A block that was put into the cache between the miss and the lease."""

    block: bytes


class Flight:
    """One read of one key, and what its lease has proved."""

    __slots__ = (
        "asked",
        "confirmed",
        "contested",
        "dispatched",
        "due_s",
        "early",
        "filling",
        "outcome",
        "token",
    )

    def __init__(self, asked: Asked, due_s: float) -> None:
        loop = asyncio.get_running_loop()
        self.asked = asked
        self.due_s = due_s
        """Deadline of who began it, on the loop's clock: the store is not asked later."""
        self.token: bytes | None = None
        """Our lease; None without one."""
        self.contested = False
        """Whether another reader holds the lease."""
        self.dispatched = False
        """Whether the store was asked already."""
        self.outcome: asyncio.Future[Cells | Block | Unreachable] = loop.create_future()
        self.confirmed: asyncio.Future[bool] = loop.create_future()
        """Whether nothing was written from the lease until the fill."""
        self.filling = False
        self.early = 0
        """Callers that came before the store was asked: only they may offer a fill."""


class FlightCounters(msgspec.Struct):
    """Totals since start."""

    store_reads: int = 0
    joined: int = 0
    leases: int = 0
    fills: int = 0
    fills_refused: int = 0


class Flights:
    """All reads under way in this process."""

    def __init__(
        self, rows: RowReader, links: Links | None, placement: Placement, spawn: Spawn
    ) -> None:
        self._rows = rows
        self._links = links
        self._placement = placement
        self._spawn = spawn
        self._under_way: dict[bytes, Flight] = {}
        self.counters = FlightCounters()

    @property
    def under_way(self) -> int:
        """Keys that are being read."""
        return len(self._under_way)

    def board(
        self, catalog: Catalog, asked: Sequence[Asked], *, due_s: float, alone: bool
    ) -> list[tuple[Flight, bool]]:
        """A flight per key, and whether it had left already when this caller came.

        `alone` shares nothing with other callers and takes nothing from the cache: the store
        decides. The cache is told what was seen, so that no other reader falls behind it and a
        block that nobody can use goes.
        """
        if alone:
            own = [Flight(Asked(each.key, each.events, cached=False), due_s) for each in asked]
            for lone, each in zip(own, asked, strict=True):
                lone.contested = each.cached
            self._spawn(self._fly(catalog, own))
            return [(flight, False) for flight in own]
        fresh: list[Flight] = []
        boarded: list[tuple[Flight, bool]] = []
        for each in asked:
            flight = self._under_way.get(each.key)
            if flight is None:
                flight = self._under_way[each.key] = Flight(each, due_s)
                fresh.append(flight)
            else:
                self.counters.joined += 1
            flight.early += not flight.dispatched
            boarded.append((flight, flight.dispatched))
        if fresh:
            self._spawn(self._fly(catalog, fresh))
        return boarded

    def leave(self, flight: Flight, *, late: bool) -> None:
        """A caller needs the flight no more. Once nobody is left to offer a fill, it ends."""
        flight.early -= not late
        if flight.outcome.done() and flight.early == 0 and not flight.filling:
            self._end(flight, confirmed=False)

    def offer(self, flight: Flight, block: bytes, ttl_ms: int) -> None:
        """Fill the cache with what the flight brought, off the answer's path; the first counts."""
        token, flight.token = flight.token, None
        if token is not None and ttl_ms > 0:
            flight.filling = True
            self._spawn(self._fill(flight, token, block, ttl_ms))

    async def discard(self, key: bytes) -> None:
        """Delete a block that cannot be used, so that a sound one may be filled."""
        if self._links is not None:
            await self._links.delete(self._placement.node(key), self._placement.block_key(key))

    async def observe(self, key: bytes, block: bytes) -> None:
        """Tell the cache what the store held while another reader has the lease."""
        if self._links is not None:
            keys = [self._placement.block_key(key), self._placement.lease_key(key)]
            await self._links.run_script(self._placement.node(key), OBSERVE, keys, [block])

    async def _fly(self, catalog: Catalog, flights: list[Flight]) -> None:
        """Lease, then ask the store: flights of one caller, so of one deadline."""
        await self._lease(flights)
        left = [flight for flight in flights if not flight.outcome.done()]
        for flight in left:
            flight.dispatched = True
        limit_ms = int((flights[0].due_s - asyncio.get_running_loop().time()) * 1000)
        if limit_ms <= 0:
            self._land(left, [Unreachable("the deadline passed")] * len(left))
            return
        self.counters.store_reads += len(left)
        wanted = [(flight.asked.key, flight.asked.events) for flight in left]
        outcomes: Sequence[Cells | Unreachable] = [Unreachable("the read failed")] * len(left)
        try:
            if wanted:
                outcomes = await self._rows.fetch(catalog, wanted, limit_ms=limit_ms)
        finally:
            self._land(left, outcomes)

    def _land(self, left: list[Flight], outcomes: Sequence[Cells | Unreachable]) -> None:
        for flight, outcome in zip(left, outcomes, strict=True):
            flight.outcome.set_result(outcome)
            if isinstance(outcome, Unreachable) or flight.token is None or flight.early == 0:
                self._end(flight, confirmed=False)

    async def _lease(self, flights: list[Flight]) -> None:
        """Take a lease for every cached key, one script call a node."""
        if self._links is None:
            return
        by_node: dict[int, list[Flight]] = {}
        for flight in flights:
            if flight.asked.cached:
                by_node.setdefault(self._placement.node(flight.asked.key), []).append(flight)
        await asyncio.gather(*(self._lease_at(node, each) for node, each in by_node.items()))

    async def _lease_at(self, node: int, flights: list[Flight]) -> None:
        if self._links is None or not self._links.nodes[node].up:
            return
        keys: list[bytes] = []
        for flight in flights:
            key = flight.asked.key
            keys += (self._placement.block_key(key), self._placement.lease_key(key))
        token = secrets.token_bytes(TOKEN_BYTES)
        arguments = [token, b"%d" % LEASE_MS]
        answers = await self._links.run_script(node, TAKE_LEASES, keys, arguments)
        if answers is None or len(answers) != len(flights):
            return
        for flight, answer in zip(flights, answers, strict=True):
            if isinstance(answer, bytes):
                flight.outcome.set_result(Block(answer))
                self._end(flight, confirmed=True)
            elif answer == 1:
                self.counters.leases += 1
                flight.token = token
            else:
                flight.contested = True

    async def _fill(self, flight: Flight, token: bytes, block: bytes, ttl_ms: int) -> None:
        key = flight.asked.key
        keys = [self._placement.block_key(key), self._placement.lease_key(key)]
        arguments = [token, block, b"%d" % ttl_ms]
        answer = None
        if self._links is not None:
            answer = await self._links.run_script(self._placement.node(key), FILL, keys, arguments)
        taken = answer == [token + keys[0]]
        self.counters.fills += taken
        self.counters.fills_refused += not taken
        self._end(flight, confirmed=taken)

    def _end(self, flight: Flight, *, confirmed: bool) -> None:
        if not flight.confirmed.done():
            flight.confirmed.set_result(confirmed)
        if self._under_way.get(flight.asked.key) is flight:
            del self._under_way[flight.asked.key]

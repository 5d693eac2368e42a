"""Reading what the cache missed: one store read a key, under a lease, shared by who waits.

A read under way may have begun before a write that a caller has already seen elsewhere. So who
comes after the store was asked does not take its outcome on trust: it counts once the lease has
proved that nothing was written since (the fill was taken); else the key is read anew.

A request may miss hundreds of keys: they fly together, in one task, and a future is made only for
who waits.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

import msgspec

from headrace.codec import Catalog
from headrace.gateway.cached.nodes import CacheNodes, KeyPlacement
from headrace.gateway.cached.scripts import (
    FILL,
    LEASE_MS,
    OBSERVE,
    PAIRS_PER_CALL_MAX,
    TAKE_LEASES,
    TOKEN_BYTES,
)
from headrace.gateway.ports import Cells, RowReader, Unreachable

Spawn = Callable[[Coroutine[Any, Any, None]], None]

Wanted = tuple[int, bytes, int | None, int]
"""A row to read: slot, key, how many events a History keeps (None for an Object), cache ttl in ms,
0 for a group that is not cached."""

Place = tuple[int, bytes, bytes]
"""Where a key lies in the cache: node, block key, lease key."""


class Block(msgspec.Struct, frozen=True):
    """A block that was put into the cache between the miss and the lease."""

    block: bytes


class Flight:
    """One read of one key, and what its lease has proved."""

    __slots__ = (
        "cached",
        "confirmed",
        "contested",
        "dispatched",
        "due_s",
        "early",
        "events",
        "filling",
        "key",
        "outcome",
        "place",
        "token",
        "waiting",
    )

    def __init__(self, key: bytes, events: int | None, due_s: float, *, cached: bool) -> None:
        self.key = key
        self.events = events
        self.cached = cached
        self.due_s = due_s
        """Deadline of who began it, on the loop's clock: the store is not asked later."""
        self.place: Place | None = None
        """Known once a lease was asked for."""
        self.token: bytes | None = None
        """Our lease; None without one."""
        self.contested = False
        """Whether another reader holds the lease."""
        self.dispatched = False
        """Whether the store was asked already."""
        self.outcome: Cells | Block | Unreachable | None = None
        """None while it is under way."""
        self.confirmed: bool | None = None
        """Whether nothing was written from the lease until the fill; None while it is open."""
        self.filling = False
        self.early = 0
        """Callers that came before the store was asked: only they may offer a fill."""
        self.waiting: list[asyncio.Future[None]] | None = None
        """Of callers that wait for the outcome or for its proof."""

    async def landed(self) -> None:
        """Wait for the outcome."""
        while self.outcome is None:
            await self._news()

    async def settled(self) -> None:
        """Wait until the outcome is proved, or never will be."""
        while self.confirmed is None:
            await self._news()

    def tell(self) -> None:
        """Wake who waits, to look for himself."""
        waiting, self.waiting = self.waiting, None
        for each in waiting or ():
            if not each.done():
                each.set_result(None)

    async def _news(self) -> None:
        mine = asyncio.get_running_loop().create_future()
        if self.waiting is None:
            self.waiting = []
        self.waiting.append(mine)
        await mine


Boarded = tuple[int, Flight, bool]
"""Slot, flight, and whether it had left already when this caller came."""

Fill = tuple[Flight, bytes, int]
"""Flight, block, ttl in ms."""


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
        self, rows: RowReader, links: CacheNodes | None, placement: KeyPlacement, spawn: Spawn
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
        self, catalog: Catalog, wanted: Sequence[Wanted], *, due_s: float, alone: bool
    ) -> list[Boarded]:
        """A flight per wanted row; those that had left already come last.

        `alone` shares nothing with other callers and takes nothing from the cache: the store
        decides. The cache is told what was seen, so that no other reader falls behind it and a
        block that nobody can use goes.
        """
        if alone:
            return self._board_alone(catalog, wanted, due_s)
        fresh: list[Flight] = []
        boarded: list[Boarded] = []
        departed: list[Boarded] = []
        for slot, key, events, ttl_ms in wanted:
            flight = self._under_way.get(key)
            if flight is None:
                flight = self._under_way[key] = Flight(key, events, due_s, cached=ttl_ms > 0)
                fresh.append(flight)
            else:
                self.counters.joined += 1
            if flight.dispatched:
                departed.append((slot, flight, True))
            else:
                flight.early += 1
                boarded.append((slot, flight, False))
        if fresh:
            self._spawn(self._fly(catalog, fresh))
        return boarded + departed if departed else boarded

    def _board_alone(
        self, catalog: Catalog, wanted: Sequence[Wanted], due_s: float
    ) -> list[Boarded]:
        own: list[Flight] = []
        for _, key, events, ttl_ms in wanted:
            lone = Flight(key, events, due_s, cached=False)
            lone.contested = ttl_ms > 0
            own.append(lone)
        self._spawn(self._fly(catalog, own))
        return [(row[0], lone, False) for row, lone in zip(wanted, own, strict=True)]

    def leave(self, boarded: Iterable[Boarded]) -> None:
        """A caller needs its flights no more. Once nobody is left to offer a fill, one ends."""
        for _, flight, late in boarded:
            if not late:
                flight.early -= 1
            needed = flight.early > 0 or flight.filling or flight.outcome is None
            if not needed and flight.confirmed is None:
                self._end(flight, confirmed=False)

    def offer(self, fills: Iterable[Fill]) -> None:
        """Fill the cache with what flights brought, off the answer's path; of a flight the first
        counts."""
        by_node: dict[int, list[tuple[Flight, bytes, bytes, int]]] = {}
        for flight, block, ttl_ms in fills:
            token, flight.token = flight.token, None
            if token is not None and flight.place is not None and ttl_ms > 0:
                flight.filling = True
                by_node.setdefault(flight.place[0], []).append((flight, token, block, ttl_ms))
        for node, offered in by_node.items():
            for start in range(0, len(offered), PAIRS_PER_CALL_MAX):
                some = offered[start : start + PAIRS_PER_CALL_MAX]
                self._spawn(self._fill(node, some))

    async def discard(self, key: bytes) -> None:
        """Delete a block that cannot be used, so that a sound one may be filled."""
        if self._links is not None:
            await self._links.delete(self._placement.node(key), self._placement.block_key(key))

    async def observe(self, seen: Sequence[tuple[bytes, bytes]]) -> None:
        """Tell the cache what the store held, (key, block), while other readers have the leases."""
        if self._links is None:
            return
        by_node: dict[int, list[tuple[Place, bytes]]] = {}
        places = self._placement.places([key for key, _ in seen])
        for place, (_, block) in zip(places, seen, strict=True):
            by_node.setdefault(place[0], []).append((place, block))
        telling = [
            self._tell(self._links, node, told[start : start + PAIRS_PER_CALL_MAX])
            for node, told in by_node.items()
            for start in range(0, len(told), PAIRS_PER_CALL_MAX)
        ]
        await asyncio.gather(*telling)

    async def _tell(self, links: CacheNodes, node: int, told: list[tuple[Place, bytes]]) -> None:
        keys = [key for place, _ in told for key in place[1:]]
        await links.run_script(node, OBSERVE, keys, [block for _, block in told])

    async def _fly(self, catalog: Catalog, flights: list[Flight]) -> None:
        """Lease, then ask the store: flights of one caller, so of one deadline. Whatever goes wrong
        on the way, each has an outcome at the end: others wait for it, and more come while it is
        under way."""
        try:
            await self._lease_and_fetch(catalog, flights)
        finally:
            if astray := [flight for flight in flights if flight.outcome is None]:
                self._land(astray, [Unreachable("the read failed")] * len(astray))

    async def _lease_and_fetch(self, catalog: Catalog, flights: list[Flight]) -> None:
        if self._links is not None:
            await self._lease(self._links, [flight for flight in flights if flight.cached])
            flights = [flight for flight in flights if flight.outcome is None]
        if not flights:
            return
        for flight in flights:
            flight.dispatched = True
        limit_ms = int((flights[0].due_s - asyncio.get_running_loop().time()) * 1000)
        if limit_ms <= 0:
            self._land(flights, [Unreachable("the deadline passed")] * len(flights))
            return
        self.counters.store_reads += len(flights)
        wanted = [(flight.key, flight.events) for flight in flights]
        self._land(flights, await self._rows.fetch(catalog, wanted, limit_ms=limit_ms))

    def _land(self, flights: list[Flight], outcomes: Sequence[Cells | Unreachable]) -> None:
        for flight, outcome in zip(flights, outcomes, strict=True):
            flight.outcome = outcome
            if isinstance(outcome, Unreachable) or flight.token is None or flight.early == 0:
                self._end(flight, confirmed=False)
            elif flight.waiting is not None:
                flight.tell()

    async def _lease(self, links: CacheNodes, flights: list[Flight]) -> None:
        """Take a lease for every key, one script call a node."""
        by_node: dict[int, list[Flight]] = {}
        places = self._placement.places([flight.key for flight in flights])
        for flight, place in zip(flights, places, strict=True):
            flight.place = place
            by_node.setdefault(place[0], []).append(flight)
        asking = [
            self._lease_at(links, node, each)
            for node, each in by_node.items()
            if links.reaches(node)
        ]
        if len(asking) == 1:
            await asking[0]
        else:
            await asyncio.gather(*asking)

    async def _lease_at(self, links: CacheNodes, node: int, flights: list[Flight]) -> None:
        token = secrets.token_bytes(TOKEN_BYTES)
        keys = [key for flight in flights if flight.place for key in flight.place[1:]]
        answers = await links.run_script(node, TAKE_LEASES, keys, [token, b"%d" % LEASE_MS])
        if answers is None or len(answers) != len(flights):
            return
        for flight, answer in zip(flights, answers, strict=True):
            if isinstance(answer, bytes):
                flight.outcome = Block(answer)
                self._end(flight, confirmed=True)
            elif answer == 1:
                self.counters.leases += 1
                flight.token = token
            else:
                flight.contested = True

    async def _fill(self, node: int, offered: Sequence[tuple[Flight, bytes, bytes, int]]) -> None:
        keys: list[bytes] = []
        arguments: list[bytes] = []
        proofs: list[bytes] = []
        for flight, token, block, ttl_ms in offered:
            _, block_key, lease_key = flight.place or (node, b"", b"")
            keys += (block_key, lease_key)
            arguments += (token, block, b"%d" % ttl_ms)
            proofs.append(token + block_key)
        answers = None
        try:
            if self._links is not None:
                answers = await self._links.run_script(node, FILL, keys, arguments)
        finally:  # Whatever went wrong: others wait for what the fill proves.
            if answers is None or len(answers) != len(offered):
                answers = [None] * len(offered)
            for (flight, *_), answer, proof in zip(offered, answers, proofs, strict=True):
                taken = answer == proof
                self.counters.fills += taken
                self.counters.fills_refused += not taken
                self._end(flight, confirmed=taken)

    def _end(self, flight: Flight, *, confirmed: bool) -> None:
        if flight.confirmed is None:
            flight.confirmed = confirmed
        if self._under_way.get(flight.key) is flight:
            del self._under_way[flight.key]
        if flight.waiting is not None:
            flight.tell()

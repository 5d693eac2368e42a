"""Many calls of the driver under way without a task for each, and never more than so many.

A driver's call is a coroutine that starts its request in its first step and then waits for one
future. So the first step is made here, the future is kept, and whoever began the calls takes their
results when the futures are done: one task waits for a hundred reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

WAKE_SHARE = 8
"""Who waits is woken when an eighth of all calls may begin, or all of his: not for each anew."""


class InFlight:
    """Counts the calls under way; who finds no room waits for it, in the order of asking.

    Calls that end are noticed when room is short, so that no callback runs a call: only while
    somebody waits does the end of a call tell him.
    """

    def __init__(self, calls_max: int) -> None:
        self._calls_max = calls_max
        self._quiet: list[asyncio.Future[Any]] = []
        """Futures of calls whose end tells nobody."""
        self._telling = 0
        """Calls under way whose end is told."""
        self._turn = asyncio.Lock()
        self._queued = 0
        self._enough = 0
        """Calls that may begin before who waits is woken."""
        self._room: asyncio.Future[None] | None = None

    @property
    def under_way(self) -> int:
        """Calls begun and not ended."""
        return self._telling + sum(not ended.done() for ended in self._quiet)

    def room_now(self, wanted: int) -> int:
        """How many calls may begin before anything else is awaited; none while others wait."""
        return 0 if self._queued else self._free(wanted)

    async def room(self, wanted: int) -> int:
        """Wait until calls may begin: how many, before anything else is awaited."""
        self._queued += 1
        try:
            async with self._turn:
                self._enough = min(wanted, max(1, self._calls_max // WAKE_SHARE))
                while (free := self._free(wanted)) < self._enough:
                    await self._an_end()
                return free
        finally:
            self._queued -= 1

    def begin(self, call: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        """Make the first step of a call: the future it waits for. Raises what the call raises."""
        ended: asyncio.Future[Any] = call.send(None)
        # As a task does with what its coroutine waits for; else it could not be awaited again.
        ended._asyncio_future_blocking = False
        self._quiet.append(ended)
        return ended

    def _free(self, wanted: int) -> int:
        free = self._calls_max - self._telling - len(self._quiet)
        if free < wanted:
            self._quiet = [ended for ended in self._quiet if not ended.done()]
            free = self._calls_max - self._telling - len(self._quiet)
        return free

    async def _an_end(self) -> None:
        for ended in self._quiet:
            ended.add_done_callback(self._told)
        self._telling += len(self._quiet)
        self._quiet = []
        self._room = asyncio.get_running_loop().create_future()
        await self._room

    def _told(self, _: asyncio.Future[Any]) -> None:
        self._telling -= 1
        free = self._calls_max - self._telling - len(self._quiet)
        if free >= self._enough and self._room is not None and not self._room.done():
            self._room.set_result(None)


def result_of(call: Coroutine[Any, Any, Any]) -> Any:
    """What a call returns whose future is done; raises what the call raises."""
    try:
        call.send(None)
    except StopIteration as returned:
        return returned.value
    raise RuntimeError("the driver's call waits for a second future; expected one")

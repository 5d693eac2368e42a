"""Many calls of the driver under way without a task for each, and never more than so many.

A driver's call is a coroutine that starts its request in its first step and then waits for one
future. So the first step is made here, the future is kept, and whoever began the calls takes their
results when the futures are done: one task waits for a hundred reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


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
        self._room: asyncio.Future[None] | None = None

    @property
    def under_way(self) -> int:
        """Calls begun and not ended."""
        return self._telling + sum(not ended.done() for ended in self._quiet)

    def has_room(self) -> bool:
        """Whether a call may begin now; not while others wait for that."""
        return not self._queued and self._is_free()

    async def room(self) -> None:
        """Wait until a call may begin, and begin it before anything else is awaited."""
        self._queued += 1
        try:
            async with self._turn:
                while not self._is_free():
                    await self._an_end()
        finally:
            self._queued -= 1

    def begin(self, call: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        """Make the first step of a call: the future it waits for. Raises what the call raises."""
        ended: asyncio.Future[Any] = call.send(None)
        # As a task does with what its coroutine waits for; else it could not be awaited again.
        ended._asyncio_future_blocking = False
        self._quiet.append(ended)
        return ended

    def _is_free(self) -> bool:
        if self._telling + len(self._quiet) < self._calls_max:
            return True
        self._quiet = [ended for ended in self._quiet if not ended.done()]
        return self._telling + len(self._quiet) < self._calls_max

    async def _an_end(self) -> None:
        for ended in self._quiet:
            ended.add_done_callback(self._told)
        self._telling += len(self._quiet)
        self._quiet = []
        self._room = asyncio.get_running_loop().create_future()
        await self._room

    def _told(self, _: asyncio.Future[Any]) -> None:
        self._telling -= 1
        if self._room is not None and not self._room.done():
            self._room.set_result(None)


def result_of(call: Coroutine[Any, Any, Any]) -> Any:
    """What a call returns whose future is done; raises what the call raises."""
    try:
        call.send(None)
    except StopIteration as returned:
        return returned.value
    raise RuntimeError("the driver's call waits for a second future; expected one")

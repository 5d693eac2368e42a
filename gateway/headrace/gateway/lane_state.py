"""What the connections of one process share: the read path, limits, counts and one coarse timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from headrace.codec import ReadLane, RequestIds
from headrace.gateway.limits import Limits
from headrace.gateway.negotiation import ContentCodings
from headrace.gateway.read_path import ReadPath
from headrace.gateway.telemetry import Telemetry


class TimedConnection(Protocol):
    """A connection as the timer and the drain see it."""

    loop: asyncio.AbstractEventLoop

    @property
    def receiving(self) -> bool:
        """Whether a request has begun and not yet wholly come."""
        ...

    @property
    def quiet(self) -> bool:
        """Nothing due, nothing under way, and nothing since the last sweep but one."""
        ...

    def keep_time(self, sweep: int) -> None:
        """Hold the connection against every time limit; called once a sweep."""
        ...


class Lane:
    """The read path and everything that bounds it, for all connections of one process."""

    def __init__(
        self,
        reads: ReadPath,
        limits: Limits,
        telemetry: Telemetry,
        request_ids: RequestIds,
        codings: ContentCodings,
    ) -> None:
        self.reads = reads
        self.limits = limits
        self.telemetry = telemetry
        self.request_ids = request_ids
        self._codings = codings
        self._feast_codings = codings.of_feast()
        self.direct = ReadLane(
            reads.reader,
            clock=reads.clock,
            ids=request_ids,
            times=telemetry.reads,
            body_bytes_max=limits.body_bytes_max,
            held_bytes_max=limits.held_bytes_max,
            due_answers_max=limits.due_answers_max,
        )
        """The part that answers usual requests by itself."""
        self.connections: set[TimedConnection] = set()
        self.ended: Callable[[], None] | None = None
        """Called when a connection has ended, where somebody counts them."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def draining(self) -> bool:
        """Every answer ends its connection, and the process is not ready."""
        return self.direct.draining

    @draining.setter
    def draining(self, draining: bool) -> None:
        self.direct.draining = draining

    @property
    def sweep(self) -> int:
        """Number of sweeps so far: the clock of all time limits."""
        return self.direct.sweep

    @sweep.setter
    def sweep(self, sweep: int) -> None:
        self.direct.sweep = sweep

    @property
    def held_bytes(self) -> int:
        """Unfinished bodies and unread answers of all connections."""
        return self.direct.held_bytes

    @property
    def overloaded(self) -> bool:
        return self.held_bytes > self.limits.held_bytes_max

    @property
    def quiet(self) -> bool:
        """Whether no caller was seen lately; while draining each answer ends its connection."""
        return all(connection.quiet for connection in self.connections)

    def chosen_coding(self, accept_encoding: bytes, *, feast: bool) -> int:
        """What the coding of an answer adds to its form, -1 when there is none that the caller
        takes; by route, since callers differ."""
        codings = self._feast_codings if feast else self._codings
        return codings.chosen(accept_encoding)

    def enter(self, connection: TimedConnection) -> None:
        """Count a new connection; the timer runs while there is one."""
        self.connections.add(connection)
        if self._timer is None:
            self._arm(connection.loop)

    def leave(self, connection: TimedConnection) -> None:
        self.connections.discard(connection)
        if self.ended is not None:
            self.ended()

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(self.limits.sweep_seconds, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        self.sweep += 1
        for connection in tuple(self.connections):
            connection.keep_time(self.sweep)
        if self.connections:
            self._arm(loop)

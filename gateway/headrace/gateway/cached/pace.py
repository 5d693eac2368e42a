"""How fast a stage of reading has shown itself to be, and so how much may wait before it.

What waits W seconds before a stage that finishes R units a second is R x W units (Little 1961). R
is the best of the last second's windows in which the stage had enough to do: only these tell what
it can do, and not what was asked of it (as BBR estimates bandwidth, Cardwell et al. 2016). A pause
of the stage, such as one of its garbage collector, does not lower R; lasting slowness does, once
the quicker windows are forgotten. While no such window is known, all is let in.
"""

from __future__ import annotations

from collections import deque

WINDOW_S = 0.1
WINDOWS = 10
NANOSECONDS = 1_000_000_000


class Pace:
    """The work before one stage, in units of its own; `admits` is asked before any is added."""

    __slots__ = ("_finished", "_held", "_least", "_rates", "_window_end_s", "rate", "under_way")

    def __init__(self, *, least: int) -> None:
        self.under_way = 0
        self.rate: float | None = None
        """Units a second that the stage can do; None while unknown."""
        self._least = least
        """Units under way that keep the stage busy, whatever its speed: never refused."""
        self._rates: deque[float | None] = deque(maxlen=WINDOWS)
        self._window_end_s = 0.0
        self._finished = 0
        self._held = 0
        """Units of this window times the nanoseconds that each was under way."""

    def admits(self, now_s: float, wait_s: float) -> bool:
        """Whether one who comes now would wait no longer than that."""
        if now_s >= self._window_end_s:
            self._next_window(now_s)
        rate = self.rate
        return rate is None or self.under_way < self._least or self.under_way < rate * wait_s

    def begin(self, units: int) -> None:
        """Units come to wait."""
        self.under_way += units

    def end(self, units: int, elapsed_ns: int, *, finished: bool = True) -> None:
        """Units leave after so long, finished by the stage or given up."""
        self.under_way -= units
        self._held += units * elapsed_ns
        if finished:
            self._finished += units

    def note(self, under_way: int, finished: int, held_ns: int) -> None:
        """Take what was counted elsewhere since the last time, in place of `begin` and `end`."""
        self.under_way = under_way
        self._finished += finished
        self._held += held_ns

    def _next_window(self, now_s: float) -> None:
        """Windows end when somebody comes: while nobody does there is nothing to admit."""
        late_s = now_s - self._window_end_s
        elapsed_s = WINDOW_S + late_s
        if late_s > WINDOW_S * WINDOWS:
            self._rates.clear()
        busy = self._held >= self._least * elapsed_s * NANOSECONDS
        self._rates.append(self._finished / elapsed_s if busy else None)
        known = [rate for rate in self._rates if rate is not None]
        self.rate = max(known) if known else None
        self._finished = self._held = 0
        self._window_end_s = now_s + WINDOW_S

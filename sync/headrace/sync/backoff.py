"""How long to wait before trying again: exponential with full jitter.

Full jitter (a uniform draw between 0 and the growing bound) spreads retries of many workers best;
see Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

from collections.abc import Callable

FIRST_MS = 20
BOUND_MS = 5_000


class Backoff:
    """Waiting times of one series of attempts. `draw` gives uniform numbers in [0, 1)."""

    def __init__(
        self, draw: Callable[[], float], *, first_ms: int = FIRST_MS, bound_ms: int = BOUND_MS
    ) -> None:
        self._draw = draw
        self._bound_ms = bound_ms
        self._next_ms = first_ms
        self.attempts = 0

    def next_ms(self) -> int:
        """Milliseconds to wait before the next attempt, at least 1."""
        upper_ms = self._next_ms
        self._next_ms = min(self._bound_ms, upper_ms * 2)
        self.attempts += 1
        return max(1, int(upper_ms * self._draw()))

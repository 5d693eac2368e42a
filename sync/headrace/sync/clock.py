"""The two clocks of the writing side, as functions so that tests can hand in their own."""

from __future__ import annotations

import time
from collections.abc import Callable

ClockMs = Callable[[], int]
"""Milliseconds since the epoch (wall clock), or since an arbitrary start (steady clock)."""


def wall_clock_ms() -> int:
    """Milliseconds since the Unix epoch; may jump when the machine's clock is set."""
    return time.time_ns() // 1_000_000


def steady_clock_ms() -> int:
    """Milliseconds that never go back; only differences mean anything."""
    return time.monotonic_ns() // 1_000_000

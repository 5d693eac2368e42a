"""A token bucket that keeps bulk commands from crowding out real-time ones.

The bucket holds 5 % of one second's rate, so no window of one second sees more than 1.05 times the
rate; tokens are handed out from half a bucket on, so that a wait that lasts too long loses none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from headrace.sync.clock import ClockMs, steady_clock_ms

BURST_SHARE = 0.05


class RateLimiter:
    """Hands out permission for rows at `rows_per_s`; one caller at a time."""

    def __init__(
        self,
        rows_per_s: float,
        *,
        steady_ms: ClockMs = steady_clock_ms,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if rows_per_s <= 0:
            raise ValueError(f"a rate limit needs more than 0 rows a second, got {rows_per_s}")
        self._rows_per_ms = rows_per_s / 1000
        self.capacity = max(1.0, rows_per_s * BURST_SHARE)
        self._steady_ms = steady_ms
        self._sleep = sleep
        self._tokens = 0.0
        self._filled_at_ms = steady_ms()

    async def take(self, rows_max: int) -> int:
        """Wait until some rows may go and say how many: 1 to `rows_max`. Return unused ones."""
        wanted = min(float(rows_max), max(1.0, self.capacity / 2))
        while (missing := wanted - self._fill()) > 0:
            await self._sleep(max(1.0, missing / self._rows_per_ms) / 1000)
        rows = min(rows_max, int(self._tokens))
        self._tokens -= rows
        return rows

    def give_back(self, rows: int) -> None:
        """Return permission that was not used."""
        self._tokens = min(self.capacity, self._tokens + rows)

    def _fill(self) -> float:
        now_ms = self._steady_ms()
        earned = (now_ms - self._filled_at_ms) * self._rows_per_ms
        self._tokens = min(self.capacity, self._tokens + earned)
        self._filled_at_ms = now_ms
        return self._tokens

"""The bulk limiter: at most 1.05 times its rate in any second, at least 0.95 in the long run."""

from __future__ import annotations

import random

import pytest

from headrace.sync.rate_limit import RateLimiter


class FakeTime:
    """A clock that only sleeping moves, each sleep overshooting by up to 3 ms as real ones do."""

    def __init__(self, seed: int) -> None:
        self.ms = 0.0
        self._random = random.Random(seed)

    def now_ms(self) -> int:
        return int(self.ms)

    async def sleep(self, seconds: float) -> None:
        self.ms += seconds * 1000 + self._random.uniform(0, 3)


async def _grants(rows_per_s: float, rows_max: int, seconds: int) -> list[tuple[int, int]]:
    """(when in ms, rows) of every grant that a reader without work of its own would get."""
    clock = FakeTime(seed=7)
    limiter = RateLimiter(rows_per_s, steady_ms=clock.now_ms, sleep=clock.sleep)
    grants: list[tuple[int, int]] = []
    while clock.ms < seconds * 1000:
        rows = await limiter.take(rows_max)
        grants.append((clock.now_ms(), rows))
    return grants


RATES = [50.0, 1_000.0, 20_000.0, 333_333.0]


@pytest.mark.parametrize("rows_per_s", RATES)
async def test_no_second_sees_more_than_five_percent_above_the_rate(rows_per_s: float) -> None:
    grants = await _grants(rows_per_s, rows_max=2_000, seconds=20)
    limit = max(1.05 * rows_per_s, rows_per_s + 1)
    start = window_rows = 0
    for at_ms, rows in grants:
        window_rows += rows
        while grants[start][0] <= at_ms - 1000:
            window_rows -= grants[start][1]
            start += 1
        assert window_rows <= limit


@pytest.mark.parametrize("rows_per_s", RATES)
async def test_the_long_run_stays_within_five_percent_of_the_rate(rows_per_s: float) -> None:
    grants = await _grants(rows_per_s, rows_max=20_000, seconds=60)
    assert sum(rows for _, rows in grants) >= 0.95 * rows_per_s * 60


async def test_permission_that_was_not_used_comes_back() -> None:
    clock = FakeTime(seed=7)
    limiter = RateLimiter(1_000, steady_ms=clock.now_ms, sleep=clock.sleep)
    rows = await limiter.take(1_000)
    limiter.give_back(rows)
    before_ms = clock.ms
    assert await limiter.take(rows) == rows
    assert clock.ms == before_ms


async def test_a_grant_never_exceeds_what_was_asked_for() -> None:
    clock = FakeTime(seed=7)
    limiter = RateLimiter(100_000, steady_ms=clock.now_ms, sleep=clock.sleep)
    assert [await limiter.take(3) for _ in range(50)] == [3] * 50


def test_a_rate_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 0"):
        RateLimiter(0)

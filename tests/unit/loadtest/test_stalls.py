"""Watching for times when the machine stands still."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace.loadtest import stalls


def test_only_gaps_longer_than_the_loops_own_are_counted_and_no_rest_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times: Iterator[float] = iter([0.0, 0.0001, 0.0041, 0.0042, 0.5, 1.0, 1.0002, 1.5])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    seen = stalls.watch(1.0)
    assert seen.times == 3
    assert seen.longest_ms == pytest.approx(499.8)
    assert seen.share == pytest.approx(0.004 + 0.4958 + 0.4998)


def test_each_cpu_is_watched_by_a_process_of_its_own() -> None:
    for ahead in (False, True):
        (seen,) = stalls.of_cpus((0,), 0.01, ahead=ahead)
        assert 0 <= seen.share <= 1

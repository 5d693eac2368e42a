"""Watching for times when the machine stands still."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace.loadtest import stalls


def test_only_gaps_longer_than_the_loops_own_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    times: Iterator[float] = iter([0.0, 0.0001, 0.0041, 0.0042, 0.5, 1.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    seen = stalls.watch(1.0)
    assert seen.times == 3
    assert seen.longest_ms == pytest.approx(500)
    assert seen.share == pytest.approx(0.004 + 0.4958 + 0.5)


def test_each_cpu_is_watched_by_a_process_of_its_own() -> None:
    (seen,) = stalls.of_cpus((0,), 0.01)
    assert 0 <= seen.share <= 1

"""What the outcomes of one open-loop run say about a fault or an overload in its midst. Pure.

Times are on the clock of the bench, `time.perf_counter`, which on Linux is one for all processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from headrace.loadtest.open_loop import Fate, Outcomes

WARM_UP_S = 0.5
"""The start of a run that is not counted."""
CLOSES_WITHIN_S = 5.0
UNCOUNTED_SHARE = 0.25
BUCKET_S = 0.25
CALM_FACTOR = 2.0
CALM_SPARE_S = 0.005
"""A bucket is calm again when its p99 is within so many times the one before, and a little."""
CALM_FAILED_SHARE = 0.01
"""And when no more than so much more of it failed than before: random arrivals now and then find
more before them than may wait, at any load."""


class Requests(NamedTuple):
    """Of the requests that fell due in a span, by fate: latencies (s) since they were due."""

    by_fate: dict[Fate, list[float]]
    refused_since_sent_s: list[float]
    """How long after it was sent each refusal was there: the server's part in its latency."""

    @property
    def total(self) -> int:
        return sum(map(len, self.by_fate.values()))

    @property
    def failed(self) -> int:
        """Those that were not answered in full."""
        return self.total - len(self.by_fate[Fate.OK]) - self.wrong

    @property
    def wrong(self) -> int:
        return len(self.by_fate[Fate.WRONG])

    def quantile_ms(self, fate: Fate, share: float) -> float | None:
        """Nearest rank; None without any."""
        return _quantile_ms(self.by_fate[fate], share)


def between(outcomes: Outcomes, since_s: float, until_s: float) -> Requests:
    """What fell due in [since_s, until_s), in seconds after the start of the run."""
    by_fate: dict[Fate, list[float]] = {fate: [] for fate in Fate}
    refused_since_sent_s: list[float] = []
    columns = (outcomes.due_s, outcomes.latency_s, outcomes.late_s, outcomes.fates)
    for due_s, latency_s, late_s, fate in zip(*columns, strict=True):
        if since_s <= due_s < until_s:
            by_fate[Fate(fate)].append(latency_s)
            if fate == Fate.REFUSED:
                refused_since_sent_s.append(latency_s - late_s)
    return Requests(by_fate, refused_since_sent_s)


def _quantile_ms(seconds: list[float], share: float) -> float | None:
    if not seconds:
        return None
    return sorted(seconds)[max(1, math.ceil(share * len(seconds))) - 1] * 1_000


class Marks(NamedTuple):
    """When things happened, in seconds after the start of the run; None: it did not."""

    fault_s: float
    heal_s: float
    end_s: float
    opened_s: float | None
    closed_s: float | None


def fault_report(outcomes: Outcomes, marks: Marks) -> dict[str, object]:
    """Percentiles and failures of each phase; times to the breaker's opening and closing."""
    opened_s = marks.fault_s + 1 if marks.opened_s is None else marks.opened_s
    closed_s = marks.heal_s if marks.closed_s is None else marks.closed_s
    spans = {
        "healthy": (WARM_UP_S, marks.fault_s),
        "first second": (marks.fault_s, marks.fault_s + 1),
        "then": (max(opened_s, marks.fault_s), marks.heal_s),
        "after healing": (max(closed_s, marks.heal_s), marks.end_s),
    }
    whole = between(outcomes, 0, marks.end_s)
    return {
        "phases": {name: _phase(between(outcomes, *span)) for name, span in spans.items()},
        "requests": whole.total,
        "failed": whole.failed,
        "wrong": whole.wrong,
        "opened_after_s": _after(marks.opened_s, marks.fault_s),
        "closed_after_s": _after(marks.closed_s, marks.heal_s),
    }


class Steps(NamedTuple):
    """Lengths (s) of the steps of an overload run: half of peak, overload, half of peak."""

    before_s: float
    overload_s: float
    after_s: float


def goodput_rounds(outcomes: Outcomes, step_s: float, steps: int) -> list[list[float]]:
    """Requests a second that were answered in full, of each step of each whole round.

    The start of a step is not counted: what the one before has left is still under way then.
    """
    counted_s = step_s * (1 - UNCOUNTED_SHARE)
    found: dict[int, int] = {}
    for due_s, fate in zip(outcomes.due_s, outcomes.fates, strict=True):
        number = int(due_s / step_s)
        good = fate == Fate.OK and due_s - number * step_s >= step_s - counted_s
        found[number] = found.get(number, 0) + good
    rounds = range((max(found, default=-1) + 1) // steps)
    return [
        [found.get(number * steps + place, 0) / counted_s for place in range(steps)]
        for number in rounds
    ]


def overload_report(outcomes: Outcomes, steps: Steps) -> dict[str, object]:
    """What became of the requests, how fast refusals are, and when all is as before."""
    overload_end_s = steps.before_s + steps.overload_s
    before = between(outcomes, WARM_UP_S, steps.before_s)
    during = between(outcomes, steps.before_s, overload_end_s)
    return {
        "offered": during.total,
        "by_fate": {fate.name.lower(): len(found) for fate, found in during.by_fate.items()},
        "refused_p50_ms": during.quantile_ms(Fate.REFUSED, 0.5),
        "refused_p99_ms": during.quantile_ms(Fate.REFUSED, 0.99),
        "refused_since_sent_p50_ms": _quantile_ms(during.refused_since_sent_s, 0.5),
        "refused_since_sent_p99_ms": _quantile_ms(during.refused_since_sent_s, 0.99),
        "admitted_p50_ms": during.quantile_ms(Fate.OK, 0.5),
        "admitted_p99_ms": during.quantile_ms(Fate.OK, 0.99),
        "before": _phase(before),
        "wrong": between(outcomes, 0, overload_end_s + steps.after_s).wrong,
        "calm_after_s": _calm_after_s(outcomes, before, overload_end_s, steps.after_s),
    }


def _calm_after_s(
    outcomes: Outcomes, before: Requests, overload_end_s: float, after_s: float
) -> float:
    """Seconds until the last bucket that is not yet like those before the overload."""
    usual_ms = before.quantile_ms(Fate.OK, 0.99) or 0.0
    limit_ms = usual_ms * CALM_FACTOR + CALM_SPARE_S * 1_000
    failed_share = before.failed / max(1, before.total) + CALM_FAILED_SHARE
    calm_s = 0.0
    for start_s in _buckets(after_s):
        bucket = between(outcomes, overload_end_s + start_s, overload_end_s + start_s + BUCKET_S)
        late = (bucket.quantile_ms(Fate.OK, 0.99) or 0.0) > limit_ms
        if late or bucket.failed > failed_share * bucket.total:
            calm_s = start_s + BUCKET_S
    return calm_s


def _buckets(length_s: float) -> Iterator[float]:
    return (number * BUCKET_S for number in range(int(length_s / BUCKET_S)))


def _phase(requests: Requests) -> dict[str, object]:
    return {
        "requests": requests.total,
        "failed": requests.failed,
        "p50_ms": requests.quantile_ms(Fate.OK, 0.5),
        "p99_ms": requests.quantile_ms(Fate.OK, 0.99),
    }


def _after(then_s: float | None, since_s: float) -> float | None:
    return None if then_s is None else max(0.0, then_s - since_s)

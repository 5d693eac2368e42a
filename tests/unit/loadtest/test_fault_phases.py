"""What the outcomes of a run say about the fault in its midst."""

from __future__ import annotations

import math

import pytest

from headrace.loadtest.fault_phases import (
    BUCKET_S,
    Marks,
    Steps,
    between,
    fault_report,
    goodput_rounds,
    overload_report,
)
from headrace.loadtest.open_loop import Fate, Outcomes, evenly, in_steps

MARKS = Marks(fault_s=2.0, heal_s=4.0, end_s=6.0, opened_s=2.5, closed_s=4.25)
STEPS = Steps(before_s=2.0, overload_s=2.0, after_s=2.0)


def outcomes(*requests: tuple[float, float, Fate]) -> Outcomes:
    made = Outcomes()
    for due_s, latency_s, fate in requests:
        made.note(due_s, latency_s, fate)
    return made


def test_a_request_belongs_to_the_phase_it_fell_due_in() -> None:
    report = fault_report(
        outcomes(
            (1.0, 0.5, Fate.OK),
            (2.1, 0.25, Fate.OK),
            (3.0, 0.125, Fate.OK),
            (5.0, 0.0625, Fate.OK),
        ),
        MARKS,
    )
    phases = report["phases"]
    assert isinstance(phases, dict)
    assert {name: phase["p99_ms"] for name, phase in phases.items()} == {
        "healthy": 500.0,
        "first second": 250.0,
        "then": 125.0,
        "after healing": 62.5,
    }
    assert (report["opened_after_s"], report["closed_after_s"]) == (0.5, 0.25)


def test_whatever_was_not_answered_in_full_failed_and_a_wrong_value_is_told_apart() -> None:
    fates = [Fate.OK, Fate.PARTIAL, Fate.REFUSED, Fate.FAILED, Fate.UNSENT, Fate.WRONG]
    report = fault_report(outcomes(*((1.0, 0.0, fate) for fate in fates)), MARKS)
    assert (report["requests"], report["failed"], report["wrong"]) == (6, 4, 1)


def test_a_breaker_that_never_opened_has_no_times() -> None:
    report = fault_report(outcomes(), MARKS._replace(opened_s=None, closed_s=None))
    assert (report["opened_after_s"], report["closed_after_s"]) == (None, None)


def test_percentiles_are_of_answers_in_full_by_nearest_rank() -> None:
    requests = between(outcomes(*((1.0, number / 1000, Fate.OK) for number in range(1, 101))), 0, 2)
    assert requests.quantile_ms(Fate.OK, 0.99) == pytest.approx(99)
    assert requests.quantile_ms(Fate.REFUSED, 0.5) is None


def calm() -> list[tuple[float, float, Fate]]:
    return [(at_s, 0.001, Fate.OK) for at_s in evenly(40, 6.0)]


def test_goodput_counts_what_was_answered_in_full_once_a_step_has_begun() -> None:
    counted = [(at_s, 0.001, Fate.OK) for at_s in (0.3, 0.4, 0.6, 1.5, 2.3, 3.9, 3.95)]
    begins = [(at_s, 0.001, Fate.OK) for at_s in (0.0, 1.2, 2.1, 3.2)]
    refused = [(0.5, 0.001, Fate.REFUSED)] * 9
    found = goodput_rounds(outcomes(*counted, *begins, *refused), 1.0, steps=2)
    assert found == [[4.0, pytest.approx(4 / 3)], [pytest.approx(4 / 3), pytest.approx(8 / 3)]]


def test_a_round_that_was_cut_short_is_none() -> None:
    requests = [(at_s, 0.001, Fate.OK) for at_s in (0.5, 1.5, 2.5)]
    assert len(goodput_rounds(outcomes(*requests), 1.0, steps=2)) == 1


def test_an_overload_tells_of_the_refused_and_how_fast_they_were_told() -> None:
    refused = [(3.0, 0.002, Fate.REFUSED)] * 40
    report = overload_report(outcomes(*calm(), *refused), STEPS)
    assert report["offered"] == 120
    assert report["refused_p50_ms"] == pytest.approx(2)
    assert report["calm_after_s"] == 0


@pytest.mark.parametrize(
    "straggler", [(4.6, 0.5, Fate.OK), (4.6, 0.001, Fate.REFUSED), (4.6, math.nan, Fate.UNSENT)]
)
def test_it_is_calm_after_the_last_bucket_that_was_late_or_failed(
    straggler: tuple[float, float, Fate],
) -> None:
    report = overload_report(outcomes(*calm(), straggler), STEPS)
    assert report["calm_after_s"] == 3 * BUCKET_S


def test_steps_of_a_profile_follow_each_other() -> None:
    assert in_steps(evenly, [(2, 1.0), (4, 0.5)]) == [0.0, 0.5, 1.0, 1.25]


def test_a_refusal_is_timed_from_when_it_was_sent_too() -> None:
    made = outcomes((1.0, 0.5, Fate.OK))
    made.note(2.5, 0.75, Fate.REFUSED, late_s=0.5)
    report = overload_report(made, STEPS)
    assert (report["refused_p99_ms"], report["refused_since_sent_p99_ms"]) == (750.0, 250.0)

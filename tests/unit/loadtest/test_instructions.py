"""Counting instructions: what is read out of a profile, and what counts as a change."""

from __future__ import annotations

import json

import pytest

from headrace.loadtest.baseline import changes, newest
from headrace.loadtest.instructions import BASELINE, choose_toolchain, per_unit
from headrace.loadtest.valgrind import Refused

PROFILE = """\
version: 1
events: Ir
fn=(1) program::main
16 5
cfn=(2) program::rows
calls=1 20
16 9000
17 3
cfn=(3) program::objects
calls=1 30
17 700
cfn=(2)
calls=1 20
18 5000
cfn=(3)
calls=1 30
19 400

fn=(2)
20 4000
cfn=(4) memcpy
calls=10 0
21 1000
"""


def test_the_second_call_of_a_case_is_told_with_all_that_it_calls_per_unit() -> None:
    counted = per_unit(PROFILE.splitlines(), {"rows": 100, "objects": 2, "": 0})
    assert counted == {"rows": 50, "objects": 200}


def test_a_case_that_the_compiler_folded_away_is_refused() -> None:
    with pytest.raises(Refused, match="no two calls of gone"):
        per_unit(PROFILE.splitlines(), {"rows": 100, "gone": 1})


@pytest.mark.parametrize(
    ("now", "told"),
    [
        ({"rows": 1030}, []),
        ({"rows": 970}, []),
        ({"rows": 1031}, ["`rows` took 1,000 instructions and takes 1,031 (+3.1%)"]),
        ({"rows": 900}, ["`rows` took 1,000 instructions and takes 900 (-10.0%)"]),
        ({}, ["`rows` is gone; it took 1,000"]),
        ({"rows": 1000, "objects": 7}, ["`objects` is new: 7"]),
    ],
    ids=["3 % more", "3 % less", "more than 3 %", "much less", "gone", "new"],
)
def test_a_change_beyond_three_percent_is_told_either_way(
    now: dict[str, int], told: list[str]
) -> None:
    assert changes({"rows": 1000}, now) == told


def test_counts_of_another_compiler_are_not_compared() -> None:
    with pytest.raises(Refused, match=r"counted with rustc `0\.0\.1`.*--renew"):
        choose_toolchain("0.0.1")


def test_the_committed_baseline_says_why_it_was_renewed_and_by_which_compiler() -> None:
    renewals = json.loads(BASELINE.read_text())["renewals"]
    assert newest(BASELINE) == renewals[0]
    assert all(len(renewal["why"]) > 10 for renewal in renewals)
    assert all(renewal["rustc"].count(".") == 2 for renewal in renewals)
    assert all(count > 0 for renewal in renewals for count in renewal["instructions"].values())

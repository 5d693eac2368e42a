"""Counting a gateway process: what is read out of a dump, and what its counts belong to."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from headrace.loadtest.baseline import newest, renew
from headrace.loadtest.counted_gateway import Taken, taken_of
from headrace.loadtest.process_instructions import (
    BASELINE,
    CASES,
    counted_with,
    other_than,
    request,
)
from headrace.loadtest.valgrind import Refused

DUMP = """\
# callgrind format
part: 2
thread: 1

events: Ir
summary: 10000
fn=(1) uv_run
16 5
cfn=(2) uv__run_timers
calls=3 20
16 700
cfn=(3) uv__io_poll
calls=3 30
17 8000
fn=(4) task_wakeup
cfn=(5) task_step
calls=4 0
18 300
fn=(6) run_step_soon
cfn=(5)
calls=1 0
19 100
totals: 10000
"""


def test_timers_and_tasks_of_the_loop_are_left_out_of_its_count() -> None:
    assert taken_of(DUMP.splitlines()) == Taken(instructions=10_000 - 700 - 400, task_steps=5)


@pytest.mark.parametrize(
    "dump",
    [DUMP.replace("thread: 1", "thread: 3"), DUMP.replace("totals: 10000\n", "")],
    ids=["another thread", "cut off"],
)
def test_a_dump_that_is_not_the_whole_of_the_loops_thread_is_refused(dump: str) -> None:
    with pytest.raises(Refused, match="no total of thread 1"):
        taken_of(dump.splitlines())


def test_counts_of_another_interpreter_are_not_compared() -> None:
    baseline = {"rustc": "1.95.0", "python": "3.0.1 by GCC 2", "uvloop": "0.23.0"}
    told = other_than(baseline, baseline | {"python": "3.11.7 by GCC 12"})
    assert len(told) == 1
    assert "counted with python `3.0.1 by GCC 2`, here is `3.11.7 by GCC 12`" in told[0]
    assert "--renew" in told[0]


def test_the_compiler_is_read_out_of_the_installed_codec() -> None:
    assert counted_with()["rustc"].count(".") == 2


@pytest.mark.parametrize("name", CASES)
def test_each_run_counts_the_same_requests(name: str) -> None:
    case = CASES[name]
    first, again = (request(case, random.Random(case.keys)) for _ in range(2))
    head, _, body = first.partition(b"\r\n\r\n")
    assert first == again
    assert len(json.loads(body)["reads"][0]["keys"]["user_id"]) == case.keys
    assert f"Content-Length: {len(body)}".encode() in head.splitlines()


def test_the_committed_baseline_counts_every_case_and_says_why_and_with_what() -> None:
    renewals = json.loads(BASELINE.read_text())["renewals"]
    assert set(newest(BASELINE)["instructions"]) == set(newest(BASELINE)["spread"]) == set(CASES)
    assert all(set(renewal) > set(counted_with()) for renewal in renewals)
    assert all(len(renewal["why"]) > 10 for renewal in renewals)
    assert all(count > 0 for renewal in renewals for count in renewal["instructions"].values())


def test_a_renewal_keeps_the_steps_that_were_counted_by_hand(tmp_path: Path) -> None:
    baseline = tmp_path / "baseline.json"
    shutil.copy(BASELINE, baseline)
    by_hand = json.loads(baseline.read_text())["by_hand"]
    assert len(by_hand["steps"]) == 3
    renew(baseline, newest(BASELINE) | {"why": "for this test alone"})
    assert json.loads(baseline.read_text())["by_hand"] == by_hand
    assert newest(baseline)["why"] == "for this test alone"

"""Processes put before all ordinary ones, where that is allowed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from headrace.loadtest.priority import PRIORITY, ahead

TWO_THREADS = """
import sys, threading
threading.Thread(target=sys.stdin.read).start()
print("ready", flush=True)
"""


@pytest.fixture
def process() -> Generator[subprocess.Popen[str]]:
    """One with two threads."""
    command = [sys.executable, "-c", TWO_THREADS]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
        yield started
        started.communicate("")


def policies(pid: int) -> list[tuple[int, int]]:
    threads = [int(thread.name) for thread in Path(f"/proc/{pid}/task").iterdir()]
    return [
        (os.sched_getscheduler(each), os.sched_getparam(each).sched_priority) for each in threads
    ]


def test_every_thread_is_ahead_only_for_a_while_and_only_where_that_is_allowed(
    process: subprocess.Popen[str],
) -> None:
    with ahead([process.pid]) as are_ahead:
        within = policies(process.pid)
    expected = (os.SCHED_FIFO, PRIORITY) if are_ahead else (os.SCHED_OTHER, 0)
    assert within == [expected, expected]
    assert policies(process.pid) == [(os.SCHED_OTHER, 0), (os.SCHED_OTHER, 0)]


def test_without_the_right_nothing_changes_and_that_is_told(
    process: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    with ahead([process.pid]) as are_ahead:
        assert not are_ahead
        assert policies(process.pid) == [(os.SCHED_OTHER, 0), (os.SCHED_OTHER, 0)]


def test_a_process_that_has_ended_is_no_obstacle(process: subprocess.Popen[str]) -> None:
    with ahead([process.pid]):
        process.communicate("")

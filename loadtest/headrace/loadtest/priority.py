"""Processes that a bench started, put before all ordinary ones: latencies are then a server's.

A kernel thread or another process that wakes on the same CPU may keep it until a tick of the
scheduler, 4 ms at 250 Hz, and no `nice` reaches across sessions: far longer than a request of tens
of microseconds takes. The real-time class (sched(7)) of a process that uses less than its CPU ends
that. All get the same priority, so that none interrupts another. Nothing else of the machine is
changed, and where the right is missing (CAP_SYS_NICE) nothing at all.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterable
from pathlib import Path

PRIORITY = 10


def put_ahead(pid: int) -> bool:
    """Give every thread of a process, and what they start, a real-time priority.

    False when that is not allowed.
    """
    return _schedule(pid, os.SCHED_FIFO, PRIORITY)


@contextlib.contextmanager
def ahead(pids: Iterable[int]) -> Generator[bool]:
    """Processes ahead for a while; whether they are."""
    named = list(pids)
    try:
        yield all(put_ahead(pid) for pid in named)
    finally:
        for pid in named:
            _schedule(pid, os.SCHED_OTHER, 0)


def _schedule(pid: int, policy: int, priority: int) -> bool:
    """False when that is not allowed; a process or thread that has ended needs nothing."""
    with contextlib.suppress(FileNotFoundError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            try:
                os.sched_setscheduler(int(thread.name), policy, os.sched_param(priority))
            except ProcessLookupError:
                continue
            except PermissionError:
                return False
    return True

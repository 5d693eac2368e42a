"""How long the machine itself stands still: what no server on it can be faster than.

A loop that only reads the clock, one a CPU, sees a gap whenever the CPU is taken from it: by a
kernel thread, by the host below a virtual machine, by another process. A percentile of latency that
is finer than the share of such gaps says more about the machine than about the server.

It rests now and then, since the kernel takes the CPU from one of the real-time class that does not.

    python -m headrace.loadtest.stalls --seconds 3 [--ahead]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from typing import NamedTuple

from headrace.loadtest.priority import put_ahead
from headrace.loadtest.wrk import pin

GAP_S = 0.0003
"""Shorter ones are the loop's own."""
WANTED_S = 0.009
REST_S = 0.001
"""What it wants of the CPU at once, and leaves then."""


class Stalls(NamedTuple):
    """What one CPU did while a loop wanted it all the time."""

    share: float
    """Of the time, in gaps."""
    times: int
    longest_ms: float


def watch(seconds: float) -> Stalls:
    """Read the clock for so long, rests not counted."""
    gaps_s, watched_s = list[float](), 0.0
    while watched_s < seconds:
        began = before = time.perf_counter()
        while before < began + WANTED_S:
            now = time.perf_counter()
            if now - before > GAP_S:
                gaps_s.append(now - before)
            before = now
        watched_s += before - began
        time.sleep(REST_S)
    return Stalls(sum(gaps_s) / watched_s, len(gaps_s), max(gaps_s, default=0.0) * 1_000)


def of_cpus(cpus: tuple[int, ...], seconds: float, *, ahead: bool = False) -> list[Stalls]:
    """What several CPUs did at the same time; they should be idle.

    `ahead` is for a process that runs before all ordinary ones, where that is allowed.
    """
    command = [sys.executable, "-m", "headrace.loadtest.stalls", "--seconds", str(seconds)]
    command += ["--ahead"] if ahead else []
    watching = [
        subprocess.Popen([*pin(cpu), *command], stdout=subprocess.PIPE, text=True) for cpu in cpus
    ]
    told = [each.communicate(timeout=seconds + 60)[0] for each in watching]
    return [Stalls(**json.loads(each)) for each in told]


def main() -> int:
    """Watch one CPU, tell what was seen as one JSON line."""
    parser = argparse.ArgumentParser(prog="stalls", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--ahead", action="store_true", help="before all ordinary processes")
    asked = parser.parse_args()
    if asked.ahead:
        put_ahead(os.getpid())
    print(json.dumps(watch(asked.seconds)._asdict()))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How long the machine itself stands still: what no server on it can be faster than.

A loop that only reads the clock, one a CPU, sees a gap whenever the CPU is taken from it: by a
kernel thread, by the host below a virtual machine, by another process. A percentile of latency that
is finer than the share of such gaps says more about the machine than about the server.

    python -m headrace.loadtest.stalls --seconds 3
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import NamedTuple

from headrace.loadtest.wrk import pin

GAP_S = 0.0003
"""Shorter ones are the loop's own."""


class Stalls(NamedTuple):
    """What one CPU did while a loop wanted it all the time."""

    share: float
    """Of the time, in gaps."""
    times: int
    longest_ms: float


def watch(seconds: float) -> Stalls:
    """Read the clock for so long."""
    gaps_s = list[float]()
    began = before = time.perf_counter()
    while before < began + seconds:
        now = time.perf_counter()
        if now - before > GAP_S:
            gaps_s.append(now - before)
        before = now
    return Stalls(sum(gaps_s) / (before - began), len(gaps_s), max(gaps_s, default=0.0) * 1_000)


def of_cpus(cpus: tuple[int, ...], seconds: float) -> list[Stalls]:
    """What several CPUs did at the same time; they should be idle."""
    command = [sys.executable, "-m", "headrace.loadtest.stalls", "--seconds", str(seconds)]
    watching = [
        subprocess.Popen([*pin(cpu), *command], stdout=subprocess.PIPE, text=True) for cpu in cpus
    ]
    told = [each.communicate(timeout=seconds + 60)[0] for each in watching]
    return [Stalls(**json.loads(each)) for each in told]


def main() -> int:
    """Watch one CPU, tell what was seen as one JSON line."""
    parser = argparse.ArgumentParser(prog="stalls", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    print(json.dumps(watch(parser.parse_args().seconds)._asdict()))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Driving a gateway with wrk, and accounting for CPU: what every HTTP bench of ours does.

Server on CPU 0, wrk on CPU 1, every cell once a round in shuffled order, medians over rounds.
Server CPU comes from /proc/<pid>/stat, so it is the server's alone; yet a busy neighbour slows the
same instructions down. A round in which other processes took more than a few per cent of the
machine is therefore repeated, and what they took is kept. Raw rounds are kept as JSON.
"""

from __future__ import annotations

import json
import os
import platform
import random
import resource
import shutil
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from headrace.loadtest import feature_data
from headrace.loadtest.interpreter import interpreter, loop_ms

BODIES = 500
"""Distinct request bodies of a cell, sent in turn."""

OTHERS_SHARE_MAX = 0.06
"""Share of the machine that other processes may take in a round."""

REPEATS_MAX = 3
"""How often a disturbed round is repeated before it is kept, disturbed as it is."""

ANSWER_LIMIT_S = 30
"""What comes later is an error to wrk."""

JSON_TYPE = "application/json"
AVRO_TYPE = "application/vnd.headrace.avro"
ARROW_TYPE = "application/vnd.apache.arrow.stream"
LUA = Path(__file__).with_name("wrk.lua")
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
NO_WRK = (
    "bench: wrk is not installed; get it with `apt-get install wrk` (Debian, Ubuntu), "
    "`brew install wrk` (macOS) or from https://github.com/wg/wrk, then run `make bench` again"
)


class Cell(NamedTuple):
    """One kind of request."""

    name: str
    accept: str
    body: Callable[[random.Random], bytes]


class Gateway(NamedTuple):
    """A running server, with the worker processes it has made of its own.

    `helpers` are servers it needs, whose CPU is not a neighbour's.
    """

    port: int
    pid: int
    helpers: tuple[int, ...] = ()
    workers: tuple[int, ...] = ()

    def cpu_seconds(self) -> float:
        """User and system time so far, of the server alone."""
        return sum(cpu_seconds(pid) for pid in (self.pid, *self.workers))


class Round(NamedTuple):
    """One cell driven once."""

    requests: int
    seconds: float
    cpu_us: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    errors: int
    others_share: float

    @property
    def requests_per_core_second(self) -> float:
        """What one saturated core would do."""
        return 1_000_000 / self.cpu_us


def pin(cpu: int) -> list[str]:
    enough = (os.cpu_count() or 1) > 1 and shutil.which("taskset") is not None
    return ["taskset", "-c", str(cpu)] if enough else []


def wait_ready(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise SystemExit(f"bench: the gateway ended with {server.returncode} at start")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise SystemExit("bench: the gateway was not ready within 20 s")


def prepare(cell: Cell, live: Gateway, folder: Path) -> dict[str, float]:
    """Write the cell's bodies, check one answer, and weigh it."""
    source = random.Random(cell.name)
    bodies = [cell.body(source) for _ in range(BODIES)]
    _bodies_path(cell, folder).write_bytes(b"\n".join(bodies) + b"\n")
    answer = _post(live, bodies[0], cell.accept)
    values = feature_data.values_in(_post(live, bodies[0], JSON_TYPE))
    return {"bytes": len(answer), "values": values, "bytes_per_value": len(answer) / values}


def _bodies_path(cell: Cell, folder: Path) -> Path:
    return folder / (cell.name.replace(" ", "-") + ".bodies")


def _post(live: Gateway, body: bytes, accept: str) -> bytes:
    request = urllib.request.Request(
        f"http://127.0.0.1:{live.port}/v1/read",
        data=body,
        headers={"Content-Type": JSON_TYPE, "Accept": accept},
    )
    with urllib.request.urlopen(request, timeout=5) as response:
        answer: bytes = response.read()
    return answer


class Plan(NamedTuple):
    """How long and how often."""

    rounds: int
    seconds: int
    connections: int


def drive(live: Gateway, cells: Sequence[Cell], folder: Path, plan: Plan) -> dict[str, list[Round]]:
    """Every cell once a round, in shuffled order, after a round that warms up."""
    rounds: dict[str, list[Round]] = {cell.name: [] for cell in cells}
    order = random.Random(7)
    for number in range(plan.rounds + 1):
        shuffled = list(cells)
        order.shuffle(shuffled)
        for cell in shuffled:
            seconds = plan.seconds if number else 1
            outcome = _wrk(cell, live, folder, seconds, plan.connections)
            if not number:  # the first round warms up
                continue
            for _ in range(REPEATS_MAX):
                if outcome.others_share <= OTHERS_SHARE_MAX:
                    break
                outcome = _wrk(cell, live, folder, seconds, plan.connections)
            rounds[cell.name].append(outcome)
        print(f"round {number} of {plan.rounds}", file=sys.stderr)
    return rounds


def _wrk(cell: Cell, live: Gateway, folder: Path, seconds: int, connections: int) -> Round:
    load = Load("/v1/read", cell.accept, _bodies_path(cell, folder), seconds, connections)
    return drive_once(live, load)


class Load(NamedTuple):
    """What wrk sends to a server: the bodies of a file, one a line, in turn."""

    path: str
    accept: str
    bodies: Path
    seconds: int
    connections: int


ERRORS_SHARE_MAX = 0.001


def drive_once(live: Gateway, load: Load) -> Round:
    """Run wrk once, closed loop, and account for who used the machine meanwhile."""
    command = [*pin(1), "wrk", "-t1", f"-c{load.connections}", f"-d{load.seconds}s"]
    command += ["--timeout", f"{ANSWER_LIMIT_S}s"]
    command += ["-s", str(LUA), f"http://127.0.0.1:{live.port}"]
    environment = {"PATH": os.environ["PATH"], "REQUEST_PATH": load.path, "ACCEPT": load.accept}
    environment["BODIES"] = str(load.bodies)
    started, wrk_before = time.monotonic(), _children_seconds()
    before, others_before = live.cpu_seconds(), _others_seconds(live)
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    used = live.cpu_seconds() - before
    wrk_used = _children_seconds() - wrk_before
    others = _others_seconds(live) - others_before - wrk_used
    elapsed = time.monotonic() - started
    measured = json.loads(finished.stdout.splitlines()[-1])
    return Round(
        requests=measured["requests"],
        seconds=measured["seconds"],
        cpu_us=used * 1e6 / max(1, measured["requests"]),
        p50_ms=measured["p50_ms"],
        p99_ms=measured["p99_ms"],
        p999_ms=measured["p999_ms"],
        errors=measured["errors"],
        others_share=max(0.0, others) / (elapsed * (os.cpu_count() or 1)),
    )


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    text = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(text[11]) + int(text[12])) / TICKS_A_SECOND


def _children_seconds() -> float:
    """CPU time of ended children of this process: every wrk so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _others_seconds(live: Gateway) -> float:
    """Busy time of the machine so far, all but that of the server and the servers it needs."""
    ticks = [int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = ticks[3] + ticks[4]
    known = live.cpu_seconds() + sum(cpu_seconds(pid) for pid in live.helpers)
    return (sum(ticks) - idle) / TICKS_A_SECOND - known


def report(
    rounds: dict[str, list[Round]],
    sizes: dict[str, dict[str, float]],
    plan: Plan,
) -> dict[str, object]:
    """The raw results; ends the program when a cell measured refusals and not reads."""
    for name, cell in rounds.items():
        failed, all_answers = sum(one.errors for one in cell), sum(one.requests for one in cell)
        if failed > all_answers * ERRORS_SHARE_MAX:
            sys.exit(
                f"`{name}`: {failed:,} of {all_answers:,} answers were no 200, so this measured "
                "refusals and not reads; nothing was written. Run again on a quieter machine"
            )
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "method": {
            "rounds": plan.rounds,
            "seconds": plan.seconds,
            "connections": plan.connections,
            "bodies": BODIES,
            "server_cpu": 0,
            "wrk_cpu": 1,
        },
        "medians": {name: _medians(cell) | sizes[name] for name, cell in rounds.items()},
        "rounds": {name: [one._asdict() for one in cell] for name, cell in rounds.items()},
    }


def machine() -> dict[str, object]:
    """Where a figure was made."""
    return {
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "system": platform.platform(terse=True),
        "python": interpreter(),
        "python_loop_ms": loop_ms(),
    }


def _medians(cell: list[Round]) -> dict[str, float]:
    names = ("cpu_us", "p50_ms", "p99_ms", "p999_ms", "requests_per_core_second", "others_share")
    medians = {name: float(statistics.median(getattr(one, name) for one in cell)) for name in names}
    medians["errors"] = float(sum(one.errors for one in cell))
    return medians


def show(report: dict[str, object]) -> None:
    print(
        f"{'':<20}{'req/s/core':>11}{'CPU µs':>9}{'p50 ms':>9}{'p99 ms':>9}{'p99.9 ms':>10}"
        f"{'B/value':>9}{'errors':>8}{'others':>8}"
    )
    medians = report["medians"]
    for name, cell in medians.items() if isinstance(medians, dict) else ():
        print(
            f"{name:<20}{cell['requests_per_core_second']:>11,.0f}{cell['cpu_us']:>9.1f}"
            f"{cell['p50_ms']:>9.2f}{cell['p99_ms']:>9.2f}{cell['p999_ms']:>10.2f}"
            f"{cell['bytes_per_value']:>9.1f}{cell['errors']:>8.0f}"
            f"{cell['others_share']:>8.0%}"
        )
    if any(
        cell["others_share"] > OTHERS_SHARE_MAX
        for cell in (medians.values() if isinstance(medians, dict) else ())
    ):
        print("others: share of the machine that other processes took; above 6 % figures are high")


MADE_BY_BENCHES = ("README.md", "loadtest/README.md", "loadtest/RESULTS.md", "loadtest/PEERS.md")
"""Pages with tables of figures: changed by one bench, they make the next one's commit no other."""


def commit() -> str:
    """What git calls this checkout; `-dirty` when files differ that no bench writes."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    root = subprocess.run([git, "rev-parse", "--show-toplevel"], capture_output=True, text=True)
    kept_out = [f":(top,exclude){each}" for each in (*MADE_BY_BENCHES, "loadtest/results")]
    found = subprocess.run([git, "describe", "--always"], capture_output=True, text=True)
    changed = subprocess.run(
        [git, "status", "--porcelain", "--", root.stdout.strip() or ".", *kept_out],
        capture_output=True,
        text=True,
    )
    name = found.stdout.strip() or "unknown"
    return f"{name}-dirty" if changed.stdout.strip() else name


def _cpu_model() -> str:
    """What the machine calls its processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()

"""Open-loop load on one server: requests fall due by a clock and not by the answers before them.

Here requests are planned and outcomes told; a small Rust program sends and hears, for one in Python
is late itself at the rates a server of microseconds takes (`loadtest/generator`).

    python -m headrace.loadtest.open_loop --port 6566 --rate 2000 --seconds 5 \
        --bodies FILE --out FILE

Due times are fixed before the start (a Poisson process, or evenly spaced), and latency counts from
the due time, so that a server that stands still is not spared the requests it would have got
("coordinated omission", Tene). A caller has a bounded pool of connections, one request at a time on
each; when all are busy a request that falls due waits for one if it may (`--waiting`), else it is
not sent, and counted as such. `Retry-After` is ignored: each request stands for another user.

Every answer is compared with the one that was expected for its body, which the bodies file holds;
an empty one stands for any answer of status 200.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Callable, Sequence
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from headrace.loadtest.priority import put_ahead

SETTLE_S = 2.0
"""How long answers are waited for after the last request."""
SUMMARY_SHARES = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "p999_ms": 0.999, "max_ms": 1.0}


class Fate(IntEnum):
    """What became of a request."""

    OK = 0
    PARTIAL = 1
    """200, and rows that could not be read say so."""
    REFUSED = 2
    """503 with Retry-After."""
    FAILED = 3
    """Any other answer, none at all, or a broken connection."""
    UNSENT = 4
    """All connections were busy when it fell due, and no more requests may wait."""
    WRONG = 5
    """200, and a row is neither as expected nor said to be unavailable."""


class Exchange(NamedTuple):
    """A request's body and the body of its answer when nothing is wrong."""

    request: bytes
    answer: bytes


class Target(NamedTuple):
    """Where requests go, on this machine."""

    port: int
    path: str = "/v1/read"
    accept: str = "application/json"


class Outcomes:
    """Column by column: when a request fell due (s after the start), its latency (s) since then,
    how long after that it was sent (s; NaN if it was not), its fate.
    """

    def __init__(self) -> None:
        self.due_s = array("d")
        self.latency_s = array("f")
        self.late_s = array("f")
        self.fates = array("B")

    def __len__(self) -> int:
        return len(self.fates)

    def note(self, due_s: float, latency_s: float, fate: Fate, *, late_s: float = 0.0) -> None:
        """Add one request."""
        self.due_s.append(due_s)
        self.latency_s.append(latency_s)
        self.late_s.append(late_s)
        self.fates.append(fate)

    def write(self, path: Path) -> None:
        """The count, then the four columns, in native byte order."""
        with path.open("wb") as file:
            array("Q", [len(self)]).tofile(file)
            for column in (self.due_s, self.latency_s, self.late_s, self.fates):
                column.tofile(file)

    @classmethod
    def read(cls, path: Path) -> Outcomes:
        """What `write` or the generator wrote."""
        outcomes, count = cls(), array("Q")
        with path.open("rb") as file:
            count.fromfile(file, 1)
            for column in (outcomes.due_s, outcomes.latency_s, outcomes.late_s, outcomes.fates):
                column.fromfile(file, count[0])
        return outcomes

    def late_quantile_ms(self, share: float, *, since_s: float = 0.0) -> float:
        """How late so many of the requests that were sent were at most; NaN without any."""
        pairs = zip(self.due_s, self.late_s, strict=True)
        late_s = sorted(late for due, late in pairs if due >= since_s and not math.isnan(late))
        return late_s[max(1, math.ceil(share * len(late_s))) - 1] * 1_000 if late_s else math.nan

    def summary(self, *, since_s: float = 0.0) -> dict[str, float]:
        """Counts by fate and percentiles in ms, of what fell due after `since_s`.

        Percentiles are of OK answers by nearest rank; a request that was due and never answered
        counts as endless, so that failures cannot improve a percentile.
        """
        counted = dict.fromkeys(Fate, 0)
        latencies: list[float] = []
        for due_s, latency_s, fate in zip(self.due_s, self.latency_s, self.fates, strict=True):
            if due_s >= since_s:
                counted[Fate(fate)] += 1
                latencies.append(latency_s if fate == Fate.OK else math.inf)
        latencies.sort()
        made: dict[str, float] = {fate.name.lower(): counted[fate] for fate in Fate}
        for name, share in SUMMARY_SHARES.items():
            rank = max(1, math.ceil(share * len(latencies)))
            made[name] = latencies[rank - 1] * 1_000 if latencies else math.nan
        return made


class Load(NamedTuple):
    """How a server is driven."""

    target: Target
    connections: int
    waiting_max: int = 0
    """Requests that may wait for a connection when all are busy."""
    ahead: bool = False
    """Whether the generator runs before all ordinary processes, where that is allowed."""


class Driven(NamedTuple):
    """What came of a run."""

    outcomes: Outcomes
    started_s: float
    """`time.perf_counter` at the start of the run."""


def generator_path() -> Path:
    """The program that sends and hears; `make generator` builds it."""
    root = Path(__file__).parents[3]
    built = Path(os.environ.get("CARGO_TARGET_DIR", root / "target")) / "release"
    path = built / "headrace-generator"
    if not path.exists():
        raise SystemExit(f"open_loop: {path} is not built; run `make generator`, then this again")
    return path


def drive(
    load: Load, exchanges: list[Exchange], due_s: list[float], *, prefix: Sequence[str] = ()
) -> Driven:
    """Send a request at each due time, in seconds from the start, and wait for the answers.

    `prefix` goes before the generator's command, such as that which pins it to a CPU.
    """
    choose = random.Random(3)
    numbers = [choose.randrange(len(exchanges)) for _ in due_s]
    with tempfile.TemporaryDirectory(prefix="headrace-load-") as name:
        folder = Path(name)
        write_exchanges(folder / "exchanges", exchanges)
        with (folder / "plan").open("wb") as file:
            for column in (array("Q", [len(due_s)]), array("d", due_s), array("I", numbers)):
                column.tofile(file)
        target = load.target
        command = [*prefix, str(generator_path())]
        command += [str(target.port), target.path, target.accept]
        command += [str(load.connections), str(load.waiting_max), str(SETTLE_S)]
        command += [str(folder / each) for each in ("exchanges", "plan", "outcomes")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as generator:
            if load.ahead:
                put_ahead(generator.pid)
            told, _ = generator.communicate()
        if generator.returncode != 0:
            raise subprocess.CalledProcessError(generator.returncode, command)
        return Driven(Outcomes.read(folder / "outcomes"), float(told))


def poisson(rate: float, seconds: float, *, seed: int = 5) -> list[float]:
    """Due times of `rate` requests a second that come independently of each other."""
    chance, at_s, due_s = random.Random(seed), 0.0, list[float]()
    while (at_s := at_s + chance.expovariate(rate)) < seconds:
        due_s.append(at_s)
    return due_s


def evenly(rate: float, seconds: float) -> list[float]:
    """Due times of `rate` requests a second, one as long after the other."""
    return [number / rate for number in range(int(rate * seconds))]


def in_steps(
    arrivals: Callable[[float, float], list[float]], steps: list[tuple[float, float]]
) -> list[float]:
    """Due times of (requests a second, seconds) one after the other."""
    due_s, start_s = list[float](), 0.0
    for rate, seconds in steps:
        due_s += [start_s + at_s for at_s in arrivals(rate, seconds)]
        start_s += seconds
    return due_s


def write_exchanges(path: Path, exchanges: list[Exchange]) -> None:
    """Two lines an exchange: neither JSON text holds a line end."""
    path.write_bytes(b"".join(b"%b\n%b\n" % each for each in exchanges))


def read_exchanges(path: Path) -> list[Exchange]:
    """What `write_exchanges` wrote."""
    lines = path.read_bytes().split(b"\n")
    return [Exchange(*pair) for pair in zip(lines[::2], lines[1::2], strict=False)]


def _step(text: str) -> tuple[float, float]:
    rate, _, seconds = text.partition(":")
    return float(rate), float(seconds)


def main() -> int:
    """Drive the server, keep the outcomes, print their summary as one JSON line."""
    parser = argparse.ArgumentParser(prog="open_loop", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/v1/read")
    parser.add_argument("--accept", default="application/json")
    parser.add_argument("--rate", type=float, required=True, help="requests a second")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument(
        "--then", type=_step, action="append", default=[], help="RATE:SECONDS: a further step"
    )
    parser.add_argument("--arrivals", choices=("poisson", "evenly"), default="poisson")
    parser.add_argument("--connections", type=int, default=1024)
    parser.add_argument("--waiting", type=int, default=0, help="requests that may wait for one")
    parser.add_argument("--warm-up", type=float, default=0.0, help="seconds not in the summary")
    parser.add_argument("--bodies", type=Path, required=True, help="two lines each: body, answer")
    parser.add_argument("--ahead", action="store_true", help="before all ordinary processes")
    parser.add_argument("--out", type=Path, help="file for every single outcome")
    asked = parser.parse_args()
    arrivals = poisson if asked.arrivals == "poisson" else evenly
    steps: list[tuple[float, float]] = [(asked.rate, asked.warm_up + asked.seconds), *asked.then]
    target = Target(asked.port, asked.path, asked.accept)
    load = Load(target, asked.connections, asked.waiting, asked.ahead)
    driven = drive(load, read_exchanges(asked.bodies), in_steps(arrivals, steps))
    if asked.out is not None:
        driven.outcomes.write(asked.out)
    summary = driven.outcomes.summary(since_s=asked.warm_up)
    late_p99_ms = driven.outcomes.late_quantile_ms(0.99, since_s=asked.warm_up)
    told = summary | {"sent_late_p99_ms": late_p99_ms, "started_s": driven.started_s}
    print(json.dumps({name: told[name] if math.isfinite(told[name]) else None for name in told}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

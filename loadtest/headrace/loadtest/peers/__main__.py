"""`make bench-peers`: ours and what a user would pick instead, on the same rows in one run.

Every peer runs in an environment of its own on one core, with wrk, the open-loop generator, Valkey
and the store behind our cache on another. All are up at once. First every row of every peer is
checked to be equal, then cells and peers are driven in shuffled rounds: closed loop to saturation
for CPU per request, then open loop at shares of what each server had done. Everything that was
measured is kept as JSON; the page is made from it (`python -m headrace.loadtest.pages`).

    python -m headrace.loadtest.peers [--quick] [--only Headrace --only FastAPI] [--out FILE]
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from subprocess import SubprocessError
from typing import Any, NamedTuple

import click

from headrace.loadtest.bench import keep
from headrace.loadtest.environments import InstallFailed
from headrace.loadtest.peers.cells import FULL, MAIN_CELLS, QUICK, Cell, Plan
from headrace.loadtest.peers.check import check_equal
from headrace.loadtest.peers.controls import controls_up
from headrace.loadtest.peers.measure import Measuring
from headrace.loadtest.peers.servers import (
    LOAD_CPU,
    SERVER_CPU,
    Live,
    PeerFailed,
    everything_up,
    rss_mib,
)
from headrace.loadtest.peers.table import CONTROLS, OUR_SERVER, PEERS, Peer
from headrace.loadtest.servers import ServerFailed
from headrace.loadtest.stalls import of_cpus
from headrace.loadtest.wrk import NO_WRK, commit, machine
from headrace.registry.errors import SettingsError

OUT = Path("loadtest/results/peers.json")
STALLS_S = 5.0
"""How long the idle machine is watched for times when it stands still."""
FAILURES = (PeerFailed, ServerFailed, InstallFailed, SettingsError, OSError, SubprocessError)
"""Each says in a sentence what is wrong."""


class Step(NamedTuple):
    """One thing to measure once."""

    cell: Cell
    peer: Peer
    round_number: int
    share: float = 0.0
    """Of the closed loop's rate, for an open-loop step."""

    @property
    def name(self) -> str:
        """For the progress bar."""
        return f"{self.peer.name}, {self.cell.name}"


def main() -> int:
    """Measure and keep; 1 with a sentence when something is missing or answers are not equal."""
    asked = _arguments()
    plan: Plan = QUICK if asked.quick else FULL
    only: list[str] | None = asked.only
    peers = [peer for peer in PEERS if only is None or peer.name in only]
    if shutil.which("wrk") is None:
        print(NO_WRK, file=sys.stderr)
        return 1
    # Told to end, it ends what it has started.
    signal.signal(signal.SIGTERM, _leave)
    try:
        with tempfile.TemporaryDirectory(prefix="headrace-peers-") as name:
            print("installing and starting the peers", file=sys.stderr)
            with everything_up(Path(name), peers, plan.size) as live:
                made = measure_all(live, peers, plan)
    except FAILURES as error:
        print(f"bench-peers: {error}", file=sys.stderr)
        return 1
    keep(made, asked.out)
    return 0


def _leave(number: int, _: object) -> None:
    sys.exit(128 + number)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench-peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few cells and rounds: minutes")
    parser.add_argument("--only", action="append", choices=[peer.name for peer in PEERS])
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args()


def measure_all(live: Live, peers: Sequence[Peer], plan: Plan) -> dict[str, Any]:
    """Check, then measure: the raw results."""
    checked = check_equal(live, peers, lambda text: print(text, file=sys.stderr))
    measuring = Measuring(live, plan)
    stalls, stalls_ahead = (
        of_cpus((SERVER_CPU, LOAD_CPU), STALLS_S, ahead=each) for each in (False, True)
    )
    weights = {
        (cell.name, peer.name): measuring.weigh(cell, peer)
        for cell in plan.cells
        for peer in peers
        if plan.rounds_of(cell, peer)
    }
    closed = _closed_loop(measuring, peers, plan)
    controls = CONTROLS if OUR_SERVER in live.peers else ()
    with controls_up(live, controls, plan) as everything:
        opened = _open_loop(Measuring(everything, plan), [*peers, *controls], plan, closed)
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "stalls": [each._asdict() for each in stalls],
        "stalls_ahead": [each._asdict() for each in stalls_ahead],
        "method": _method(plan),
        "peers": [
            {
                "name": peer.name,
                "tuning": peer.tuning,
                "values_checked": checked[peer.name],
                "rss_mib": rss_mib(live.peers[peer.name]),
            }
            for peer in peers
        ],
        "controls": [{"name": each.name, "tuning": each.tuning} for each in controls],
        "closed": [
            {"cell": cell, "peer": peer, **weights[cell, peer], "rounds": rounds}
            for (cell, peer), rounds in closed.items()
        ],
        "open": opened,
    }


def _method(plan: Plan) -> dict[str, Any]:
    """As the page tells it."""
    return {
        "rounds": plan.rounds,
        "side_rounds": plan.side_rounds,
        "seconds": plan.seconds,
        "connections": plan.connections,
        "open_rounds": plan.open_rounds,
        "open_seconds": plan.open_seconds,
        "open_connections": plan.open_connections,
        "rows": plan.size._asdict(),
    }


Closed = dict[tuple[str, str], list[dict[str, Any]]]


def _closed_loop(measuring: Measuring, peers: Sequence[Peer], plan: Plan) -> Closed:
    """Every cell of every peer once a round, in shuffled order; a round of main cells warms up."""
    order, steps = random.Random(11), list[Step]()
    for number in range(plan.rounds + 1):
        of_round = [
            Step(cell, peer, number)
            for cell in (plan.cells if number else MAIN_CELLS)
            for peer in peers
            if cell in plan.cells and number <= plan.rounds_of(cell, peer)
        ]
        order.shuffle(of_round)
        steps += of_round
    rounds: Closed = {}
    with _progress("closed loop", steps) as running:
        for step in running:
            measured = measuring.closed(step.cell, step.peer, step.round_number)
            if step.round_number:
                rounds.setdefault((step.cell.name, step.peer.name), []).append(measured)
    return rounds


def _open_loop(
    measuring: Measuring, peers: Sequence[Peer], plan: Plan, closed: Closed
) -> list[dict[str, Any]]:
    """Shares of each server's own closed-loop rate, or ours, in shuffled rounds."""
    order, steps = random.Random(12), list[Step]()
    for number in range(1, plan.open_rounds + 1):
        of_round = [
            Step(cell, peer, number, share)
            for cell in plan.open_cells
            for peer in peers
            for share in plan.open_shares
            if number <= plan.open_rounds_of(peer, share)
        ]
        order.shuffle(of_round)
        steps += of_round
    found: dict[tuple[str, str, float], dict[str, Any]] = {}
    with _progress("open loop", steps) as running:
        for cell, peer, _, share in running:
            rounds = closed[cell.name, peer.paced_as or peer.name]
            rate = share * statistics.median(one["requests"] / one["seconds"] for one in rounds)
            told = {"cell": cell.name, "peer": peer.name, "share": share, "rate": rate}
            kept = found.setdefault((cell.name, peer.name, share), told | {"rounds": []})
            kept["rounds"].append(measuring.open(cell, peer, rate))
    return list(found.values())


@contextmanager
def _progress(label: str, steps: list[Step]) -> Generator[Generator[Step]]:
    """The steps, with a bar on a terminal and a line a tenth elsewhere."""
    if sys.stderr.isatty():
        with click.progressbar(
            steps, label=label, file=sys.stderr, item_show_func=lambda step: step and step.name
        ) as bar:
            yield (step for step in bar)
        return
    yield _with_lines(label, steps)


def _with_lines(label: str, steps: list[Step]) -> Generator[Step]:
    for number, step in enumerate(steps):
        if number * 10 // len(steps) > (number - 1) * 10 // len(steps):
            print(f"{label}: {number * 100 // len(steps)} %", file=sys.stderr)
        yield step


if __name__ == "__main__":
    sys.exit(main())

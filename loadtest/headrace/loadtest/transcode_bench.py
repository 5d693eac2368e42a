"""Stored Avro to JSON text in Rust: ours beside the fastest Rust Avro crate, in one run.

The benchmark is `rust_codec/core/benches/transcode.rs`, built as a release is. Here it runs in
rounds: every case once a round, each in a process of its own, in a new order each; the median over
rounds of what a record takes is told. `codec_bench` tells what the same costs a caller in Python.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from headrace.loadtest.bench import keep
from headrace.loadtest.wrk import commit, machine, pin

ROOT = Path(__file__).resolve().parents[3]
OUT = Path("loadtest/results/transcode.json")
RECORDS = 100
"""Records that an iteration of the benchmark prints."""
CASES = {
    "record/flat, objects": "objects",
    "record/flat, rows": "rows",
    "record/nullable, objects": "nullable, objects",
    "record/nullable, rows": "nullable, rows",
    "record/flat, objects, serde_avro_fast": "objects, serde_avro_fast",
    "record/nullable, objects, serde_avro_fast": "nullable, objects, serde_avro_fast",
}
PAIRS = {
    "objects": "objects, serde_avro_fast",
    "nullable, objects": "nullable, objects, serde_avro_fast",
}
"""Of ours and theirs that print the same text of the same record."""
THEIRS = ("serde_avro_fast", "serde_json")
TIMED = re.compile(r"^test (?P<case>.+?) \.\.\. bench: +(?P<ns>[\d,]+) ns/iter", re.MULTILINE)


class Failed(Exception):
    """The benchmark was not built or did not tell a time; the sentence says what it told."""


def run(rounds: int, seconds: float) -> dict[str, object]:
    """Build, run in rounds, and report."""
    program = built()
    times: dict[str, list[float]] = {name: [] for name in CASES.values()}
    order = random.Random(13)
    for number in range(1, rounds + 1):
        shuffled = list(CASES)
        order.shuffle(shuffled)
        for case in shuffled:
            times[CASES[case]].append(timed(program, case, seconds))
        print(f"round {number} of {rounds}", file=sys.stderr)
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "rustc": _told("rustc", "--version"),
        "versions": versions(tomllib.loads((ROOT / "Cargo.lock").read_text())),
        "method": {"rounds": rounds, "seconds": seconds, "records": RECORDS},
        **summary(times),
    }


def summary(times: Mapping[str, list[float]]) -> dict[str, object]:
    """Medians of the rounds, how many times ours theirs takes, and the rounds themselves."""
    medians = {name: round(statistics.median(each), 1) for name, each in times.items()}
    return {
        "medians_ns": medians,
        "ratios": {
            ours: round(medians[theirs] / medians[ours], 2) for ours, theirs in PAIRS.items()
        },
        "rounds_ns": {name: [round(each, 1) for each in one] for name, one in times.items()},
    }


def built() -> Path:
    """The benchmark's program, built when it is not there; the first time takes minutes."""
    print("building the benchmark as a release is built", file=sys.stderr)
    command = ["cargo", "bench", "--locked", "--package", "headrace-codec", "--bench", "transcode"]
    return program_in(_told(*command, "--no-run", "--message-format=json").splitlines())


def program_in(messages: Iterable[str]) -> Path:
    """The program that cargo's messages, a JSON object a line, name for the benchmark."""
    for line in messages:
        message = json.loads(line)
        if message.get("target", {}).get("name") == "transcode" and message.get("executable"):
            return Path(message["executable"])
    raise Failed("cargo named no program for the benchmark `transcode`")


def timed(program: Path, case: str, seconds: float) -> float:
    """Nanoseconds a record of one case."""
    settings = ["--warm-up-time", "0.3", "--measurement-time", str(seconds), "--sample-size", "30"]
    settings += ["--nresamples", "1000", "--noplot", "--discard-baseline"]
    told = _told(
        *pin(0), str(program), "--bench", "--exact", case, *settings, "--output-format", "bencher"
    )
    return ns_a_record(told, case)


def ns_a_record(told: str, case: str) -> float:
    """What the benchmark told of this case, divided by the records of an iteration."""
    times = [each["ns"] for each in TIMED.finditer(told) if each["case"] == case]
    if len(times) != 1:
        raise Failed(f"expected one time of `{case}`, got {len(times)}:\n{told[-2000:]}")
    return int(times[0].replace(",", "")) / RECORDS


def versions(lock: Mapping[str, list[dict[str, str]]]) -> dict[str, str]:
    """Of what ours is compared with, out of Cargo.lock."""
    return {each["name"]: each["version"] for each in lock["package"] if each["name"] in THEIRS}


def _told(*command: str) -> str:
    try:
        finished = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    except FileNotFoundError as error:
        raise Failed(f"`{command[0]}` is not on PATH: install Rust, https://rustup.rs") from error
    if finished.returncode != 0:
        raise Failed(f"`{' '.join(command)}` ended with {finished.returncode}")
    return finished.stdout.strip()


def main() -> int:
    """Run once and keep the raw results."""
    parser = argparse.ArgumentParser(prog="transcode_bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.7, help="of each case in each round")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    try:
        made = run(options.rounds, options.seconds)
    except Failed as failed:
        print(f"transcode_bench: {failed}", file=sys.stderr)
        return 1
    keep(made, options.out)
    print(json.dumps({name: made[name] for name in ("medians_ns", "ratios")}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())

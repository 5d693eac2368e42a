"""Instructions that fixed work takes, held against a committed baseline.

    python -m headrace.loadtest.instructions            compares; fails beyond 3 %
    python -m headrace.loadtest.instructions --renew WHY  writes the baseline anew, with the reason

The crate `rust_codec/instructions` does the work, one function a case; callgrind counts what each
function and all that it calls execute, so start-up is left out and a busy machine changes nothing.
The count belongs to one compiler: with another one than the baseline's the comparison would say
nothing, so it fails and says what to do, unless rustup has the baseline's to build with.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

from headrace.loadtest.baseline import changes, newest, renew
from headrace.loadtest.valgrind import ENVIRONMENT, Refused, calls_in, find_valgrind

ROOT = Path(__file__).resolve().parents[3]
BASELINE = ROOT / "loadtest" / "results" / "instructions.json"
BINARY = "headrace-codec-instructions"
RENEW = "`python -m headrace.loadtest.instructions --renew 'why'`"


def rustc_version(toolchain: str | None = None) -> str:
    """What `rustc -V` says, as `1.95.0`."""
    command = ["rustc", *([f"+{toolchain}"] if toolchain else []), "--version"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return told.split()[1]


def choose_toolchain(wanted: str) -> str | None:
    """The toolchain to ask cargo for: None when the default is the wanted one."""
    found = rustc_version()
    if found == wanted:
        return None
    installed = ""
    if shutil.which("rustup"):
        command = ["rustup", "toolchain", "list"]
        installed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    if re.search(rf"^{re.escape(wanted)}\b", installed, re.MULTILINE):
        return wanted
    raise Refused(
        f"the baseline was counted with rustc `{wanted}`, here is `{found}`: counts of two"
        f" compilers cannot be compared. Install it (`rustup toolchain install {wanted}`), or"
        f" renew the baseline with this one: {RENEW}"
    )


def build(toolchain: str | None) -> Path:
    """Builds the work and tells where the program is."""
    command = ["cargo", *([f"+{toolchain}"] if toolchain else []), "build", "--quiet", "--locked"]
    subprocess.run([*command, "--profile", "counted", "-p", BINARY], cwd=ROOT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "counted" / BINARY


def count(program: Path) -> dict[str, int]:
    """Instructions of each case per record, event, command or request."""
    valgrind, variables = find_valgrind(program.parent / "valgrind")
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "profile"
        done = subprocess.run(
            [valgrind, "--tool=callgrind", f"--callgrind-out-file={profile}", str(program)],
            # Nothing of the caller's environment: its size would move the stack.
            env={**ENVIRONMENT, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise Refused(f"callgrind ended with {done.returncode}:\n{done.stderr[-2000:]}")
        units = cast("dict[str, int]", json.loads(done.stdout))
        return per_unit(profile.read_text().splitlines(), units)


def per_unit(profile: Iterable[str], units: Mapping[str, int]) -> dict[str, int]:
    """Reads the inclusive cost of the second call of each case out of a callgrind profile.

    A case is called twice, first to warm up; the two places of the call are two.
    """
    costs: dict[str, list[int]] = {}
    for calls in calls_in(profile):
        case = calls.called.rsplit("::", 1)[-1]
        if case and case in units:
            costs.setdefault(case, []).append(calls.instructions)
    lost = [case for case in units if case and len(costs.get(case, [])) != 2]
    if lost:
        raise Refused(f"callgrind has no two calls of {', '.join(lost)}; was it merged or inlined?")
    return {case: costs[case][-1] // units[case] for case in units if case}


def check(path: Path) -> list[str]:
    """Counts with the baseline's compiler and tells what changed."""
    baseline = newest(path)
    program = build(choose_toolchain(str(baseline["rustc"])))
    return changes(cast("dict[str, int]", baseline["instructions"]), count(program))


def count_anew(path: Path, why: str) -> dict[str, int]:
    """Counts with the compiler at hand and puts that before the older renewals."""
    counted = count(build(None))
    renew(path, {"why": why, "rustc": rustc_version(), "instructions": counted})
    return counted


def main(arguments: list[str] | None = None) -> int:
    """0 when nothing changed by more than the limit, else 1."""
    parser = argparse.ArgumentParser(prog="headrace.loadtest.instructions", description=__doc__)
    parser.add_argument("--renew", metavar="WHY", help="write the baseline, with this reason")
    options = parser.parse_args(arguments)
    try:
        if options.renew:
            for case, instructions in count_anew(BASELINE, options.renew).items():
                print(f"{instructions:12,}  {case}")
            return 0
        told = check(BASELINE)
    except Refused as refused:
        told = [str(refused)]
    for sentence in told:
        print(sentence, file=sys.stderr)
    if told:
        print(f"If it is meant so, renew the baseline in the same commit: {RENEW}", file=sys.stderr)
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())

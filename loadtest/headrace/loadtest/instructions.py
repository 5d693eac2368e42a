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
from typing import Any, cast

ROOT = Path(__file__).resolve().parents[3]
BASELINE = ROOT / "loadtest" / "results" / "instructions.json"
BINARY = "headrace-codec-instructions"
CHANGE_MAX = 0.03
RENEWALS_MAX = 20
RENEW = "`python -m headrace.loadtest.instructions --renew 'why'`"
# A copy by one repeated instruction counts as one; where it begins hangs on the processor's caches.
ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.cpu.x86_rep_movsb_threshold=1048576"}


class Refused(Exception):
    """Why the counts cannot be taken or compared, for a user."""


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


def find_valgrind(folder: Path) -> tuple[str, dict[str, str]]:
    """Valgrind and its environment: the system's, or its package unpacked into a folder."""
    found = shutil.which("valgrind")
    if found:
        return found, {}
    if not shutil.which("apt-get"):
        raise Refused("valgrind is not installed; install it by the system's package manager")
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "usr/bin/valgrind").exists():
        got = subprocess.run(["apt-get", "download", "valgrind"], cwd=folder, check=False)
        packages = list(folder.glob("valgrind_*.deb"))
        if got.returncode != 0 or not packages:
            raise Refused("valgrind is not installed; install it by `apt-get install valgrind`")
        subprocess.run(["dpkg", "-x", str(packages[0]), str(folder)], check=True)
    library = next(iter(folder.glob("usr/lib*/valgrind")))
    return str(folder / "usr/bin/valgrind"), {"VALGRIND_LIB": str(library)}


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

    Format: valgrind manual, "Callgrind Format Specification". A case is called twice, first to warm
    up; callgrind adds both up per place of the call, and the two places are two lines.
    """
    names: dict[str, str] = {}
    costs: dict[str, list[int]] = {}
    called = ""
    after_call = False
    for line in profile:
        if match := re.match(r"cfn=\((\d+)\)(?: (.*))?$", line):
            called = names.setdefault(match[1], match[2] or "").rsplit("::", 1)[-1]
        elif match := re.match(r"fn=\((\d+)\)(?: (.*))?$", line):
            names.setdefault(match[1], match[2] or "")
        elif line.startswith("calls="):
            after_call = True
        elif after_call:
            after_call = False
            if called and called in units:
                costs.setdefault(called, []).append(int(line.split()[1]))
    lost = [case for case in units if case and len(costs.get(case, [])) != 2]
    if lost:
        raise Refused(f"callgrind has no two calls of {', '.join(lost)}; was it merged or inlined?")
    return {case: costs[case][-1] // units[case] for case in units if case}


def changes(before: Mapping[str, int], now: Mapping[str, int]) -> list[str]:
    """One sentence for each case that changed by more than the limit, came or went."""
    told = [f"`{case}` is new: {now[case]:,}" for case in now if case not in before]
    for case, old in before.items():
        if case not in now:
            told.append(f"`{case}` is gone; it took {old:,}")
        elif abs(now[case] - old) > old * CHANGE_MAX:
            change = (now[case] - old) / old
            told.append(
                f"`{case}` took {old:,} instructions and takes {now[case]:,} ({change:+.1%})"
            )
    return told


def newest(path: Path) -> dict[str, Any]:
    """The renewal in force: its reason, its compiler and the counts."""
    baseline: dict[str, list[dict[str, Any]]] = json.loads(path.read_text())
    return baseline["renewals"][0]


def check(path: Path) -> list[str]:
    """Counts with the baseline's compiler and tells what changed."""
    baseline = newest(path)
    program = build(choose_toolchain(str(baseline["rustc"])))
    return changes(cast("dict[str, int]", baseline["instructions"]), count(program))


def renew(path: Path, why: str) -> dict[str, int]:
    """Counts with the compiler at hand and puts that before the older renewals."""
    counted = count(build(None))
    before = json.loads(path.read_text())["renewals"] if path.exists() else []
    renewal = {"why": why, "rustc": rustc_version(), "instructions": counted}
    baseline = {"renewals": [renewal, *before][:RENEWALS_MAX]}
    path.write_text(json.dumps(baseline, indent=1, ensure_ascii=False) + "\n")
    return counted


def main(arguments: list[str] | None = None) -> int:
    """0 when nothing changed by more than the limit, else 1."""
    parser = argparse.ArgumentParser(prog="headrace.loadtest.instructions", description=__doc__)
    parser.add_argument("--renew", metavar="WHY", help="write the baseline, with this reason")
    options = parser.parse_args(arguments)
    try:
        if options.renew:
            for case, instructions in renew(BASELINE, options.renew).items():
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

"""Where valgrind is, and the environment that makes its counts repeat."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

# A copy by one repeated instruction counts as one; where it begins hangs on the processor's caches.
ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.cpu.x86_rep_movsb_threshold=1048576"}


class Refused(Exception):
    """Why the counts cannot be taken or compared, for a user."""


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


class Calls(NamedTuple):
    """The calls from one place of a program."""

    called: str
    times: int
    instructions: int
    """Of all of them, with what they called in turn."""


def calls_in(profile: Iterable[str]) -> Iterator[Calls]:
    """The calls in a callgrind profile, one for each place that calls.

    Format: valgrind manual, "Callgrind Format Specification".
    """
    names: dict[str, str] = {}
    called, times = "", 0
    for line in profile:
        if match := re.match(r"(c?)fn=\((\d+)\)(?: (.*))?$", line):
            name = names.setdefault(match[2], match[3] or "")
            called = name if match[1] else called
        elif line.startswith("calls="):
            times = int(line[len("calls=") :].split()[0])
        elif times:
            yield Calls(called, times, int(line.split()[1]))
            times = 0

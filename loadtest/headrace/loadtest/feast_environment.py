"""Feast in an environment of its own, outside the repository: what we are compared with.

It is installed once a machine, under a lock, and shared by every checkout. Nothing of ours imports
it; tests and benchmarks run its Python as another process.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

from headrace.loadtest.servers.cache import cached

VERSION = "0.67.0"
CONSTRAINTS = Path(__file__).with_name("feast-constraints.txt")
INSTALL_LIMIT_S = 900


class InstallFailed(Exception):
    """pip could not install Feast; the sentence ends with what pip said."""


def feast_python() -> Path:
    """The interpreter that has Feast; the first call installs it, which takes a minute or two."""
    folder = cached(f"feast-{VERSION}", _install, root=Path.home() / ".cache" / "headrace")
    return folder / "bin" / "python"


def _install(folder: Path) -> None:
    venv.create(folder, with_pip=True, symlinks=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    options = ["--disable-pip-version-check", "--constraint", str(CONSTRAINTS)]
    installed = subprocess.run(
        [*pip, *options, f"feast=={VERSION}"],
        capture_output=True,
        text=True,
        timeout=INSTALL_LIMIT_S,
        check=False,
    )
    if installed.returncode != 0:
        raise InstallFailed(f"installing Feast {VERSION} failed: {installed.stderr[-2000:]}")


if __name__ == "__main__":
    sys.stdout.write(f"{feast_python()}\n")

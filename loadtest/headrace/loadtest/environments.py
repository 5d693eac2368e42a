"""Python environments of their own, outside the repository, for what we are compared with.

Each is installed once a machine, under a lock, and shared by every checkout; its name holds a
digest of what is in it, so that a changed pin makes another. Nothing of ours imports what is
installed there: tests and benchmarks run its Python as another process.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
from pathlib import Path
from typing import NamedTuple

from headrace.loadtest.servers.cache import cached

INSTALL_LIMIT_S = 900


class InstallFailed(Exception):
    """pip could not install a peer; the sentence ends with what pip said."""


class Environment(NamedTuple):
    """What pip installs, and the file that pins all that comes with it."""

    name: str
    requirements: tuple[str, ...]
    constraints: Path

    def python(self) -> Path:
        """Its interpreter; the first call installs the environment, which takes up to minutes."""
        root = Path.home() / ".cache" / "headrace"
        return cached(f"{self.name}-{self._digest()}", self._install, root=root) / "bin" / "python"

    def _digest(self) -> str:
        contents = "\n".join((sys.version, *self.requirements, self.constraints.read_text()))
        return hashlib.sha256(contents.encode()).hexdigest()[:12]

    def _install(self, folder: Path) -> None:
        venv.create(folder, with_pip=True, symlinks=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        options = ["--disable-pip-version-check", "--constraint", str(self.constraints)]
        installed = subprocess.run(
            [*pip, *options, *self.requirements],
            capture_output=True,
            text=True,
            timeout=INSTALL_LIMIT_S,
            check=False,
        )
        if installed.returncode != 0:
            raise InstallFailed(f"installing {self.name} failed: {installed.stderr[-2000:]}")

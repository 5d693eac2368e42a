"""The cache of server files outside the repository: filled once, shared by every checkout."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path

from headrace.loadtest.servers.process import ServerFailed

FETCH_LIMIT_S = 600


def cache_folder() -> Path:
    """`$HEADRACE_TESTSERVERS`, else `~/.cache/headrace/testservers`."""
    named = os.environ.get("HEADRACE_TESTSERVERS")
    return Path(named) if named else Path.home() / ".cache" / "headrace" / "testservers"


def cached(name: str, fill: Callable[[Path], None], *, root: Path | None = None) -> Path:
    """The folder `name` of the cache or of another `root`; `fill` makes it when it is not there.

    `fill` writes into a temporary folder that is renamed when it returns, under a lock, so that a
    half-filled folder is never seen and two runs do not fill it twice.
    """
    folder = (root or cache_folder()) / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_name(f"{folder.name}.lock")):
        if not folder.exists():
            scratch = folder.with_name(f"{folder.name}.tmp")
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            fill(scratch)
            scratch.rename(folder)
    return folder


def maven_jars(name: str, pom: Path) -> Path:
    """The runtime jars of a pom, copied from Maven Central into the cache once."""

    def fill(scratch: Path) -> None:
        maven = shutil.which("mvn")
        if maven is None:
            raise ServerFailed(f"{name} needs Maven (`mvn`) to fetch its jars, and none is on PATH")
        shutil.copy(pom, scratch / "pom.xml")
        argv = [maven, "-B", "-q", "dependency:copy-dependencies", "-DincludeScope=runtime"]
        fetched = subprocess.run(
            [*argv, f"-DoutputDirectory={scratch}"],
            cwd=scratch,
            capture_output=True,
            text=True,
            timeout=FETCH_LIMIT_S,
            check=False,
        )
        if fetched.returncode != 0:
            raise ServerFailed(f"fetching the jars of {name} failed:\n{fetched.stdout[-2000:]}")

    return cached(name, fill)


def java() -> str:
    """The `java` on PATH; a sentence when there is none."""
    found = shutil.which("java")
    if found is None:
        raise ServerFailed("Cassandra and Kafka need Java 17 or newer, and no `java` is on PATH")
    return found


@contextlib.contextmanager
def _locked(path: Path) -> Generator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield

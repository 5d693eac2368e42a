"""The client alone: what `headrace[client]` brings is small; importing it brings nothing more."""

from __future__ import annotations

import asyncio
import importlib
import json
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
from gateway_over_lmdb import served, store_gateway

from headrace.loadtest import feature_data

ROOT = Path(__file__).resolve().parents[2]
SIZE_MB_MAX = 10
"""With the codec's extension module, which the client never loads."""

READ = """
import json, sys
from headrace.client import Client
with Client(sys.argv[1], deadline_ms=10_000) as client:
    read = client.read_group(sys.argv[2], {"user_id": [1]})
print(json.dumps({"rows": len(read.result.rows), "modules": sorted(sys.modules)}))
"""


def packages() -> list[str]:
    """The folders that the wheel is made of."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found: list[str] = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    return found


def requirements() -> list[str]:
    """What pip installs for the extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["client"]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site-packages of a fresh environment with the extra `client` and our Python files."""
    place = tmp_path_factory.mktemp("client-only")
    venv.create(place, with_pip=False)
    found = next(place.glob("lib/python*/site-packages"))
    pip = [sys.executable, "-m", "pip", "--python", str(place / "bin" / "python"), "install"]
    pip += ["--quiet", "--disable-pip-version-check", "--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([*pip, *requirements()], check=True)
    for package in packages():
        shutil.copytree(
            ROOT / package,
            found / "headrace",
            ignore=shutil.ignore_patterns("*.so", "*.so.new", "__pycache__"),
            dirs_exist_ok=True,
        )
    compiled = [place / "bin" / "python", "-m", "compileall", "-q", found / "headrace"]
    subprocess.run([str(part) for part in compiled], check=True)
    return found


def test_the_client_is_small_with_all_it_needs(site: Path) -> None:
    sizes = {path: path.stat().st_size for path in site.rglob("*") if path.is_file()}
    without_codec = sum(sizes.values())
    assert without_codec > 0
    total = (without_codec + released_codec_bytes()) / 1e6
    assert total < SIZE_MB_MAX, f"{total:.2f} MB, the codec apart {without_codec / 1e6:.2f}"


def released_codec_bytes() -> int:
    """Of the codec here, or of the one measured last where this one is a quick build.

    A release is stripped; `make codec` makes one that is not.
    """
    here = Path(str(importlib.import_module("headrace.codec._codec").__file__))
    if b".symtab\0" not in here.read_bytes():
        return here.stat().st_size
    measured = json.loads((ROOT / "loadtest" / "results" / "client.json").read_text())
    return int(measured["installed_bytes"]["headrace, codec"])


async def test_a_read_imports_nothing_heavy_and_not_even_the_codec(
    site: Path, tmp_path: Path
) -> None:
    gateway = await store_gateway(tmp_path / "online")
    async with served(gateway.app) as port:
        python = site.parents[2] / "bin" / "python"
        url = f"http://127.0.0.1:{port}"
        done = await asyncio.create_subprocess_exec(
            python, "-I", "-c", READ, url, feature_data.OBJECT, stdout=subprocess.PIPE
        )
        printed, _ = await done.communicate()
    gateway.store.close()
    said = json.loads(printed)
    ours = {name for name in said["modules"] if name.startswith("headrace.")}
    foreign = {name.partition(".")[0] for name in said["modules"]} - sys.stdlib_module_names
    assert said["rows"] == 1
    assert all(name == "headrace.client" or name.startswith("headrace.client.") for name in ours)
    # Whatever is compiled with Cython brings its runtime.
    foreign = {name for name in foreign if not name.startswith("_")} - {"cython_runtime"}
    assert foreign == {"headrace", "httptools", "msgspec"}


def test_the_command_line_says_which_extra_brings_it(site: Path) -> None:
    python = site.parents[2] / "bin" / "python"
    done = subprocess.run(
        [python, "-I", "-m", "headrace.cli", "version"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        "error: the command line needs the Python package `click`, which is not installed; "
        "install `headrace[cli]`\n"
    )

"""The client alone: what `headrace[client]` brings is small; importing it brings nothing more."""

from __future__ import annotations

import asyncio
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
PORTIONS = ("rust_codec", "gateway", "sync", "registry", "loadtest")
SIZE_MB_MAX = 5.5
"""Without the codec's extension module, which weighs below 4.5 MB as `pip install` builds it and
which the client never loads: 10 MB in all."""

READ = """
import json, sys
from headrace.client import Client
with Client(sys.argv[1], deadline_ms=10_000) as client:
    read = client.read_group(sys.argv[2], {"user_id": [1]})
print(json.dumps({"rows": len(read.result.rows), "modules": sorted(sys.modules)}))
"""


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
    for portion in PORTIONS:
        shutil.copytree(
            ROOT / portion / "headrace",
            found / "headrace",
            ignore=shutil.ignore_patterns("*.so", "*.so.new", "__pycache__"),
            dirs_exist_ok=True,
        )
    compiled = [place / "bin" / "python", "-m", "compileall", "-q", found / "headrace"]
    subprocess.run([str(part) for part in compiled], check=True)
    return found


def test_the_client_is_small_with_all_it_needs(site: Path) -> None:
    sizes = {path: path.stat().st_size for path in site.rglob("*") if path.is_file()}
    assert 0 < sum(sizes.values()) / 1e6 < SIZE_MB_MAX


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

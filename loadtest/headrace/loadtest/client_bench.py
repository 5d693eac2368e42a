"""What a read costs its caller: CPU of the Python client, beside the usual HTTP libraries.

    python -m headrace.loadtest.client_bench

One gateway on LMDB on CPU 0, one caller at a time on CPU 1, which sends requests one after another
and turns each answer into Python values. All contenders send the same bodies, and their answers are
checked to be equal before anything is measured. Rounds are shuffled; the median over rounds of the
process's own CPU time a request is told. Beside it: the time that importing the client takes in a
fresh interpreter over a bare one, and the bytes that installing it alone brings.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import marshal
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import urllib3
import uvloop

import headrace
from headrace.client import AsyncClient, Client
from headrace.loadtest import feature_data
from headrace.loadtest.bench import gateway_on_lmdb, keep
from headrace.loadtest.wrk import commit, machine

KEYS = (1, 10, 100)
BODIES = 100
ROUND_SECONDS = 0.25
JSON_HEADERS = {"content-type": "application/json"}
IMPORTS = 9


class Caller(NamedTuple):
    """One way of calling: runs requests for these key lists and gives their rows."""

    name: str
    run: Callable[[int, list[list[int]], float], tuple[int, float, Any]]


def main() -> int:
    parser = argparse.ArgumentParser(prog="client_bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("loadtest/results/client.json"))
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="headrace-bench-") as name,
        gateway_on_lmdb(Path(name)) as live,
    ):
        if (os.cpu_count() or 1) > 1:
            os.sched_setaffinity(0, {1})
        rounds = measure(live.port, arguments.rounds)
    medians = {
        name: {keys: statistics.median(times) for keys, times in cells.items()}
        for name, cells in rounds.items()
    }
    made: dict[str, object] = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("httptools", "msgspec", "uvloop", "httpx", "urllib3")
        },
        "method": {"rounds": arguments.rounds, "seconds": ROUND_SECONDS, "bodies": BODIES},
        "import_ms": import_ms(),
        "installed_bytes": installed_bytes(),
        "medians_us": medians,
        "rounds_us": rounds,
    }
    keep(made, arguments.out)
    for name, cells in medians.items():
        print(f"{name:<32}" + "".join(f"{keys:>6} keys {us:7.1f} µs" for keys, us in cells.items()))
    return 0


def measure(port: int, rounds: int) -> dict[str, dict[int, list[float]]]:
    """CPU µs a request of every caller and size, round by round."""
    source = random.Random(11)
    lists = {
        keys: [[source.randrange(feature_data.ROWS) for _ in range(keys)] for _ in range(BODIES)]
        for keys in KEYS
    }
    for keys in KEYS:
        answers = [caller.run(port, lists[keys][:1], 0.0)[2] for caller in CALLERS]
        if any(answer != answers[0] for answer in answers):
            raise SystemExit("client_bench: the contenders' answers differ")
    found: dict[str, dict[int, list[float]]] = {
        caller.name: {keys: [] for keys in KEYS} for caller in CALLERS
    }
    for number in range(rounds):
        cells = [(caller, keys) for caller in CALLERS for keys in KEYS]
        source.shuffle(cells)
        for caller, keys in cells:
            requests, seconds, _ = caller.run(port, lists[keys], ROUND_SECONDS)
            found[caller.name][keys].append(seconds * 1e6 / requests)
        print(f"\rround {number + 1} of {rounds}", end="", file=sys.stderr)
    print(file=sys.stderr)
    return found


def asynchronous(
    ask: Callable[[Any, list[int]], Awaitable[Any]], client_of: Callable[[int], Any], *, uv: bool
) -> Callable[[int, list[list[int]], float], tuple[int, float, Any]]:
    """A caller within an event loop of its own."""

    async def requests(port: int, lists: list[list[int]], seconds: float) -> tuple[int, float, Any]:
        async with client_of(port) as client:
            rows = await ask(client, lists[0])  # connects, and warms up
            done, began, ends = 0, time.process_time(), time.monotonic() + seconds
            while time.monotonic() < ends:
                for keys in lists:
                    await ask(client, keys)
                done += len(lists)
            return done, time.process_time() - began, rows

    run = uvloop.run if uv else asyncio.run
    return lambda port, lists, seconds: run(requests(port, lists, seconds))


def blocking(
    ask: Callable[[Any, list[int]], Any], client_of: Callable[[int], Any]
) -> Callable[[int, list[list[int]], float], tuple[int, float, Any]]:
    """A caller in this thread."""

    def run(port: int, lists: list[list[int]], seconds: float) -> tuple[int, float, Any]:
        with client_of(port) as client:
            rows = ask(client, lists[0])
            done, began, ends = 0, time.process_time(), time.monotonic() + seconds
            while time.monotonic() < ends:
                for keys in lists:
                    ask(client, keys)
                done += len(lists)
            return done, time.process_time() - began, rows

    return run


def url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def body(keys: list[int]) -> bytes:
    return msgspec.json.encode(
        {
            "reads": [{"feature_group": feature_data.OBJECT, "keys": {"user_id": keys}}],
            "deadline_ms": 5_000,
        }
    )


async def ask_ours(client: AsyncClient, keys: list[int]) -> Any:
    return (await client.read_group(feature_data.OBJECT, {"user_id": keys})).result.rows


def ask_ours_blocking(client: Client, keys: list[int]) -> Any:
    return client.read_group(feature_data.OBJECT, {"user_id": keys}).result.rows


async def ask_httpx(client: httpx.AsyncClient, keys: list[int]) -> Any:
    answer = await client.post("/v1/read", content=body(keys), headers=JSON_HEADERS)
    return msgspec.json.decode(answer.content)["results"][0]["rows"]


def ask_urllib3(client: urllib3.HTTPConnectionPool, keys: list[int]) -> Any:
    answer = client.request("POST", "/v1/read", body=body(keys), headers=JSON_HEADERS)
    return msgspec.json.decode(answer.data)["results"][0]["rows"]


def our_client(port: int) -> AsyncClient:
    return AsyncClient(url(port), deadline_ms=5_000)


CALLERS = (
    Caller("AsyncClient, uvloop", asynchronous(ask_ours, our_client, uv=True)),
    Caller("AsyncClient, asyncio", asynchronous(ask_ours, our_client, uv=False)),
    Caller(
        "Client", blocking(ask_ours_blocking, lambda port: Client(url(port), deadline_ms=5_000))
    ),
    Caller(
        "httpx and msgspec, asyncio",
        asynchronous(ask_httpx, lambda port: httpx.AsyncClient(base_url=url(port)), uv=False),
    ),
    Caller(
        "urllib3 and msgspec",
        blocking(ask_urllib3, lambda port: urllib3.HTTPConnectionPool("127.0.0.1", port)),
    ),
)


def import_ms() -> float:
    """Of `headrace.client` in a fresh interpreter, in ms of CPU over a bare start."""

    def once(statement: str) -> float:
        before = os.times()
        subprocess.run([sys.executable, "-c", statement], check=True)
        after = os.times()
        return (after[2] + after[3] - before[2] - before[3]) * 1_000

    bare = statistics.median(once("") for _ in range(IMPORTS))
    return statistics.median(once("import headrace.client") for _ in range(IMPORTS)) - bare


def compiled_bytes(source: Path) -> int:
    """Of what pip compiles a file to, which begins with 16 bytes of its own (PEP 552)."""
    return 16 + len(marshal.dumps(compile(source.read_bytes(), str(source), "exec")))


def installed_bytes() -> dict[str, int]:
    """Of the files of each distribution that `headrace[client]` installs, and of our own."""
    sizes = {
        name: sum(
            Path(str(file.locate())).stat().st_size
            for file in importlib.metadata.files(name) or ()
            if Path(str(file.locate())).is_file()
        )
        for name in ("msgspec", "httptools")
    }
    # Benchmarks are in no wheel.
    portions = [part for part in map(Path, headrace.__path__) if not (part / "loadtest").is_dir()]
    ours = [file for part in portions for file in part.rglob("*.py") if file.is_file()]
    codec = [file for part in portions for file in part.rglob("*.so")]
    sizes["headrace, Python"] = sum(file.stat().st_size + compiled_bytes(file) for file in ours)
    sizes["headrace, codec"] = sum(file.stat().st_size for file in codec)
    return sizes


if __name__ == "__main__":
    sys.exit(main())

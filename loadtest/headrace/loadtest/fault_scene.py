"""The servers that faults and overload are measured on, and load for them.

One gateway process over a real store with a real cache in front (Cassandra for ScyllaDB, Valkey for
Redis), load from the open-loop generator, every answer compared with the right one.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import urllib.request
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from headrace.loadtest import feature_data
from headrace.loadtest.bench import free_port
from headrace.loadtest.open_loop import Exchange, Fate, Outcomes, write_exchanges
from headrace.loadtest.real_bench import Engines, load_rows
from headrace.loadtest.servers import Server, start_cassandra, start_valkey
from headrace.loadtest.wrk import JSON_TYPE, Gateway, pin, wait_ready

BODIES = 200
CONNECTIONS = 512
PEAK_S = 4.0
ENDLESS_RATE = 20_000.0
"""Requests a second that keep the few connections of a peak measurement always busy."""

Body = Callable[[int, random.Random], bytes]
"""A read of that many random rows."""


class Scene(NamedTuple):
    """The servers, and a place for files."""

    engines: Engines
    cassandra: Server
    valkey: Server
    folder: Path


class Progress:
    """A bar on stderr, one step a measurement."""

    def __init__(self, steps: int) -> None:
        self._steps, self._done = steps, 0

    def begin(self, name: str) -> None:
        """Say what is measured now."""
        filled = 24 * self._done // self._steps
        bar = "█" * filled + "░" * (24 - filled)
        line = f"{bar} {self._done}/{self._steps}  {name}"
        end = "\x1b[K\r" if sys.stderr.isatty() else "\n"
        print(line, end=end, file=sys.stderr, flush=True)
        self._done += 1


async def open_scene(folder: Path, stack: AsyncExitStack) -> Scene:
    cassandra, valkey = await asyncio.gather(
        asyncio.to_thread(start_cassandra, folder / "cassandra"),
        asyncio.to_thread(start_valkey, folder / "valkey"),
    )
    stack.callback(cassandra.stop)
    stack.callback(valkey.stop)
    engines = Engines(
        [cassandra, valkey],
        online=f"scylla://127.0.0.1:{cassandra.port}/bench?replication=1",
        cache=f"redis://127.0.0.1:{valkey.port}/0",
        commands=f"sqlite:{folder / 'commands.db'}",
    )
    await load_rows(engines, wide_rows=feature_data.WIDE_ROWS)
    return Scene(engines, cassandra, valkey, folder)


@asynccontextmanager
async def gateway(scene: Scene, cache: str) -> AsyncGenerator[Gateway]:
    port, engines = free_port(), scene.engines
    command = [*pin(0), sys.executable, "-m", "headrace.cli", "serve", "--port", str(port)]
    command += ["--online", engines.online, "--cache", cache, "--commands", engines.commands]
    server = await asyncio.to_thread(subprocess.Popen, command, stderr=subprocess.DEVNULL)
    try:
        await asyncio.to_thread(wait_ready, port, server)
        yield Gateway(port, server.pid, tuple(each.pid for each in engines.servers))
    finally:
        server.terminate()
        await asyncio.to_thread(server.wait, 15)


async def prepare(live: Gateway, keys: int, bodies: Path, make: Body) -> None:
    """Bodies, and the right answer to each, which the gateway gives with time to spare."""
    source = random.Random(keys)
    exchanges: list[Exchange] = []
    for _ in range(BODIES):
        body = make(keys, source)
        patient = body[:-1] + b',"deadline_ms":10000,"strict":true}'
        exchanges.append(Exchange(body, await asyncio.to_thread(_post, live, patient)))
    write_exchanges(bodies, exchanges)


def _post(live: Gateway, body: bytes) -> bytes:
    url, headers = f"http://127.0.0.1:{live.port}/v1/read", {"Content-Type": JSON_TYPE}
    request = urllib.request.Request(url, data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=15) as response:
        answer: bytes = response.read()
    return answer


async def peak(live: Gateway, bodies: Path, connections: int) -> float:
    """Requests a second that are answered in full when a few connections never rest."""
    for seconds in (1.0, PEAK_S):  # The first warms up.
        run = await generate(live, bodies, [(ENDLESS_RATE, seconds)], connections)
        outcomes, _ = await run.finished()
    return sum(fate == Fate.OK for fate in outcomes.fates) / PEAK_S


class Run:
    """A generator under way."""

    def __init__(self, process: asyncio.subprocess.Process, out: Path) -> None:
        self.pid = process.pid
        self._process = process
        self._out = out

    async def finished(self) -> tuple[Outcomes, float]:
        """Its outcomes, and the clock at its start."""
        told, _ = await self._process.communicate()
        if self._process.returncode:
            raise SystemExit(f"bench: the generator ended with {self._process.returncode}")
        return Outcomes.read(self._out), json.loads(told)["started_s"]


async def generate(
    live: Gateway,
    bodies: Path,
    profile: list[tuple[float, float]],
    connections: int = CONNECTIONS,
) -> Run:
    """Load of (requests a second, seconds) one after the other."""
    out = bodies.with_suffix(".outcomes")
    (rate, seconds), *more = profile
    command = [*pin(1), sys.executable, "-m", "headrace.loadtest.open_loop"]
    command += ["--port", str(live.port), "--bodies", str(bodies), "--out", str(out)]
    command += ["--rate", str(rate), "--seconds", str(seconds), "--connections", str(connections)]
    for then in more:
        command += ["--then", "{}:{}".format(*then)]
    return Run(await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE), out)

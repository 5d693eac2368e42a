"""`make bench-faults`: what callers see while an engine fails, and while too much is asked.

One gateway process over a real store with a real cache in front (Cassandra for ScyllaDB, Valkey for
Redis), the cache behind the fault proxy, load from the open-loop generator, every answer compared
with the right one. Faults are measured at half of what the gateway answers without any cache: what
the store alone can bear. Overload is measured without the proxy, at 2 and 5 times the peak, between
spells at half of it; callers do not heed Retry-After.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from redis.asyncio import Redis

from headrace.loadtest import feature_data
from headrace.loadtest.bench import free_port, keep
from headrace.loadtest.fault_phases import Marks, Steps, fault_report, overload_report
from headrace.loadtest.fault_proxy import (
    BlackHole,
    CutMidReply,
    Delay,
    Fault,
    FaultProxy,
    Garble,
    Pass,
    Refuse,
    resp_reply_end,
)
from headrace.loadtest.open_loop import Exchange, Fate, Outcomes, write_exchanges
from headrace.loadtest.real_bench import Engines, load_rows, warm
from headrace.loadtest.servers import Server, start_cassandra, start_valkey
from headrace.loadtest.wrk import JSON_TYPE, Gateway, commit, machine, pin, wait_ready

BODIES = 200
FAULT_KEYS = 10
"""Keys of a request while faults are measured: enough requests a second for a p99 of one second."""
HEALTHY_S, FAULTY_S, HEALED_S = 3.0, 4.0, 5.0
STEPS = Steps(before_s=3.0, overload_s=5.0, after_s=5.0)
MULTIPLES = (2, 5)
CONNECTIONS = 512
FAULTS_PEAK_CONNECTIONS = 16
PEAK_S = 4.0
ENDLESS_RATE = 20_000.0
"""Requests a second that keep the few connections of a peak measurement always busy."""
LOOK_INTERVAL_S = 0.01
RSS_INTERVAL_S = 0.1


class Scene(NamedTuple):
    """The servers, and a place for files."""

    engines: Engines
    cassandra: Server
    valkey: Server
    folder: Path


class Overload(NamedTuple):
    """One kind of reads to ask too many of."""

    name: str
    keys: int
    cached: bool
    peak_connections: int
    """Those that keep the gateway busy and do not overload it."""


OVERLOADS = (
    Overload("500 keys from the cache", 500, cached=True, peak_connections=8),
    Overload("100 keys, all missed", 100, cached=False, peak_connections=3),
)


class Case(NamedTuple):
    """One way to fail: a fault of the proxy, or something done to a server."""

    name: str
    fault: Fault = Pass()
    begin: Callable[[Scene], Awaitable[None]] | None = None
    end: Callable[[Scene], Awaitable[None]] | None = None


async def _flush(scene: Scene) -> None:
    async with Redis(port=scene.valkey.port) as client:
        await client.flushall()


async def _fill_memory(scene: Scene) -> None:
    async with Redis(port=scene.valkey.port) as client:
        await client.config_set("maxmemory-policy", "noeviction")
        await client.config_set("maxmemory", "1mb")
        await client.flushall()


async def _give_memory(scene: Scene) -> None:
    async with Redis(port=scene.valkey.port) as client:
        await client.config_set("maxmemory", "256mb")


async def _freeze(scene: Scene) -> None:
    await asyncio.to_thread(scene.cassandra.freeze)


async def _freeze_uncached(scene: Scene) -> None:
    await _freeze(scene)
    await _flush(scene)


async def _resume(scene: Scene) -> None:
    scene.cassandra.resume()


CASES = (
    Case("Redis refused", Refuse()),
    Case("Redis black-holed", BlackHole()),
    Case("Redis 200 ms slow", Delay(ms=200)),
    Case("Redis cut mid-reply", CutMidReply()),
    Case("Redis answers garbage", Garble()),
    Case("Redis out of memory, flushed", begin=_fill_memory, end=_give_memory),
    Case("Redis flushed", begin=_flush),
    Case("store frozen, all cached", begin=_freeze, end=_resume),
    Case("store frozen, cache flushed", begin=_freeze_uncached, end=_resume),
)


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


def main() -> int:
    parser = argparse.ArgumentParser(prog="fault_bench", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("loadtest/results/faults.json"))
    parser.add_argument("--only", choices=("faults", "overload"))
    arguments = parser.parse_args()
    only: str | None = arguments.only
    if cpus := pin(1):  # The proxy runs in this process: away from the gateway, like the generator.
        os.sched_setaffinity(0, {int(cpus[-1])})
    keep(asyncio.run(_measure(only)), arguments.out)
    return 0


async def _measure(only: str | None) -> dict[str, object]:
    progress = Progress(1 + len(CASES) + 1 + len(OVERLOADS) * (1 + len(MULTIPLES)))
    progress.begin("starting the servers and writing rows")
    made: dict[str, object] = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "method": {
            "fault_keys": FAULT_KEYS,
            "seconds": [HEALTHY_S, FAULTY_S, HEALED_S],
            "overload_seconds": list(STEPS),
            "connections": CONNECTIONS,
        },
    }
    async with AsyncExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-faults-"))
        scene = await _start(Path(name), stack)
        if only != "overload":
            made["faults"] = await _measure_faults(scene, progress)
        if only != "faults":
            made["overload"] = await _measure_overloads(scene, progress)
    return made


async def _start(folder: Path, stack: AsyncExitStack) -> Scene:
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
    await load_rows(engines)
    return Scene(engines, cassandra, valkey, folder)


async def _measure_faults(scene: Scene, progress: Progress) -> dict[str, object]:
    bodies = scene.folder / "faults.bodies"
    progress.begin("the peak without a cache")
    async with _gateway(scene, "none") as live:
        await _prepare(live, FAULT_KEYS, bodies)
        peak_per_s = await _peak(live, bodies, FAULTS_PEAK_CONNECTIONS)
    cases: dict[str, object] = {}
    async with (
        FaultProxy("127.0.0.1", scene.valkey.port, framing=resp_reply_end) as proxy,
        _gateway(scene, f"redis://127.0.0.1:{proxy.port}/0") as live,
    ):
        for case in CASES:
            progress.begin(case.name)
            await asyncio.to_thread(warm, live)
            cases[case.name] = await _measure_case(scene, live, proxy, case, peak_per_s / 2)
    return {"peak_uncached_per_s": peak_per_s, "rate_per_s": peak_per_s / 2, "cases": cases}


async def _measure_case(
    scene: Scene, live: Gateway, proxy: FaultProxy, case: Case, rate: float
) -> dict[str, object]:
    seconds = HEALTHY_S + FAULTY_S + HEALED_S + 2.0
    run = await _generate(live, scene.folder / "faults.bodies", [(rate, seconds)], CONNECTIONS)
    watch = CacheWatch(live.port)
    watching = asyncio.create_task(watch.run())
    await asyncio.sleep(HEALTHY_S + 1.0)
    fault_s = time.perf_counter()
    proxy.fault = case.fault
    if case.begin is not None:
        await case.begin(scene)
    await asyncio.sleep(FAULTY_S)
    heal_s = time.perf_counter()
    proxy.fault = Pass()
    if case.end is not None:
        await case.end(scene)
    outcomes, started_s = await run.finished()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    seen = [(at_s - started_s, up) for at_s, up in watch.seen]
    opened = [at_s for at_s, up in seen if not up and fault_s - started_s <= at_s]
    closed = [at_s for at_s, up in seen if up and opened and at_s > heal_s - started_s]
    marks = Marks(
        fault_s=fault_s - started_s,
        heal_s=heal_s - started_s,
        end_s=seconds,
        opened_s=opened[0] if opened else None,
        closed_s=closed[0] if closed else None,
    )
    return fault_report(outcomes, marks)


class CacheWatch:
    """Looks all the time whether the gateway has left its cache."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.seen: list[tuple[float, bool]] = []
        """When it was looked, and whether the cache was in use."""

    async def run(self) -> None:
        """Look until cancelled."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            while True:
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                _, _, length = head.partition(b"content-length: ")
                body = await reader.readexactly(int(length.partition(b"\r\n")[0]))
                self.seen.append((time.perf_counter(), b"cache node" not in body))
                await asyncio.sleep(LOOK_INTERVAL_S)
        finally:
            writer.close()


async def _measure_overloads(scene: Scene, progress: Progress) -> dict[str, object]:
    kinds: dict[str, object] = {}
    for kind in OVERLOADS:
        progress.begin(f"the peak of {kind.name}")
        bodies = scene.folder / "overload.bodies"
        async with _gateway(scene, scene.engines.cache if kind.cached else "none") as live:
            if kind.cached:
                await asyncio.to_thread(warm, live)
            await _prepare(live, kind.keys, bodies)
            peak_per_s = await _peak(live, bodies, kind.peak_connections)
            multiples: dict[str, object] = {}
            for multiple in MULTIPLES:
                progress.begin(f"{multiple} times as many")
                multiples[str(multiple)] = await _overload(live, bodies, peak_per_s, multiple)
        kinds[kind.name] = {"peak_per_s": peak_per_s, "multiples": multiples}
    return kinds


async def _overload(
    live: Gateway, bodies: Path, peak_per_s: float, multiple: int
) -> dict[str, object]:
    profile = [
        (peak_per_s / 2, STEPS.before_s),
        (peak_per_s * multiple, STEPS.overload_s),
        (peak_per_s / 2, STEPS.after_s),
    ]
    run = await _generate(live, bodies, profile, CONNECTIONS)
    sizes: list[tuple[float, int]] = []
    waiting = asyncio.create_task(run.finished())
    while not waiting.done():
        sizes.append((time.perf_counter(), _rss_bytes(live.pid)))
        await asyncio.sleep(RSS_INTERVAL_S)
    outcomes, started_s = waiting.result()
    began_s = started_s + STEPS.before_s
    before = max(size for at_s, size in sizes if at_s < began_s)
    during = max(size for at_s, size in sizes if at_s >= began_s)
    return overload_report(outcomes, STEPS, peak_per_s) | {
        "rss_before_bytes": before,
        "rss_most_bytes": during,
        "rss_growth_share": during / before - 1,
    }


async def _peak(live: Gateway, bodies: Path, connections: int) -> float:
    """Requests a second that are answered in full when a few connections never rest."""
    for seconds in (1.0, PEAK_S):  # The first warms up.
        run = await _generate(live, bodies, [(ENDLESS_RATE, seconds)], connections)
        outcomes, _ = await run.finished()
    return sum(fate == Fate.OK for fate in outcomes.fates) / PEAK_S


class Run:
    """A generator under way."""

    def __init__(self, process: asyncio.subprocess.Process, out: Path) -> None:
        self._process = process
        self._out = out

    async def finished(self) -> tuple[Outcomes, float]:
        """Its outcomes, and the clock at its start."""
        told, _ = await self._process.communicate()
        if self._process.returncode:
            raise SystemExit(f"bench: the generator ended with {self._process.returncode}")
        return Outcomes.read(self._out), json.loads(told)["started_s"]


async def _generate(
    live: Gateway, bodies: Path, profile: list[tuple[float, float]], connections: int
) -> Run:
    out = bodies.with_suffix(".outcomes")
    (rate, seconds), *more = profile
    command = [*pin(1), sys.executable, "-m", "headrace.loadtest.open_loop"]
    command += ["--port", str(live.port), "--bodies", str(bodies), "--out", str(out)]
    command += ["--rate", str(rate), "--seconds", str(seconds), "--connections", str(connections)]
    for then in more:
        command += ["--then", "{}:{}".format(*then)]
    return Run(await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE), out)


async def _prepare(live: Gateway, keys: int, bodies: Path) -> None:
    """Bodies, and the right answer to each, which the gateway gives with time to spare."""
    source = random.Random(keys)
    exchanges: list[Exchange] = []
    for _ in range(BODIES):
        body = feature_data.read_body(keys, source)
        patient = body[:-1] + b',"deadline_ms":10000,"strict":true}'
        exchanges.append(Exchange(body, await asyncio.to_thread(_post, live, patient)))
    write_exchanges(bodies, exchanges)


def _post(live: Gateway, body: bytes) -> bytes:
    url, headers = f"http://127.0.0.1:{live.port}/v1/read", {"Content-Type": JSON_TYPE}
    request = urllib.request.Request(url, data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=15) as response:
        answer: bytes = response.read()
    return answer


@asynccontextmanager
async def _gateway(scene: Scene, cache: str) -> AsyncGenerator[Gateway]:
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


def _rss_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (each for each in status.splitlines() if each.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    sys.exit(main())

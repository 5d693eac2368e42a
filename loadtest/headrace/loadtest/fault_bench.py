"""`make bench-faults`: what callers see while an engine fails, and while too much is asked.

The servers are those of `fault_scene`, for faults with the cache behind the fault proxy. Faults are
measured at half of what the gateway answers without any cache: what the store alone can bear.
Overload is measured without the proxy, as `overload` says.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from redis.asyncio import Redis

from headrace.loadtest import feature_data
from headrace.loadtest.bench import keep
from headrace.loadtest.fault_phases import Marks, fault_report
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
from headrace.loadtest.fault_scene import (
    CONNECTIONS,
    Progress,
    Scene,
    gateway,
    generate,
    open_scene,
    peak,
    prepare,
)
from headrace.loadtest.overload import MULTIPLES, OVERLOADS, STEPS, measure_overloads
from headrace.loadtest.real_bench import warm
from headrace.loadtest.wrk import Gateway, commit, machine, pin

FAULT_KEYS = 10
"""Keys of a request while faults are measured: enough requests a second for a p99 of one second."""
HEALTHY_S, FAULTY_S, HEALED_S = 3.0, 4.0, 5.0
FAULTS_PEAK_CONNECTIONS = 16
LOOK_INTERVAL_S = 0.01


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
    progress = Progress(1 + len(CASES) + 1 + len(OVERLOADS) * (2 + len(MULTIPLES)))
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
        scene = await open_scene(Path(name), stack)
        if only != "overload":
            made["faults"] = await _measure_faults(scene, progress)
        if only != "faults":
            made["overload"] = await measure_overloads(scene, progress)
    return made


async def _measure_faults(scene: Scene, progress: Progress) -> dict[str, object]:
    bodies = scene.folder / "faults.bodies"
    progress.begin("the peak without a cache")
    async with gateway(scene, "none") as live:
        await prepare(live, FAULT_KEYS, bodies, feature_data.read_body)
        peak_per_s = await peak(live, bodies, FAULTS_PEAK_CONNECTIONS)
    cases: dict[str, object] = {}
    async with (
        FaultProxy("127.0.0.1", scene.valkey.port, framing=resp_reply_end) as proxy,
        gateway(scene, f"redis://127.0.0.1:{proxy.port}/0") as live,
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
    run = await generate(live, scene.folder / "faults.bodies", [(rate, seconds)])
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


if __name__ == "__main__":
    sys.exit(main())

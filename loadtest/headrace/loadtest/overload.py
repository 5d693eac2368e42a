"""Too much is asked of a gateway: what is answered all the same, and what the others are told.

2 and 5 times the peak, between spells at half of it; callers do not heed Retry-After. CPU is told
of each process, because the generator shares a core with the cache: only where the gateway is what
is busy does the goodput say what the gateway's own refusals cost.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import NamedTuple

from headrace.loadtest import feature_data
from headrace.loadtest.fault_phases import Steps, overload_report
from headrace.loadtest.fault_scene import (
    Body,
    Progress,
    Run,
    Scene,
    gateway,
    generate,
    peak,
    prepare,
)
from headrace.loadtest.real_bench import warm
from headrace.loadtest.wrk import Gateway, cpu_seconds

STEPS = Steps(before_s=3.0, overload_s=5.0, after_s=5.0)
MULTIPLES = (2, 5)
LOOK_INTERVAL_S = 0.1


class Overload(NamedTuple):
    """One kind of reads to ask too many of."""

    name: str
    keys: int
    body: Body
    cached: bool
    peak_connections: int
    """Those that keep the gateway busy and do not overload it."""


OVERLOADS = (
    Overload(
        "100 keys x 250 fields, cached",
        100,
        feature_data.wide_body,
        cached=True,
        peak_connections=8,
    ),
    Overload(
        "500 keys x 20 fields, cached", 500, feature_data.read_body, cached=True, peak_connections=8
    ),
    Overload(
        "100 keys x 20 fields, missed",
        100,
        feature_data.read_body,
        cached=False,
        peak_connections=3,
    ),
)


class Usage(NamedTuple):
    """What was in use when it was looked."""

    at_s: float
    rss_bytes: int
    cpu_s: dict[str, float]
    """Used so far by each process."""


async def measure_overloads(scene: Scene, progress: Progress) -> dict[str, object]:
    """Every kind at every multiple, by name."""
    kinds: dict[str, object] = {}
    for kind in OVERLOADS:
        progress.begin(f"the peak of {kind.name}")
        bodies = scene.folder / "overload.bodies"
        async with gateway(scene, scene.engines.cache if kind.cached else "none") as live:
            if kind.cached:
                await asyncio.to_thread(warm, live, wide_rows=feature_data.WIDE_ROWS)
            await prepare(live, kind.keys, bodies, kind.body)
            peak_per_s = await peak(live, bodies, kind.peak_connections)
            multiples: dict[str, object] = {}
            for multiple in MULTIPLES:
                progress.begin(f"{multiple} times as many")
                multiples[str(multiple)] = await _overload(
                    scene, live, bodies, peak_per_s, multiple
                )
        kinds[kind.name] = {"peak_per_s": peak_per_s, "multiples": multiples}
    return kinds


async def _overload(
    scene: Scene, live: Gateway, bodies: Path, peak_per_s: float, multiple: int
) -> dict[str, object]:
    profile = [
        (peak_per_s / 2, STEPS.before_s),
        (peak_per_s * multiple, STEPS.overload_s),
        (peak_per_s / 2, STEPS.after_s),
    ]
    run = await generate(live, bodies, profile)
    looks: list[Usage] = []
    waiting = asyncio.create_task(run.finished())
    while not waiting.done():
        looks.append(_look(scene, live, run))
        await asyncio.sleep(LOOK_INTERVAL_S)
    outcomes, started_s = waiting.result()
    return overload_report(outcomes, STEPS, peak_per_s) | _usage(looks, started_s)


def _look(scene: Scene, live: Gateway, run: Run) -> Usage:
    # The generator is a child of the program that plans for it, once that has planned.
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    try:
        generators = [int(pid) for pid in children.read_text().split()]
        generating_s = sum(map(cpu_seconds, generators))
    except OSError:
        generating_s = 0.0
    used = {
        "gateway": live.cpu_seconds(),
        "cache": cpu_seconds(scene.valkey.pid),
        "store": cpu_seconds(scene.cassandra.pid),
        "generator": generating_s,
    }
    return Usage(time.perf_counter(), _rss_bytes(live.pid), used)


def _usage(looks: list[Usage], started_s: float) -> dict[str, object]:
    """Cores in use during the overload, and the gateway's memory before it and from then on."""
    begin_s = started_s + STEPS.before_s
    during = [look for look in looks if begin_s <= look.at_s < begin_s + STEPS.overload_s]
    first, last = during[0], during[-1]
    seconds = last.at_s - first.at_s
    before = max(look.rss_bytes for look in looks if look.at_s < begin_s)
    most = max(look.rss_bytes for look in looks if look.at_s >= begin_s)
    return {
        "cores": {name: (last.cpu_s[name] - first.cpu_s[name]) / seconds for name in last.cpu_s},
        "rss_before_bytes": before,
        "rss_most_bytes": most,
        "rss_growth_share": most / before - 1,
    }


def _rss_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (each for each in status.splitlines() if each.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024

"""Too much is asked of a gateway: what is answered all the same, and what the others are told.

First the peak: the most that is answered at any of several rates around what a few callers get that
never rest. Then 2 and 5 times the peak, each between spells at half of it; callers do not heed
Retry-After. Goodput is compared in rounds of their own that alternate the best rate with 2 and 5
times the peak, second by second: a shared machine is not as fast now as it was a minute ago. CPU is
told of each process, because the generator shares a core with the cache: only where the gateway is
what is busy does the goodput say what the gateway's own refusals cost.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path
from typing import NamedTuple

from headrace.loadtest import feature_data
from headrace.loadtest.fault_phases import Steps, goodput_rounds, overload_report
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
LEVELS = (1.0, 1.5, 2.0, 3.0)
"""Rates at which the peak is looked for, in what the callers get that never rest."""
LEVEL_ROUNDS, GOODPUT_ROUNDS = 3, 7
STEP_S = 1.0
LOOK_INTERVAL_S = 0.1


class Overload(NamedTuple):
    """One kind of reads to ask too many of."""

    name: str
    keys: int
    body: Body
    callers: int
    """Those that never rest: enough to keep the gateway busy, too few to overload it."""
    cached: bool = True


OVERLOADS = (
    Overload("100 keys x 250 fields, cached", 100, feature_data.wide_body, callers=16),
    Overload("500 keys x 250 fields, cached", 500, feature_data.wide_body, callers=4),
    Overload("500 keys x 20 fields, cached", 500, feature_data.read_body, callers=16),
    Overload("100 keys x 20 fields, missed", 100, feature_data.read_body, callers=3, cached=False),
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
            found = await _find_peak(live, bodies, kind.callers)
            progress.begin(f"goodput of {kind.name}")
            goodputs = await _goodputs(live, bodies, found)
            multiples: dict[str, object] = {}
            for multiple in MULTIPLES:
                progress.begin(f"{multiple} times as many")
                measured = await _overload(scene, live, bodies, found.peak_per_s, multiple)
                multiples[str(multiple)] = goodputs[multiple] | measured
        kinds[kind.name] = found._asdict() | {"multiples": multiples}
    return kinds


class Peak(NamedTuple):
    """Where the most is answered."""

    peak_per_s: float
    """Requests answered in full."""
    offered_per_s: float
    """Requests that were sent then."""
    restless_per_s: float
    """What the callers got that never rest."""


async def _find_peak(live: Gateway, bodies: Path, callers: int) -> Peak:
    restless_per_s = await peak(live, bodies, callers)
    rates = [restless_per_s * level for level in LEVELS]
    rounds = await _alternated(live, bodies, rates, LEVEL_ROUNDS)
    medians = [statistics.median(of_rate) for of_rate in zip(*rounds, strict=True)]
    best = max(range(len(rates)), key=lambda number: medians[number])
    return Peak(medians[best], rates[best], restless_per_s)


async def _goodputs(live: Gateway, bodies: Path, found: Peak) -> dict[int, dict[str, object]]:
    rates = [found.offered_per_s, *(found.peak_per_s * multiple for multiple in MULTIPLES)]
    rounds = await _alternated(live, bodies, rates, GOODPUT_ROUNDS)
    goodputs: dict[int, dict[str, object]] = {}
    for place, multiple in enumerate(MULTIPLES, 1):
        shares = [each[place] / each[0] for each in rounds]
        goodputs[multiple] = {
            "goodput_share": statistics.median(shares),
            "goodput_shares": shares,
            "goodput_per_s": [each[place] for each in rounds],
            "goodput_at_peak_per_s": [each[0] for each in rounds],
        }
    return goodputs


async def _alternated(
    live: Gateway, bodies: Path, rates: list[float], rounds: int
) -> list[list[float]]:
    """Requests a second answered in full at each rate, round by round."""
    run = await generate(live, bodies, [(rate, STEP_S) for _ in range(rounds) for rate in rates])
    outcomes, _ = await run.finished()
    return goodput_rounds(outcomes, STEP_S, len(rates))


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
    return overload_report(outcomes, STEPS) | _usage(looks, started_s)


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

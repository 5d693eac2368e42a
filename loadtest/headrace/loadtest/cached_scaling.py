"""CPU of the gateway process a request over Valkey, by rows that the cache holds.

Part of `make bench-scaling`. One Valkey holds a database a size, and each has a gateway of its own,
so all sizes are up at once and rounds run them in shuffled order. Blocks are loaded by pipeline, as
a fill would store them; the online store has tables only, so that a miss is a wrong answer.

Every size is driven at the same rate, a share of what the slowest can do, found before the rounds.
In a closed loop a Valkey that takes longer (its memory is further away the more there is of it)
would slow the load down, and a gateway under less load finds fewer requests and replies a turn.
Where it is allowed, what is measured runs before all ordinary processes (`priority.py`).
"""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from os import cpu_count, sched_setaffinity
from pathlib import Path
from typing import NamedTuple

from headrace.cli.scylla import ScyllaEngine
from headrace.codec import Catalog, Placement
from headrace.loadtest import open_loop, scaling_rows
from headrace.loadtest.bench import free_port
from headrace.loadtest.open_loop import Exchange, Target, poisson
from headrace.loadtest.priority import ahead
from headrace.loadtest.scaling_rows import NOW_MS, LoadingBar
from headrace.loadtest.servers import Server, start_cassandra, start_valkey
from headrace.loadtest.wrk import (
    ERRORS_SHARE_MAX,
    JSON_TYPE,
    REPEATS_MAX,
    Gateway,
    Load,
    drive_once,
    pin,
    wait_ready,
)
from headrace.registry.catalog import CatalogDocument, encode_document

KEYS = (10, 100)
CONNECTIONS = 64
PEAK_CONNECTIONS = 8
"""Those that keep the slower of both CPUs busy, and queue little before it."""
WAITING_MAX = 10_000
"""After a stall of the machine nothing is left out."""
BODIES = 200
PAIRS_A_COMMAND = 1_000
RATE_SHARE = 0.5
"""Of the rate that saturates the slowest size."""
LOAD_CPU = 1
"""Valkey and the generator; the gateways are alone on the other."""


class Point(NamedTuple):
    """One gateway, the rows it can read, the keys a request asks for, and the requests."""

    rows: int
    keys: int
    gateway: Gateway
    exchanges: tuple[Exchange, ...]

    def bodies(self, folder: Path) -> Path:
        """The requests in a file, as wrk reads them."""
        path = folder / f"{self.rows}-{self.keys}.bodies"
        path.write_bytes(b"".join(each.request + b"\n" for each in self.exchanges))
        return path


class Round(NamedTuple):
    """One point driven once."""

    cpu_us: float
    valkey_us: float
    p99_ms: float
    right_share: float
    ahead: bool


def measure(sizes: Sequence[int], rounds: int, seconds: int) -> dict[str, object]:
    """The rate of each number of keys, and medians of each size and number of keys."""
    document = scaling_rows.document()
    with tempfile.TemporaryDirectory(prefix="headrace-cached-") as name, ExitStack() as stack:
        folder = Path(name)
        valkey = start_valkey(folder / "valkey", options=("--maxmemory", "0"))
        stack.callback(valkey.stop)
        _move(valkey.pid, LOAD_CPU)
        for number, rows in enumerate(sizes):
            load(document, valkey.port, number, rows)
        cassandra = start_cassandra(folder / "cassandra")
        stack.callback(cassandra.stop)
        _move(cassandra.pid, LOAD_CPU)
        online = f"scylla://127.0.0.1:{cassandra.port}/scaling?replication=1"
        asyncio.run(_publish(online, document))
        points: list[Point] = []
        for number, rows in enumerate(sizes):
            place = f"redis://127.0.0.1:{valkey.port}/{number}"
            gateway = stack.enter_context(
                _serving(folder / f"{number}.db", online, place, (valkey, cassandra))
            )
            points += [_point(document, rows, keys, gateway) for keys in KEYS]
        rates = {
            keys: _rate([each for each in points if each.keys == keys], folder) for keys in KEYS
        }
        return {
            "rounds": rounds,
            "seconds": seconds,
            "rate_share": RATE_SHARE,
            "rates": {str(keys): rate for keys, rate in rates.items()},
            "points": _drive(points, rates, valkey.pid, rounds, seconds),
        }


async def _publish(online: str, document: CatalogDocument) -> None:
    engine = await ScyllaEngine.open(online, create=True)
    await engine.table_admin().create(document.groups)
    await engine.catalog_writer().publish(document)
    await engine.close()


def _move(pid: int, cpu: int) -> None:
    """Every thread of a process to one CPU, where there are several."""
    if (cpu_count() or 1) < 2:
        return
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):
            sched_setaffinity(int(thread.name), {cpu})


def load(document: CatalogDocument, port: int, database: int, rows: int) -> None:
    """Put the block of every row into a database of the Valkey at this port.

    It stores a chunk while the next one is made: replies are read one chunk late.
    """
    catalog = Catalog(encode_document(document))
    placement = Placement([f"127.0.0.1:{port}"], epoch=1)
    ids = scaling_rows.users(rows)
    bar = LoadingBar(f"Valkey database {database}", rows)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as link:
        replies = link.makefile("rb")
        link.sendall(_command([b"SELECT", b"%d" % database]))
        owed = 1
        for chunk in scaling_rows.chunks(ids):
            commands = list(_puts(placement, blocks(document, catalog, chunk)))
            for _ in range(owed):
                _expect_ok(replies.readline())
            link.sendall(b"".join(commands))
            owed = len(commands)
            bar.show(chunk.start - ids.start)
        for _ in range(owed):
            _expect_ok(replies.readline())
    bar.show(rows)


def blocks(document: CatalogDocument, catalog: Catalog, users: range) -> list[tuple[bytes, bytes]]:
    """Key bytes and cache block of these rows, made by the codec as a fill makes them."""
    group = document.groups[0]
    made: list[tuple[bytes, bytes]] = []
    for mutation in scaling_rows.encoded(catalog, group, users).mutations():
        key, cells = mutation.key, [(mutation.field_id, mutation.cell)]
        folded = catalog.fold_object(group.name, cells, delete_timestamp=None, now_ms=NOW_MS)
        if folded is not None:
            made.append((key, folded.block(key)))
    return made


def _puts(placement: Placement, pairs: Sequence[tuple[bytes, bytes]]) -> Generator[bytes]:
    for start in range(0, len(pairs), PAIRS_A_COMMAND):
        parts = [b"MSET"]
        for key, block in pairs[start : start + PAIRS_A_COMMAND]:
            parts += (placement.block_key(key), block)
        yield _command(parts)


def _command(parts: Sequence[bytes]) -> bytes:
    """In the Redis protocol, RESP2 arrays."""
    bulk = b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])
    return b"*%d\r\n" % len(parts) + bulk


def _expect_ok(reply: bytes) -> None:
    if reply != b"+OK\r\n":
        raise SystemExit(f"scaling_bench: Valkey answers {reply!r} and not OK")


@contextmanager
def _serving(
    log: Path, online: str, cache: str, servers: tuple[Server, Server]
) -> Generator[Gateway]:
    port = free_port()
    command = [*pin(0), sys.executable, "-m", "headrace.cli", "serve", "--port", str(port)]
    command += ["--online", online, "--cache", cache, "--commands", f"sqlite:{log}"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_ready(port, process)
        yield Gateway(port, process.pid, tuple(server.pid for server in servers))
    finally:
        process.terminate()
        process.wait(timeout=15)


def _point(document: CatalogDocument, rows: int, keys: int, gateway: Gateway) -> Point:
    """Requests for random rows, each answered once and its answer checked."""
    name = document.groups[0].name
    exchanges: list[Exchange] = []
    link = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    for ids in scaling_rows.asked(scaling_rows.users(rows), BODIES, keys):
        body = scaling_rows.body(name, ids)
        link.request("POST", "/v1/read", body, {"Content-Type": JSON_TYPE})
        answer = link.getresponse().read()
        check(answer, ids)
        exchanges.append(Exchange(body, answer))
    link.close()
    return Point(rows, keys, gateway, tuple(exchanges))


def check(answer: bytes, ids: Sequence[int]) -> None:
    """Raise unless an answer has every row that was asked for, as it was loaded."""
    result = json.loads(answer).get("results", [{}])[0]
    if result.get("statuses") != [] or result.get("rows") != [[each] * 4 for each in ids]:
        raise SystemExit(f"scaling_bench: rows {ids} are answered {answer[:300]!r}")


def _rate(points: Sequence[Point], folder: Path) -> float:
    """Requests a second at which no size is near its peak."""
    peaks: list[float] = []
    for point in points:
        load = Load("/v1/read", JSON_TYPE, point.bodies(folder), 1, PEAK_CONNECTIONS)
        outcome = drive_once(point.gateway, load)
        if outcome.errors > outcome.requests * ERRORS_SHARE_MAX:
            raise SystemExit(f"scaling_bench: {outcome.errors:,} answers were no 200")
        peaks.append(outcome.requests / outcome.seconds)
    return round(RATE_SHARE * min(peaks))


def _drive(
    points: Sequence[Point], rates: dict[int, float], valkey: int, rounds: int, seconds: int
) -> list[dict[str, float]]:
    order = random.Random(11)
    measured: dict[tuple[int, int], list[Round]] = {}
    for number in range(rounds + 1):
        for point in order.sample(points, len(points)):
            due_s = poisson(rates[point.keys], seconds, seed=number)
            outcome = _undisturbed(point, due_s, valkey)
            if number:  # the first round warms up
                measured.setdefault((point.keys, point.rows), []).append(outcome)
        print(f"cached rows: round {number} of {rounds}", file=sys.stderr)
    return [
        {
            "rows": rows,
            "keys": keys,
            "cpu_us": statistics.median(each.cpu_us for each in outcomes),
            "least_us": min(each.cpu_us for each in outcomes),
            "valkey_us": statistics.median(each.valkey_us for each in outcomes),
            "p99_ms": statistics.median(each.p99_ms for each in outcomes),
            "ahead": all(each.ahead for each in outcomes),
        }
        for (keys, rows), outcomes in sorted(measured.items())
    ]


def _undisturbed(point: Point, due_s: list[float], valkey: int) -> Round:
    """A round in which all was answered from the cache: a stall of the machine sends requests on
    to the store, which is other work.
    """
    for _ in range(1 + REPEATS_MAX):
        outcome = _once(point, due_s, valkey)
        if outcome.right_share >= 1 - ERRORS_SHARE_MAX:
            return outcome
        print(f"cached rows: {outcome.right_share:.1%} answered right; again", file=sys.stderr)
    raise SystemExit(
        f"scaling_bench: {point.rows:,} cached rows, {point.keys} keys: {1 + REPEATS_MAX} times "
        f"less than {1 - ERRORS_SHARE_MAX:.1%} was answered right at {len(due_s):,} requests"
    )


def _once(point: Point, due_s: list[float], valkey: int) -> Round:
    gateway = point.gateway.pid
    with ahead((gateway, valkey)) as are_ahead:
        load = open_loop.Load(Target(point.gateway.port), CONNECTIONS, WAITING_MAX, are_ahead)
        before_s, valkey_before_s = cpu_clock_s(gateway), cpu_clock_s(valkey)
        driven = open_loop.drive(load, list(point.exchanges), due_s, prefix=pin(LOAD_CPU))
        used_s = cpu_clock_s(gateway) - before_s
        valkey_used_s = cpu_clock_s(valkey) - valkey_before_s
    summary = driven.outcomes.summary()
    return Round(
        cpu_us=used_s * 1e6 / len(due_s),
        valkey_us=valkey_used_s * 1e6 / len(due_s),
        p99_ms=summary["p99_ms"],
        right_share=summary["ok"] / len(due_s),
        ahead=are_ahead,
    )


def cpu_clock_s(pid: int) -> float:
    """CPU time of a process so far, by the clock that clock_getcpuclockid(3) names.

    /proc/<pid>/stat counts in hundredths of a second, a tenth of what a round uses.
    """
    return time.clock_gettime((~pid << 3) | 2)


def show(cached: dict[str, object]) -> None:
    points = cached["points"]
    for point in points if isinstance(points, list) else ():
        print(
            f"cached rows {point['rows']:>12,.0f}{point['keys']:>5.0f} keys"
            f"{point['cpu_us']:>10.2f} µs{point['valkey_us']:>10.2f} µs of Valkey"
            f"{point['p99_ms']:>8.2f} ms (p99)"
        )

"""CPU of the gateway process a request over Valkey, by rows that the cache holds.

Part of `make bench-scaling`. One Valkey holds a database a size, and each has a gateway of its own,
so all sizes are up at once and rounds run them in shuffled order. Blocks are loaded by pipeline, as
a fill would store them; the online store has tables only, so a miss would be seen in the answers.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from headrace.cli.scylla import ScyllaEngine
from headrace.codec import Catalog, Placement, encode_commands
from headrace.loadtest import feature_data
from headrace.loadtest.bench import free_port
from headrace.loadtest.servers import Server, start_cassandra, start_valkey
from headrace.loadtest.wrk import (
    ERRORS_SHARE_MAX,
    JSON_TYPE,
    Gateway,
    Load,
    cpu_seconds,
    drive_once,
    pin,
    wait_ready,
)
from headrace.registry.catalog import CatalogDocument, encode_document

KEYS = (10, 100)
CONNECTIONS = 64
BODIES = 500
BATCH = 10_000


class Point(NamedTuple):
    """One gateway, the rows it can read, and the keys a request asks for."""

    rows: int
    keys: int
    gateway: Gateway
    bodies: Path


def measure(
    document: CatalogDocument, sizes: Sequence[int], rounds: int, seconds: int
) -> list[dict[str, float]]:
    """Medians of each size and number of keys."""
    with tempfile.TemporaryDirectory(prefix="headrace-cached-") as name, ExitStack() as stack:
        folder = Path(name)
        valkey = start_valkey(folder / "valkey", options=("--maxmemory", "0"))
        stack.callback(valkey.stop)
        for number, rows in enumerate(sizes):
            load(document, valkey.port, number, rows)
        cassandra = start_cassandra(folder / "cassandra")
        stack.callback(cassandra.stop)
        online = f"scylla://127.0.0.1:{cassandra.port}/scaling?replication=1"
        asyncio.run(_publish(online, document))
        points: list[Point] = []
        for number, rows in enumerate(sizes):
            place = f"redis://127.0.0.1:{valkey.port}/{number}"
            gateway = stack.enter_context(
                _serving(folder / f"{number}.db", online, place, (valkey, cassandra))
            )
            points += [_point(document, rows, keys, gateway, folder) for keys in KEYS]
        return _drive(points, valkey.pid, rounds, seconds)


async def _publish(online: str, document: CatalogDocument) -> None:
    engine = await ScyllaEngine.open(online, create=True)
    await engine.table_admin().create(document.groups)
    await engine.catalog_writer().publish(document)
    await engine.close()


def load(document: CatalogDocument, port: int, database: int, rows: int) -> None:
    """Put the block of every row into a database of the Valkey at this port."""
    catalog = Catalog(encode_document(document))
    placement = Placement([f"127.0.0.1:{port}"], epoch=1)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as link:
        replies = link.makefile("rb")
        link.sendall(_command(b"SELECT", b"%d" % database))
        _expect_ok(replies.readline())
        for start in range(0, rows, BATCH):
            end = min(rows, start + BATCH)
            pairs = blocks(document, catalog, range(start, end))
            puts = b"".join(
                _command(b"SET", placement.block_key(key), block) for key, block in pairs
            )
            link.sendall(puts)
            for _ in pairs:
                _expect_ok(replies.readline())
            print(f"\rcaching {end:,} of {rows:,} rows", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


def blocks(
    document: CatalogDocument, catalog: Catalog, users: Sequence[int]
) -> list[tuple[bytes, bytes]]:
    """Key bytes and cache block of these rows, made by the codec as a fill makes them."""
    group = document.groups[0]
    now_ms = feature_data.EVENT_MS + 3_600_000
    commands = [
        msgspec.json.encode(
            {
                "feature_name": group.name,
                "method": "UPDATE",
                "keys": {"user_id": user},
                "values": {
                    "_last_updated_at_ms": feature_data.EVENT_MS,
                    **{field.name: user for field in group.schemas[-1].fields},
                },
            }
        )
        for user in users
    ]
    encoded = encode_commands(catalog, commands, now_ms=now_ms)
    if encoded.rejections:
        raise SystemExit(f"scaling_bench: refused: {encoded.rejections[0].message}")
    made: list[tuple[bytes, bytes]] = []
    for mutation in encoded.mutations():
        cells = [(mutation.field_id, mutation.cell)]
        folded = catalog.fold_object(group.name, cells, delete_timestamp=None, now_ms=now_ms)
        if folded is not None:
            made.append((mutation.key, folded.block(mutation.key)))
    return made


def _command(*parts: bytes) -> bytes:
    """In the Redis protocol, RESP2 arrays."""
    bulk = b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
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


def _point(
    document: CatalogDocument, rows: int, keys: int, gateway: Gateway, folder: Path
) -> Point:
    source = random.Random(f"{rows}-{keys}")
    bodies = [
        msgspec.json.encode(
            {
                "reads": [
                    {
                        "feature_group": document.groups[0].name,
                        "keys": {"user_id": [source.randrange(rows) for _ in range(keys)]},
                    }
                ]
            }
        )
        for _ in range(BODIES)
    ]
    path = folder / f"{rows}-{keys}.bodies"
    path.write_bytes(b"\n".join(bodies) + b"\n")
    request = urllib.request.Request(
        f"http://127.0.0.1:{gateway.port}/v1/read",
        data=bodies[0],
        headers={"Content-Type": JSON_TYPE},
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        result = json.loads(response.read())["results"][0]
    if result["statuses"] or len(result["rows"]) != keys:
        raise SystemExit(f"scaling_bench: {rows:,} cached rows, {keys} keys: {result!r:.300}")
    return Point(rows, keys, gateway, path)


def _drive(
    points: Sequence[Point], valkey: int, rounds: int, seconds: int
) -> list[dict[str, float]]:
    order = random.Random(11)
    gateway_us: dict[Point, list[float]] = {point: [] for point in points}
    valkey_us: dict[Point, list[float]] = {point: [] for point in points}
    for number in range(rounds + 1):
        for point in order.sample(points, len(points)):
            before = cpu_seconds(valkey)
            load = Load("/v1/read", JSON_TYPE, point.bodies, seconds, CONNECTIONS)
            outcome = drive_once(point.gateway, load)
            if outcome.errors > outcome.requests * ERRORS_SHARE_MAX:
                raise SystemExit(f"scaling_bench: {outcome.errors:,} answers were no 200")
            if number:  # the first round warms up
                gateway_us[point].append(outcome.cpu_us)
                used_us = (cpu_seconds(valkey) - before) * 1e6
                valkey_us[point].append(used_us / max(1, outcome.requests))
        print(f"cached rows: round {number} of {rounds}", file=sys.stderr)
    return [
        {
            "rows": point.rows,
            "keys": point.keys,
            "cpu_us": statistics.median(gateway_us[point]),
            "least_us": min(gateway_us[point]),
            "valkey_us": statistics.median(valkey_us[point]),
        }
        for point in points
    ]


def show(points: Sequence[dict[str, float]]) -> None:
    for point in points:
        print(
            f"cached rows {point['rows']:>12,.0f}{point['keys']:>5.0f} keys"
            f"{point['cpu_us']:>10.2f} µs{point['valkey_us']:>10.2f} µs of Valkey"
        )

"""Several workers on one address: balance of connections, memory a worker, a catalog swap.

    python -m headrace.loadtest.workers_bench

For 2 and 4 workers on LMDB: how 64 kept-alive connections are spread, and what each worker's memory
is (RSS, and USS: what is its alone). Then one worker under a steady stream of reads, while catalogs
of 1,000 groups are published: latency around each swap against the latency of the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import msgspec

from headrace.codec import LmdbStore
from headrace.loadtest import feature_data
from headrace.loadtest.bench import free_port, keep
from headrace.loadtest.wrk import commit, machine
from headrace.registry.catalog import Group, KeyField, Schema, encode_document
from headrace.registry.physical import CATALOG_DOCUMENT, CATALOG_GENERATION

CONNECTIONS = 64
FILLERS = 1_000
SWAPS = 8
SWAP_S = 3.0
"""From one publication to the next."""
AROUND_S = 1.5
"""After a publication: read, decoded, compiled, in force, the old one freed."""
READY_S = 60


def main() -> int:
    parser = argparse.ArgumentParser(prog="workers_bench", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("loadtest/results/workers.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headrace-workers-") as name:
        feature_data.write_store(Path(name) / "online")
        spread = {str(count): balance(Path(name), count) for count in (2, 4)}
        swaps = swap(Path(name))
    made: dict[str, object] = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "method": {"connections": CONNECTIONS, "groups": FILLERS, "swaps": SWAPS},
        "workers": spread,
        "swap": swaps,
    }
    keep(made, arguments.out)
    print(msgspec.json.format(msgspec.json.encode({"workers": spread, "swap": swaps})).decode())
    return 0


@contextmanager
def serving(folder: Path, workers: int) -> Generator[tuple[int, subprocess.Popen[str]]]:
    """A gateway; it is given once every worker has said that it serves."""
    port = free_port()
    command = [sys.executable, "-m", "headrace.cli", "serve", "--port", str(port)]
    command += ["--workers", str(workers), "--online", f"lmdb:{folder / 'online'}"]
    command += ["--commands", f"sqlite:{folder / 'commands.db'}"]
    log = folder / f"serve-{port}.log"
    with log.open("w") as sink:
        server = subprocess.Popen(command, stderr=sink, text=True)
    try:
        deadline = time.monotonic() + READY_S
        while log.read_text().count("serving on ") < workers:
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"workers_bench: the gateway did not start: {log.read_text()}")
            time.sleep(0.05)
        wait_ready(port)
        yield port, server
    finally:
        server.terminate()
        server.wait(timeout=30)


def wait_ready(port: int) -> None:
    """Until a connection is taken; the start was said a little before."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise SystemExit("workers_bench: the gateway takes no connections")


def balance(folder: Path, count: int) -> list[dict[str, int]]:
    """Of each worker: connections of 64, and memory after each answered some reads."""
    source = Random(3)
    with serving(folder, count) as (port, server):
        workers = children(server.pid)
        time.sleep(0.5)  # the connection that waited is gone from its worker, too
        alone = {worker: sockets(worker) for worker in workers}
        callers = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
        for caller in callers:
            for _ in range(10):
                ask(caller, feature_data.read_body(100, source))
        found = [
            {"connections": sockets(worker) - alone[worker], **memory(worker)} for worker in workers
        ]
        for caller in callers:
            caller.close()
    return found


def swap(folder: Path) -> dict[str, float]:
    """Latency of reads, around swaps and between them, over one connection back to back."""
    source = Random(4)
    bodies = [feature_data.read_body(10, source) for _ in range(100)]
    usual: list[float] = []
    around: list[float] = []
    worst_of_swaps: list[float] = []
    store = LmdbStore(str(folder / "online"))
    publish(store, 2)
    with serving(folder, 1) as (port, _):
        caller = socket.create_connection(("127.0.0.1", port))
        stream(caller, bodies, 2.0)
        for generation in range(3, 3 + SWAPS):
            publish(store, generation)
            these = stream(caller, bodies, AROUND_S)
            around += these
            worst_of_swaps.append(max(these))
            usual += stream(caller, bodies, SWAP_S - AROUND_S)
        seen = ask(caller, bodies[0])
        caller.close()
    store.close()
    if f'"generation":{2 + SWAPS}'.encode() not in seen:
        raise SystemExit("workers_bench: the newest generation is not in force")
    return {
        "usual_p50_ms": statistics.median(usual),
        "usual_p99_ms": statistics.quantiles(usual, n=100)[98],
        "usual_worst_ms": max(usual),
        "around_swap_p50_ms": statistics.median(around),
        "around_swap_p99_ms": statistics.quantiles(around, n=100)[98],
        "around_swap_worst_ms": statistics.median(worst_of_swaps),
    }


def stream(caller: socket.socket, bodies: list[bytes], seconds: float) -> list[float]:
    """Latencies in ms of reads one after another."""
    latencies: list[float] = []
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        before = time.perf_counter()
        ask(caller, bodies[len(latencies) % len(bodies)])
        latencies.append((time.perf_counter() - before) * 1_000)
    return latencies


def publish(store: LmdbStore, generation: int) -> None:
    """A catalog of many groups, as `apply` would."""
    document = feature_data.catalog_document(generation)
    fields = feature_data.fields(feature_data.RECORD_TYPES)
    fillers = tuple(
        Group(
            id=10 + number,
            name=f"load::filler-{number}-v1",
            feature_type="Object",
            owner="load",
            keys=(KeyField(name="user_id", type="Long"),),
            schemas=(Schema(ordinal=1, fields=fields),),
        )
        for number in range(FILLERS)
    )
    whole = msgspec.structs.replace(
        document, groups=(*document.groups, *fillers), next_group_id=10 + FILLERS
    )
    store.put(CATALOG_DOCUMENT, encode_document(whole))
    store.put(CATALOG_GENERATION, b"%d" % generation)


def ask(caller: socket.socket, body: bytes) -> bytes:
    """One read over a kept connection; raises SystemExit unless it is answered in full."""
    caller.sendall(
        b"POST /v1/read HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%b" % (len(body), body)
    )
    received = b""
    while b"\r\n\r\n" not in received:
        received += caller.recv(1 << 18)
    head, _, answer = received.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    while len(answer) < length:
        answer += caller.recv(1 << 18)
    if not head.startswith(b"HTTP/1.1 200") or b'"statuses":[]' not in answer:
        raise SystemExit(f"workers_bench: a read was answered {head[:60]!r}")
    return answer


def children(pid: int) -> list[int]:
    """Processes that a process started (proc(5))."""
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def sockets(pid: int) -> int:
    """How many sockets a process has open (proc(5))."""
    return sum("socket:" in str(place.readlink()) for place in Path(f"/proc/{pid}/fd").iterdir())


def memory(pid: int) -> dict[str, int]:
    """Resident bytes of a process, and those that no other shares (proc(5), smaps_rollup)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {
        name: int(rest.split()[0]) * 1024 for name, _, rest in (x.partition(":") for x in lines)
    }
    return {
        "rss_bytes": sizes["Rss"],
        "uss_bytes": sizes["Private_Clean"] + sizes["Private_Dirty"],
    }


if __name__ == "__main__":
    sys.exit(main())

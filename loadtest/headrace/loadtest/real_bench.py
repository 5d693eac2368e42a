"""`make bench ENGINES=real`: the production engines, as real servers on this machine.

Cached reads from Redis and reads that miss to the store, driven as in `wrk.py`; then the writer
role over Kafka and the store: its own CPU per complete command (decode, store, invalidate, commit),
and how long a command takes from the log to readable at 2,000 a second. Cassandra stands in for
ScyllaDB. The JVMs share the two cores, so only CPU of our own processes is a figure of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from headrace.cli.scylla import ScyllaEngine
from headrace.codec import Catalog, encode_commands, partition_key
from headrace.loadtest import feature_data
from headrace.loadtest.bench import free_port, keep, plan_arguments
from headrace.loadtest.servers import Server, start_cassandra, start_kafka, start_valkey
from headrace.loadtest.wrk import (
    AVRO_TYPE,
    JSON_TYPE,
    NO_WRK,
    Cell,
    Gateway,
    Plan,
    Round,
    cpu_seconds,
    drive,
    pin,
    prepare,
    report,
    show,
    wait_ready,
)
from headrace.registry.catalog import encode_document
from headrace.sync.errors import LogUnavailable
from headrace.sync.logs.kafka import KafkaCommandLog
from headrace.sync.logs.kafka_topics import create_topics
from headrace.sync.logs.kafka_url import KafkaUrl
from headrace.sync.writer import WRITER_GROUP

CACHED = [
    *(
        Cell(f"{keys} keys {form}", accept, partial(feature_data.read_body, keys))
        for form, accept in (("JSON", JSON_TYPE), ("Avro", AVRO_TYPE))
        for keys in (1, 10, 100)
    ),
    Cell("History of 50 JSON", JSON_TYPE, feature_data.history_body),
]
MISSED = [Cell("100 keys, all missed", JSON_TYPE, partial(feature_data.patient_body, 100))]
WRITER_COMMANDS = 100_000
PACED_COMMANDS_PER_S = 2_000
PACED_S = 10
STORED_PER_CALL = 2_000


class Engines(NamedTuple):
    """The servers, and the URLs that name them."""

    servers: list[Server]
    online: str
    cache: str
    commands: str


def main() -> int:
    arguments = plan_arguments("real_bench", __doc__, Path("loadtest/results/real.json"))
    if shutil.which("wrk") is None:
        print(NO_WRK, file=sys.stderr)
        return 1
    plan = Plan(arguments.rounds, arguments.seconds, arguments.connections)
    with tempfile.TemporaryDirectory(prefix="headrace-real-") as name:
        folder = Path(name)
        with _engines(folder) as engines:
            asyncio.run(load_rows(engines))
            asyncio.run(create_topics(KafkaUrl.parse(engines.commands)))
            rounds: dict[str, list[Round]] = {}
            sizes: dict[str, dict[str, float]] = {}
            for cells, cache in ((CACHED, engines.cache), (MISSED, "none")):
                with _gateway(engines, cache) as live:
                    warm(live)
                    sizes |= {cell.name: prepare(cell, live, folder) for cell in cells}
                    rounds |= drive(live, cells, folder, plan)
            written = asyncio.run(_measure_writer(engines))
    made = report(rounds, sizes, plan) | {"writer": written}
    keep(made, arguments.out)
    show(made)
    print(
        f"writer: {written['cpu_us_per_command']:.1f} µs of its own CPU a command, "
        f"{written['commands_per_cpu_second']:,.0f} commands a CPU second; readable within "
        f"{written['delay_p99_s_at_most']} s (p99) at {PACED_COMMANDS_PER_S:,} commands a second"
    )
    return 0


@contextmanager
def _engines(folder: Path) -> Generator[Engines]:
    starters: dict[str, Callable[[Path], Server]] = {
        "cassandra": start_cassandra,
        "kafka": start_kafka,
        "valkey": start_valkey,
    }
    with ThreadPoolExecutor(len(starters)) as threads:
        starting = {name: threads.submit(start, folder / name) for name, start in starters.items()}
        servers = {name: started.result() for name, started in starting.items()}
    try:
        yield Engines(
            list(servers.values()),
            online=f"scylla://127.0.0.1:{servers['cassandra'].port}/bench?replication=1",
            cache=f"redis://127.0.0.1:{servers['valkey'].port}/0",
            commands=f"kafka://127.0.0.1:{servers['kafka'].port}?prefix=bench&partitions=4",
        )
    finally:
        for server in servers.values():
            server.stop()


async def load_rows(engines: Engines, *, wide_rows: int = 0) -> None:
    """Tables, catalog and rows, as `apply` and the writer would leave them.

    With `wide_rows` also the group of 250 fields.
    """
    engine = await ScyllaEngine.open(engines.online, create=True)
    document = feature_data.catalog_document()
    if wide_rows:
        document = feature_data.with_wide_group(document)
    await engine.table_admin().create(document.groups)
    await engine.catalog_writer().publish(document)
    catalog, writer = Catalog(encode_document(document)), engine.writer()
    now_ms = feature_data.EVENT_MS + 86_400_000
    commands = itertools.chain(feature_data.sample(), feature_data.wide_sample(wide_rows))
    for batch in _batches(commands, STORED_PER_CALL):
        await writer.store(encode_commands(catalog, batch, now_ms=now_ms), catalog, now_ms=now_ms)
    await engine.close()


def _batches(commands: Iterable[bytes], size: int) -> Generator[list[bytes]]:
    waiting = iter(commands)
    while batch := list(itertools.islice(waiting, size)):
        yield batch


@contextmanager
def _gateway(engines: Engines, cache: str) -> Generator[Gateway]:
    port = free_port()
    command = [*pin(0), sys.executable, "-m", "headrace.cli", "serve", "--port", str(port)]
    command += ["--online", engines.online, "--cache", cache, "--commands", engines.commands]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_ready(port, server)
        yield Gateway(port, server.pid, tuple(each.pid for each in engines.servers))
    finally:
        server.terminate()
        server.wait(timeout=15)


def warm(live: Gateway, *, wide_rows: int = 0) -> None:
    """Read every row once, so that the cache holds them all."""
    users = range(feature_data.ROWS)
    groups = (
        (feature_data.OBJECT, users),
        (feature_data.HISTORY, users[: feature_data.HISTORIES]),
        (feature_data.WIDE, users[:wide_rows]),
    )
    for group, members in groups:
        for start in range(0, len(members), 100):
            keys = ",".join(map(str, members[start : start + 100]))
            reads = f'[{{"feature_group":"{group}","keys":{{"user_id":[{keys}]}}}}]'
            # A JVM that has just started may take longer than the gateway's own deadline.
            body = f'{{"reads":{reads},"deadline_ms":5000}}'
            request = urllib.request.Request(
                f"http://127.0.0.1:{live.port}/v1/read",
                data=body.encode(),
                headers={"Content-Type": JSON_TYPE},
            )
            with urllib.request.urlopen(request, timeout=10) as response:
                response.read()


@contextmanager
def _worker(engines: Engines, metrics_port: int) -> Generator[int]:
    """The writer role as a process; gives its id."""
    command = [*pin(0), sys.executable, "-m", "headrace.cli", "worker", "write"]
    command += ["--online", engines.online, "--cache", engines.cache]
    command += ["--commands", engines.commands, "--metrics-port", str(metrics_port)]
    worker = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield worker.pid
    finally:
        worker.terminate()
        worker.wait(timeout=15)


async def _measure_writer(engines: Engines) -> dict[str, float]:
    """Run the writer role over a backlog, then over a paced stream."""
    catalog = Catalog(encode_document(feature_data.catalog_document()))
    log = KafkaCommandLog(KafkaUrl.parse(engines.commands))
    producer, metrics_port = log.producer(), free_port()
    await producer.append("realtime", list(_fresh_commands(catalog, WRITER_COMMANDS)))
    with _worker(engines, metrics_port) as pid:
        started = time.monotonic()
        await _committed(log, WRITER_COMMANDS)
        used, elapsed = cpu_seconds(pid), time.monotonic() - started
        before = _delays(metrics_port)
        for _ in range(PACED_S * 20):
            tick = time.monotonic()
            paced = list(_fresh_commands(catalog, PACED_COMMANDS_PER_S // 20))
            await producer.append("realtime", paced)
            await asyncio.sleep(max(0.0, 0.05 - (time.monotonic() - tick)))
        await _committed(log, WRITER_COMMANDS + PACED_S * PACED_COMMANDS_PER_S)
        after = _delays(metrics_port)
    await log.close()
    return {
        "commands": WRITER_COMMANDS,
        "wall_seconds": elapsed,
        "cpu_us_per_command": used * 1e6 / WRITER_COMMANDS,
        "commands_per_cpu_second": WRITER_COMMANDS / used,
        "delay_p99_s_at_most": _quantile(before, after, 0.99),
    }


def _fresh_commands(catalog: Catalog, count: int) -> Generator[tuple[bytes, bytes]]:
    """UPDATE commands of all 20 fields for random rows, with the present as event time."""
    source = random.Random(time.time_ns())
    at_ms = time.time_ns() // 1_000_000
    for _ in range(count):
        user_id = source.randrange(feature_data.ROWS)
        command = feature_data.update(user_id, at_ms, source)
        yield partition_key(catalog, command), command


async def _committed(log: KafkaCommandLog, commands: int) -> None:
    """Wait until the writer has committed that many commands of the real-time topic."""
    consumer = log.consumer("realtime", "bench-watch")
    done = 0
    async with asyncio.timeout(300):
        while done < commands:
            await asyncio.sleep(0.05)
            # A broker that never had a group makes its offsets topic at the first question.
            with contextlib.suppress(LogUnavailable):
                done = sum((await consumer.committed(WRITER_GROUP)).values())


def _delays(metrics_port: int) -> dict[float, float]:
    """Cumulative counts by upper bound of the log delay of real-time batches."""
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=5) as answer:
        text: str = answer.read().decode()
    found = re.findall(
        r'headrace_writer_log_delay_seconds_bucket\{le="([^"]+)",topic="realtime"\} (\S+)', text
    )
    return {float(bound): float(count) for bound, count in found}


def _quantile(before: dict[float, float], after: dict[float, float], share: float) -> float:
    """The least bucket bound that holds the share of what came between."""
    came = {bound: after[bound] - before.get(bound, 0.0) for bound in sorted(after)}
    total = max(came.values())
    return next(bound for bound, count in came.items() if count >= share * total)


if __name__ == "__main__":
    sys.exit(main())

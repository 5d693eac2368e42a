"""Commands end to end on the embedded engines: append to SQLite → poll → encode → LMDB → commit.

    python -m headrace.loadtest.pipeline_bench --rows 200000 --out loadtest/results/pipeline.json

The commands are those of `writer_bench`: JSON text of 20 fields, keys in random order. One process
appends them all as a producer would, then writes them with the real writer. CPU is that of the
whole process, all threads, so a command a CPU second is a command a second and core. Making the
text is not measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry

from headrace.codec import LmdbStore, encode_commands
from headrace.loadtest.interpreter import interpreter
from headrace.loadtest.writer_bench import (
    EVENT_TIME_MS,
    batches,
    bench_catalog,
    bench_document,
    memory_bytes,
    processor,
)
from headrace.loadtest.wrk import commit
from headrace.registry.catalog import CatalogDocument, encode_document
from headrace.registry.watch import CatalogWatcher
from headrace.sync.clock import wall_clock_ms
from headrace.sync.logs.sqlite import SqliteCommandLog
from headrace.sync.stores.lmdb import LmdbOnlineWriter
from headrace.sync.telemetry import SyncTelemetry
from headrace.sync.writer import WRITER_GROUP, Writer, WriterLimits, WriterPorts

APPEND_ROWS = 2_000
STAGES = ("decode", "store", "commit")


class Phase(msgspec.Struct, frozen=True):
    """One phase over all commands."""

    wall_seconds: float
    cpu_seconds: float
    commands_per_second: int
    commands_per_cpu_second: int


class Report(msgspec.Struct, frozen=True):
    """What was measured, on what. `both` has the CPU of appending and writing together."""

    method: str
    machine: str
    python: str
    commit: str
    measured_at: str
    rows: int
    batch_rows: int
    append: Phase
    write: Phase
    commands_per_cpu_second: int
    stage_wall_seconds: dict[str, float]
    rss_anon_max_bytes: int


class FixedCatalog:
    """A `CatalogReader` of one generation."""

    def __init__(self, document: CatalogDocument) -> None:
        self._document = document

    async def generation(self) -> int:
        return self._document.generation

    async def load(self) -> bytes | None:
        return encode_document(self._document)


async def append_all(command_log: SqliteCommandLog, rows: int) -> Phase:
    """Append every command; making its text and key is left out of the figures."""
    producer, catalog = command_log.producer(), bench_catalog()
    wall = cpu = 0.0
    for payloads in batches(rows, APPEND_ROWS, EVENT_TIME_MS):
        coordinates = encode_commands(catalog, payloads, now_ms=EVENT_TIME_MS).coordinates()
        records = [(key, payloads[index]) for index, _, key, _ in coordinates]
        began, began_cpu = time.perf_counter(), time.process_time()
        await producer.append("realtime", records)
        wall += time.perf_counter() - began
        cpu += time.process_time() - began_cpu
    return _phase(rows, wall, cpu)


async def write_all(
    command_log: SqliteCommandLog, store: LmdbStore, rows: int, batch_rows: int
) -> tuple[Phase, dict[str, float], int]:
    """Run the writer until the log is committed to its end; also stage times and the most RSS."""
    registry = CollectorRegistry()
    writer = Writer(
        "realtime",
        WriterPorts(
            consumer=command_log.consumer("realtime", WRITER_GROUP),
            dead_letters=command_log.dead_letters(),
            store=LmdbOnlineWriter(store),
            catalog=CatalogWatcher(FixedCatalog(bench_document()), wall_clock_ms),
        ),
        SyncTelemetry(registry).topic("realtime"),
        limits=WriterLimits(rows_max=batch_rows, age_max_ms=5),
    )
    watching = command_log.consumer("realtime", WRITER_GROUP)
    began, began_cpu = time.perf_counter(), time.process_time()
    running = asyncio.create_task(writer.run())
    rss_anon_max = 0
    while sum((await watching.lag()).values()):
        await asyncio.wait([running], timeout=0.05)
        rss_anon_max = max(rss_anon_max, memory_bytes()[0])
    phase = _phase(rows, time.perf_counter() - began, time.process_time() - began_cpu)
    writer.stop()
    await running
    stages = {stage: _stage_seconds(registry, stage) for stage in STAGES}
    return phase, stages, rss_anon_max


def _phase(rows: int, wall_seconds: float, cpu_seconds: float) -> Phase:
    return Phase(
        wall_seconds=round(wall_seconds, 3),
        cpu_seconds=round(cpu_seconds, 3),
        commands_per_second=round(rows / wall_seconds),
        commands_per_cpu_second=round(rows / cpu_seconds),
    )


def _stage_seconds(registry: CollectorRegistry, stage: str) -> float:
    labels = {"topic": "realtime", "stage": stage}
    value = registry.get_sample_value("headrace_writer_stage_seconds_sum", labels)
    return round(value or 0.0, 3)


async def run(rows: int, batch_rows: int, folder: Path, commit: str) -> Report:
    """Append, then write, into a log and a store in `folder`."""
    command_log = SqliteCommandLog(folder / "commands.db")
    store = LmdbStore(str(folder / "online"))
    appended = await append_all(command_log, rows)
    written, stages, rss_anon_max = await write_all(command_log, store, rows, batch_rows)
    entries = store.statistics()["entries"]
    await command_log.close()
    store.close()
    if entries != rows:
        raise SystemExit(f"the store holds {entries} rows, expected {rows}")
    return Report(
        method="SqliteCommandLog.append, then Writer (poll, encode, LMDB, commit), one process",
        machine=f"{platform.machine()}, {processor()}",
        python=interpreter(),
        commit=commit,
        measured_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        rows=rows,
        batch_rows=batch_rows,
        append=appended,
        write=written,
        commands_per_cpu_second=round(rows / (appended.cpu_seconds + written.cpu_seconds)),
        stage_wall_seconds=stages,
        rss_anon_max_bytes=rss_anon_max,
    )


def main(arguments: Sequence[str]) -> None:
    """Run once and print the report; keep it where `--out` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--batch-rows", type=int, default=5_000)
    parser.add_argument("--folder", type=Path, help="where files are made; default: temporary")
    parser.add_argument("--out", type=Path, help="JSON file for the raw results")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        report = asyncio.run(run(options.rows, options.batch_rows, Path(folder), commit()))
    text = json.dumps(msgspec.to_builtins(report), indent=2)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])

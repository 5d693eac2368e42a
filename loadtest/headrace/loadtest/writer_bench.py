"""Rows of 20 fields into the embedded online store: commands a second, and memory.

    python -m headrace.loadtest.writer_bench --rows 1000000 --out loadtest/results/writer.json

Every command is JSON text that names all fields, keys in random order; the whole table is written
twice, so that the second pass replaces rows. Making the text is not measured. CPU is that of the
whole process, so a command a second and CPU second is a command a second and core. RssAnon is what
the process itself holds; the pages of LMDB's map are RssFile and given back under pressure.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import msgspec

from headrace.codec import Catalog, LmdbStore, encode_commands
from headrace.loadtest.interpreter import interpreter
from headrace.loadtest.wrk import commit
from headrace.registry.catalog import (
    CatalogDocument,
    Group,
    KeyField,
    Schema,
    ValueField,
    encode_document,
)

GROUP = "bench::user-stats-v1"
EVENT_TIME_MS = 1_700_000_000_000
SHARES = (("long", "Long", 7), ("double", "Double", 6), ("text", "Text", 4), ("flag", "Boolean", 3))
"""The 20 fields: name stem, type, how many."""
DEFAULTS: dict[str, object] = {"Long": 0, "Double": 0.0, "Text": "", "Boolean": False}
STRIDE = 7_368_787
"""A prime: keys `n × STRIDE mod rows` visit every row once, in no order that LMDB could use."""


class Pass(msgspec.Struct, frozen=True):
    """One pass over all rows."""

    commands: int
    wall_seconds: float
    encode_cpu_seconds: float
    apply_cpu_seconds: float
    commands_per_second: int
    commands_per_cpu_second: int
    rss_anon_max_bytes: int
    rss_file_max_bytes: int
    store_bytes: int


class Report(msgspec.Struct, frozen=True):
    """What was measured, on what."""

    method: str
    machine: str
    python: str
    commit: str
    measured_at: str
    load_average: float
    """Of the minute before: above 0, other processes shared the processor and the disk."""
    rows: int
    batch_rows: int
    command_bytes: float
    passes: list[Pass]


def bench_catalog() -> Catalog:
    """The compiled catalog of the bench."""
    return Catalog(encode_document(bench_document()))


def bench_document() -> CatalogDocument:
    """One Object group of 20 fields, without a ttl."""
    named = [(f"{stem}_{n}", kind) for stem, kind, number in SHARES for n in range(number)]
    fields = tuple(
        ValueField(id=at, name=name, type=kind, default=DEFAULTS[kind])
        for at, (name, kind) in enumerate(named, 1)
    )
    group = Group(
        id=1,
        name=GROUP,
        feature_type="Object",
        owner="bench",
        keys=(KeyField(name="user_id", type="Long"),),
        schemas=(Schema(ordinal=1, fields=fields),),
    )
    return CatalogDocument(generation=1, published_at_ms=EVENT_TIME_MS, groups=(group,))


def command(user: int, event_time_ms: int, random: Random) -> bytes:
    """One UPDATE that names every field."""
    values: dict[str, object] = {f"long_{n}": random.randrange(1 << (4 * n + 4)) for n in range(7)}
    values |= {f"double_{n}": round(random.random() * 10**n, 4) for n in range(6)}
    values |= {f"text_{n}": f"{random.getrandbits(20):x}" for n in range(4)}
    values |= {f"flag_{n}": random.random() < 0.5 for n in range(3)}
    values["_last_updated_at_ms"] = event_time_ms
    body = {"feature_name": GROUP, "method": "UPDATE", "keys": {"user_id": user}, "values": values}
    return msgspec.json.encode(body)


def batches(rows: int, batch_rows: int, event_time_ms: int) -> Iterator[list[bytes]]:
    """Commands for every row, made batch by batch."""
    random = Random(event_time_ms)
    for start in range(0, rows, batch_rows):
        numbers = range(start, min(start + batch_rows, rows))
        yield [command(n * STRIDE % rows, event_time_ms, random) for n in numbers]


def memory_bytes() -> tuple[int, int]:
    """RssAnon and RssFile of this process."""
    status = Path("/proc/self/status").read_text()
    lines = dict(line.split(":", 1) for line in status.splitlines() if line.startswith("Rss"))
    return (
        int(lines["RssAnon"].split()[0]) * 1024,
        int(lines["RssFile"].split()[0]) * 1024,
    )


def write_all(store: LmdbStore, catalog: Catalog, told: Iterator[list[bytes]]) -> Pass:
    """Encode and apply every batch."""
    commands, wall, encoding, applying = 0, 0.0, 0.0, 0.0
    anon_max, file_max = 0, 0
    for payloads in told:
        began, began_cpu = time.perf_counter(), time.process_time()
        batch = encode_commands(catalog, payloads, now_ms=EVENT_TIME_MS)
        encoded_cpu = time.process_time()
        store.apply(batch, catalog, now_ms=EVENT_TIME_MS)
        applying += time.process_time() - encoded_cpu
        encoding += encoded_cpu - began_cpu
        wall += time.perf_counter() - began
        if batch.rejections:
            raise SystemExit(f"a command was refused: {batch.rejections[0].message}")
        commands += len(payloads)
        anon, file = memory_bytes()
        anon_max, file_max = max(anon_max, anon), max(file_max, file)
    return Pass(
        commands=commands,
        wall_seconds=round(wall, 3),
        encode_cpu_seconds=round(encoding, 3),
        apply_cpu_seconds=round(applying, 3),
        commands_per_second=round(commands / wall),
        commands_per_cpu_second=round(commands / (encoding + applying)),
        rss_anon_max_bytes=anon_max,
        rss_file_max_bytes=file_max,
        store_bytes=store.statistics()["used_bytes"],
    )


def run(rows: int, batch_rows: int, folder: Path, commit: str) -> Report:
    """Write the table twice into a store in `folder`."""
    catalog, load_average = bench_catalog(), os.getloadavg()[0]
    store = LmdbStore(str(folder))
    passes = [
        write_all(store, catalog, batches(rows, batch_rows, EVENT_TIME_MS + number))
        for number in (0, 1)
    ]
    entries = store.statistics()["entries"]
    store.close()
    if entries != rows:
        raise SystemExit(f"the store holds {entries} rows, expected {rows}")
    sample = next(batches(rows, min(batch_rows, rows), EVENT_TIME_MS))
    return Report(
        method="encode_commands + LmdbStore.apply, one process, keys in random order, two passes",
        machine=f"{platform.machine()}, {processor()}",
        python=interpreter(),
        commit=commit,
        measured_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        load_average=round(load_average, 2),
        rows=rows,
        batch_rows=batch_rows,
        command_bytes=round(sum(map(len, sample)) / len(sample), 1),
        passes=passes,
    )


def main(arguments: Sequence[str]) -> None:
    """Run once and print the report; keep it where `--out` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--batch-rows", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="where the store is made; default: temporary")
    parser.add_argument("--out", type=Path, help="JSON file for the raw results")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        report = run(options.rows, options.batch_rows, Path(folder), commit())
    text = json.dumps(msgspec.to_builtins(report), indent=2)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")


def processor() -> str:
    """Name of this machine's processor."""
    cpus = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in cpus if line.startswith("model name")]
    return names[0] if names else "unknown processor"


if __name__ == "__main__":
    main(sys.argv[1:])

"""`make bench-scaling`: that a read costs the same whatever else is registered and stored.

    python -m headrace.loadtest.scaling_bench [--quick] [--rows-max 10000000]

The read path alone, as the lane calls it: body bytes in, response bytes out, over LMDB, in one
process. Curves: feature groups registered, rows stored, fields of a group at 20 requested, keys of
a request. Every case is prepared first; then rounds run them all in shuffled order, each until
`ROUND_SECONDS` of its CPU time have passed. Medians of CPU time a request over the rounds are told.

What more rows cost is memory, not work: 10 of 50 rows that are read again and again take a tenth
longer among a million than among 10,000; random ones wait for about ten cache lines each.

How the gateway process fares over Valkey as cached rows grow is measured by `cached_scaling.py`.
"""

# pyarrow has no types.
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa

from headrace.codec import Catalog, LmdbStore, ReadEngine, encode_columns, encode_commands
from headrace.gateway.negotiation import accepted
from headrace.gateway.stores.lmdb_reads import LmdbReads
from headrace.loadtest import cached_scaling, feature_data
from headrace.loadtest.bench import keep
from headrace.loadtest.wrk import AVRO_TYPE, JSON_TYPE, NO_WRK, commit, machine
from headrace.registry.catalog import (
    CatalogDocument,
    Group,
    KeyField,
    Schema,
    ValueField,
    encode_document,
)

ROUND_SECONDS = 0.05
BODIES = 200
ROWS_A_CHUNK = 100_000
NOW_MS = feature_data.EVENT_MS + 3_600_000
GROUPS = (1, 10, 100, 1_000, 10_000)
ROWS = (10_000, 100_000, 1_000_000, 10_000_000)
CACHED_ROWS = (10_000, 100_000, 1_000_000)
QUICK_ROWS_MAX = 100_000
CACHED_ROUNDS = 7
FIELDS = (20, 50, 100, 250, 500)
KEYS = (1, 10, 100, 1_000)
REQUESTED = 20
USER_KEY = (KeyField(name="user_id", type="Long"),)


class Case(NamedTuple):
    """One point of one curve."""

    curve: str
    size: int
    reads: LmdbReads
    bodies: Sequence[bytes]
    accept: bytes
    values: int
    """Values that one answer holds."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="scaling_bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--rows-max", type=int, default=ROWS[-1])
    parser.add_argument("--out", type=Path, default=Path("loadtest/results/scaling.json"))
    parser.add_argument("--quick", action="store_true", help="few rounds, at most 100,000 rows")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        print(NO_WRK, file=sys.stderr)
        return 1
    if arguments.quick:
        arguments.rounds = min(arguments.rounds, 3)
        arguments.rows_max = min(arguments.rows_max, QUICK_ROWS_MAX)
    with (
        tempfile.TemporaryDirectory(prefix="headrace-scaling-") as name,
        ExitStack() as stores,
    ):
        cases = prepare(Path(name), arguments.rows_max, stores)
        rounds = measure(cases, arguments.rounds)
    curves: dict[str, list[dict[str, float]]] = {}
    for case, times in zip(cases, rounds, strict=True):
        point = {
            "size": case.size,
            "cpu_us": statistics.median(times),
            "least_us": min(times),
            "values": case.values,
        }
        curves.setdefault(case.curve, []).append(point)
    sizes = [rows for rows in CACHED_ROWS if rows <= arguments.rows_max]
    cached_rounds = min(arguments.rounds, CACHED_ROUNDS)
    cached = cached_scaling.measure(small_document(), sizes, cached_rounds, seconds=1)
    made: dict[str, object] = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "method": {"rounds": arguments.rounds, "seconds": ROUND_SECONDS, "bodies": BODIES},
        "curves": curves,
        "cached": {"rounds": cached_rounds, "seconds": 1, "points": cached},
    }
    keep(made, arguments.out)
    show(curves)
    cached_scaling.show(cached)
    return 0


def prepare(folder: Path, rows_max: int, stores: ExitStack) -> list[Case]:
    """Every case, its store loaded and its answer checked."""
    feature_data.write_store(folder / "records")
    records = opened(folder / "records", stores)
    cases = [groups_case(records, groups) for groups in GROUPS]
    cases += [keys_case(records, keys, form) for form in ("JSON", "Avro") for keys in KEYS]
    for rows in (rows for rows in ROWS if rows <= rows_max):
        cases.append(rows_case(opened(folder / f"rows-{rows}", stores), rows))
    for fields in FIELDS:
        cases.append(fields_case(opened(folder / f"fields-{fields}", stores), fields))
    for case in cases:
        check(case)
    return cases


def opened(folder: Path, stores: ExitStack) -> LmdbStore:
    store = LmdbStore(str(folder))
    stores.callback(store.close)
    return store


def measure(cases: Sequence[Case], rounds: int) -> list[list[float]]:
    """CPU µs a request of each case, round by round."""
    order = random.Random(5)
    times: list[list[float]] = [[] for _ in cases]
    for number in range(rounds + 1):
        shuffled = list(enumerate(cases))
        order.shuffle(shuffled)
        for position, case in shuffled:
            spent_us = once(case)
            if number:  # the first round warms up
                times[position].append(spent_us)
        print(f"\rround {number} of {rounds}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return times


def once(case: Case) -> float:
    """CPU µs a request over one round."""
    accept = accepted(case.accept)
    read = partial(
        case.reads.read, accept=accept, now_ms=NOW_MS, request_id=b"scaling-1", keep_alive=True
    )
    requests, began = 0, time.process_time()
    while (spent := time.process_time() - began) < ROUND_SECONDS:
        for body in itertools.islice(itertools.cycle(case.bodies), requests % BODIES, None):
            read(body)
            requests += 1
            if requests % 16 == 0:
                break
    return spent * 1e6 / requests


def check(case: Case) -> None:
    """Raise unless the answer holds the values that the curve counts."""
    response = case.reads.read(
        case.bodies[0],
        accept=accepted(JSON_TYPE.encode()),
        now_ms=NOW_MS,
        request_id=b"check",
        keep_alive=True,
    )
    answer = response.partition(b"\r\n\r\n")[2]
    if (
        feature_data.values_in(answer) != case.values
        or json.loads(answer)["results"][0]["statuses"]
    ):
        raise SystemExit(f"scaling_bench: {case.curve} {case.size} answers {answer[:200]!r}")


def groups_case(store: LmdbStore, count: int) -> Case:
    """10 keys of one group, among `count` registered ones."""
    document = feature_data.catalog_document()
    fillers = tuple(
        group(
            10 + number, f"load::filler-{number}-v1", feature_data.fields(feature_data.RECORD_TYPES)
        )
        for number in range(count - 1)
    )
    bodies = bodies_of(feature_data.OBJECT, 10, feature_data.ROWS)
    reads = engine_over(
        store, msgspec.structs.replace(document, groups=(*document.groups, *fillers))
    )
    return Case("groups", count, reads, bodies, JSON_TYPE.encode(), 10 * 20)


def keys_case(store: LmdbStore, keys: int, form: str) -> Case:
    """A request of so many keys, 20 fields each."""
    accept = JSON_TYPE if form == "JSON" else AVRO_TYPE
    reads = engine_over(store, feature_data.catalog_document())
    bodies = bodies_of(feature_data.OBJECT, keys, feature_data.ROWS)
    return Case(f"keys, {form}", keys, reads, bodies, accept.encode(), keys * 20)


def rows_case(store: LmdbStore, rows: int) -> Case:
    """10 keys of one group of so many rows of 4 numbers."""
    document = small_document()
    name, fields = document.groups[0].name, document.groups[0].schemas[0].fields
    catalog = Catalog(encode_document(document))
    for start in range(0, rows, ROWS_A_CHUNK):
        chunk = pa.table(
            {
                "user_id": range(start, min(rows, start + ROWS_A_CHUNK)),
                **{field.name: range(start, min(rows, start + ROWS_A_CHUNK)) for field in fields},
            }
        )
        load(
            store,
            catalog,
            encode_columns(
                catalog, name, stream(chunk), method="UPDATE", event_time_ms=feature_data.EVENT_MS
            ),
        )
        print(f"\rloading {start + chunk.num_rows:,} of {rows:,} rows", end="", file=sys.stderr)
    print(file=sys.stderr)
    bodies = bodies_of(name, 10, rows)
    return Case("rows", rows, engine_over(store, document), bodies, JSON_TYPE.encode(), 10 * 4)


def small_document() -> CatalogDocument:
    """One group of 4 numbers."""
    fields = tuple(
        ValueField(id=number, name=f"f{number}", type="Long", default=0) for number in range(1, 5)
    )
    return one_group(group(1, "load::small-v1", fields))


def fields_case(store: LmdbStore, count: int) -> Case:
    """100 keys, 20 evenly spread fields of a group of so many Longs."""
    name, rows = "load::wide-v1", 1_000
    fields = tuple(
        ValueField(id=number, name=f"f{number}", type="Long", default=0)
        for number in range(1, count + 1)
    )
    document = one_group(group(1, name, fields))
    catalog = Catalog(encode_document(document))
    source = random.Random(9)
    table = pa.table(
        {
            "user_id": range(rows),
            **{field.name: [source.randrange(1_000_000) for _ in range(rows)] for field in fields},
        }
    )
    load(
        store,
        catalog,
        encode_columns(
            catalog, name, stream(table), method="UPDATE", event_time_ms=feature_data.EVENT_MS
        ),
    )
    step = count // REQUESTED
    wanted = [fields[position * step].name for position in range(REQUESTED)]
    bodies = bodies_of(name, 100, rows, wanted)
    reads = engine_over(store, document)
    return Case("fields", count, reads, bodies, JSON_TYPE.encode(), 100 * REQUESTED)


def group(group_id: int, name: str, fields: tuple[ValueField, ...]) -> Group:
    return Group(
        id=group_id,
        name=name,
        feature_type="Object",
        owner="load",
        keys=USER_KEY,
        schemas=(Schema(ordinal=1, fields=fields),),
    )


def one_group(only: Group) -> CatalogDocument:
    return CatalogDocument(
        generation=1, published_at_ms=feature_data.EVENT_MS, groups=(only,), next_group_id=2
    )


def engine_over(store: LmdbStore, document: CatalogDocument) -> LmdbReads:
    """A read engine of its own under this catalog."""
    reads = LmdbReads(ReadEngine(), store)
    reads.install(Catalog(encode_document(document)))
    return reads


def load(store: LmdbStore, catalog: Catalog, commands: Sequence[tuple[bytes, bytes]]) -> None:
    """Apply bulk commands in batches."""
    for batch in batches([command for _, command in commands]):
        encoded = encode_commands(catalog, batch, now_ms=NOW_MS)
        if encoded.rejections:
            raise SystemExit(f"scaling_bench: refused: {encoded.rejections[0].message}")
        store.apply(encoded, catalog, now_ms=NOW_MS)


def batches(commands: Sequence[bytes], size: int = 50_000) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(commands), size):
        yield commands[start : start + size]


def stream(table: pa.Table) -> bytes:
    """As an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def bodies_of(name: str, keys: int, rows: int, fields: Sequence[str] | None = None) -> list[bytes]:
    """Requests for random rows."""
    source = random.Random(f"{name}-{keys}-{rows}")
    read: dict[str, object] = {"feature_group": name}
    if fields is not None:
        read["fields"] = fields
    return [
        msgspec.json.encode(
            {
                "reads": [
                    {**read, "keys": {"user_id": [source.randrange(rows) for _ in range(keys)]}}
                ]
            }
        )
        for _ in range(BODIES)
    ]


def show(curves: dict[str, list[dict[str, float]]]) -> None:
    for curve, points in curves.items():
        first = points[0]
        for point in points:
            print(
                f"{curve:<12}{point['size']:>12,.0f}{point['cpu_us']:>10.2f} µs"
                f"{point['cpu_us'] / first['cpu_us']:>8.2f} x"
                f"{point['cpu_us'] * 1_000 / point['values']:>9.1f} ns a value"
            )


if __name__ == "__main__":
    sys.exit(main())

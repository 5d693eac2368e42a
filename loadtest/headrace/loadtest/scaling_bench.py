"""`make bench-scaling`: that a read costs the same whatever else is registered and stored.

    python -m headrace.loadtest.scaling_bench [--quick] [--rows-max 10000000]

The read path alone, as the lane calls it: body bytes in, response bytes out, over LMDB, in one
process. Curves: feature groups registered, rows stored, fields of a group at 20 requested, keys of
a request. Every case is prepared first; then rounds run them all in shuffled order, each until
`ROUND_SECONDS` of its CPU time have passed. Medians of CPU time a request over the rounds are told.

What more rows cost in LMDB is memory, not work: of two curves by rows, one reads 50 of them again
and again, one 2,000 of them, each of which waits for about ten cache lines. What more fields cost
is told apart from their bytes, which are moved and checked whatever is asked for: beside each group
of many numbers stands one of as many bytes and 20 numbers.

How the gateway process fares over Valkey as cached rows grow is measured by `cached_scaling.py`,
at one rate of requests for all sizes.
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
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa

from headrace.codec import Catalog, CommandBatch, LmdbStore, ReadEngine
from headrace.gateway.negotiation import accepted
from headrace.gateway.stores.lmdb_reads import LmdbReads
from headrace.loadtest import cached_scaling, feature_data, open_loop, scaling_rows
from headrace.loadtest.bench import keep
from headrace.loadtest.scaling_rows import NOW_MS, LoadingBar, asked
from headrace.loadtest.wrk import AVRO_TYPE, JSON_TYPE, NO_WRK, commit, machine
from headrace.registry.catalog import CatalogDocument, ValueField, encode_document

ROUND_SECONDS = 0.05
BODIES = 200
GROUPS = (1, 10, 100, 1_000, 10_000)
ROWS = (10_000, 100_000, 1_000_000, 10_000_000)
QUICK_ROWS_MAX = 100_000
CACHED_ROUNDS = 9
CACHED_SECONDS = 1
FIELDS = (20, 50, 100, 250, 500)
KEYS = (1, 10, 100, 1_000)
REQUESTED = 20
FEW_ROWS = 50
WIDE_ROWS = 1_000
WIDE_KEYS = 100
LONG_MAX = 1_000_000
LONG_BYTES = 3
"""Of nearly all numbers below that, in a record."""


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
    open_loop.generator_path()  # Or say now that it is missing.
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
    sizes = [rows for rows in ROWS if rows <= arguments.rows_max]
    cached_rounds = min(arguments.rounds, CACHED_ROUNDS)
    cached = cached_scaling.measure(sizes, cached_rounds, CACHED_SECONDS)
    made: dict[str, object] = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "method": {
            "rounds": arguments.rounds,
            "seconds": ROUND_SECONDS,
            "bodies": BODIES,
            "wide_keys": WIDE_KEYS,
        },
        "curves": curves,
        "cached": cached,
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
        cases += rows_cases(opened(folder / f"rows-{rows}", stores), rows)
    for fields in FIELDS:
        for curve, wide in (("fields", wide_numbers(fields)), ("bytes", wide_text(fields))):
            store = opened(folder / f"{curve}-{fields}", stores)
            cases.append(wide_case(curve, fields, store, wide))
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
    fields = feature_data.fields(feature_data.RECORD_TYPES)
    fillers = tuple(
        scaling_rows.group(10 + number, f"load::filler-{number}-v1", fields)
        for number in range(count - 1)
    )
    bodies = bodies_of(feature_data.OBJECT, range(feature_data.ROWS), 10)
    reads = engine_over(
        store, msgspec.structs.replace(document, groups=(*document.groups, *fillers))
    )
    return Case("groups", count, reads, bodies, JSON_TYPE.encode(), 10 * 20)


def keys_case(store: LmdbStore, keys: int, form: str) -> Case:
    """A request of so many keys, 20 fields each."""
    accept = JSON_TYPE if form == "JSON" else AVRO_TYPE
    reads = engine_over(store, feature_data.catalog_document())
    bodies = bodies_of(feature_data.OBJECT, range(feature_data.ROWS), keys)
    return Case(f"keys, {form}", keys, reads, bodies, accept.encode(), keys * 20)


def rows_cases(store: LmdbStore, rows: int) -> list[Case]:
    """10 keys of one group of so many rows of 4 numbers: of all rows, and of the same few."""
    document = scaling_rows.document()
    only, catalog = document.groups[0], Catalog(encode_document(document))
    ids = scaling_rows.users(rows)
    bar = LoadingBar("LMDB", rows)
    for chunk in scaling_rows.chunks(ids):
        store.apply(scaling_rows.encoded(catalog, only, chunk), catalog, now_ms=NOW_MS)
        bar.show(chunk.stop - ids.start)
    reads = engine_over(store, document)
    few = random.Random(rows).sample(ids, FEW_ROWS)
    return [
        Case(curve, rows, reads, bodies_of(only.name, among, 10), JSON_TYPE.encode(), 10 * 4)
        for curve, among in ((f"rows, {FEW_ROWS} of them", few), ("rows, any", ids))
    ]


class Wide(NamedTuple):
    """A group of many fields, and the 20 that are asked for."""

    fields: tuple[ValueField, ...]
    columns: Mapping[str, Sequence[int] | Sequence[str]]
    wanted: Sequence[str]


def wide_numbers(count: int) -> Wide:
    """So many Longs; those that are asked for are evenly spread, the last one among them."""
    fields = _longs(count)
    places = [(number + 1) * count // REQUESTED - 1 for number in range(REQUESTED)]
    return Wide(fields, _numbers(fields), [fields[place].name for place in places])


def wide_text(count: int) -> Wide:
    """20 Longs, all asked for, around a Text as long as the others are together: what is left when
    nothing but one field is skipped.
    """
    longs = _longs(REQUESTED)
    padding = ValueField(id=REQUESTED + 1, name="padding", type="Text", default="")
    middle = REQUESTED // 2
    return Wide(
        (*longs[:middle], padding, *longs[middle:]),
        _numbers(longs) | {"padding": ["x" * (LONG_BYTES * (count - REQUESTED))] * WIDE_ROWS},
        [field.name for field in longs],
    )


def _longs(count: int) -> tuple[ValueField, ...]:
    return tuple(
        ValueField(id=number, name=f"f{number}", type="Long", default=0)
        for number in range(1, count + 1)
    )


def _numbers(fields: Sequence[ValueField]) -> dict[str, Sequence[int] | Sequence[str]]:
    source = random.Random(9)
    return {field.name: [source.randrange(LONG_MAX) for _ in range(WIDE_ROWS)] for field in fields}


def wide_batch(wide: Wide) -> tuple[CatalogDocument, Catalog, CommandBatch]:
    """The catalog of such a group alone, and all its rows."""
    document = scaling_rows.one_group(scaling_rows.group(1, "load::wide-v1", wide.fields))
    catalog = Catalog(encode_document(document))
    table = pa.table({"user_id": range(WIDE_ROWS), **wide.columns})
    return document, catalog, scaling_rows.encoded_table(catalog, "load::wide-v1", table)


def wide_case(curve: str, count: int, store: LmdbStore, wide: Wide) -> Case:
    """100 keys, 20 fields of such a group."""
    document, catalog, batch = wide_batch(wide)
    store.apply(batch, catalog, now_ms=NOW_MS)
    bodies = bodies_of(document.groups[0].name, range(WIDE_ROWS), WIDE_KEYS, wide.wanted)
    reads = engine_over(store, document)
    return Case(curve, count, reads, bodies, JSON_TYPE.encode(), WIDE_KEYS * REQUESTED)


def engine_over(store: LmdbStore, document: CatalogDocument) -> LmdbReads:
    """A read engine of its own under this catalog."""
    reads = LmdbReads(ReadEngine(), store)
    reads.install(Catalog(encode_document(document)))
    return reads


def bodies_of(
    name: str, ids: Sequence[int], keys: int, fields: Sequence[str] | None = None
) -> list[bytes]:
    """Requests for random rows."""
    return [scaling_rows.body(name, each, fields) for each in asked(ids, BODIES, keys)]


def show(curves: dict[str, list[dict[str, float]]]) -> None:
    for curve, points in curves.items():
        first = points[0]
        for point in points:
            print(
                f"{curve:<18}{point['size']:>12,.0f}{point['cpu_us']:>10.2f} µs"
                f"{point['cpu_us'] / first['cpu_us']:>8.2f} x"
                f"{point['cpu_us'] * 1_000 / point['values']:>9.1f} ns a value"
            )


if __name__ == "__main__":
    sys.exit(main())

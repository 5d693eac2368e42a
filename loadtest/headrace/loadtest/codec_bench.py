"""Stored Avro to JSON and to Python values: our codec and fastavro, on the same bytes in one run.

    python -m headrace.loadtest.codec_bench --build release --out loadtest/results/codec.json

All contenders read the same 200 records (and 50 events of a History); before anything is measured
their answers are checked to be equal. Rounds are interleaved in a new random order each; a round
repeats one contender until 10 ms have passed, and the median over rounds of its CPU time per record
is told, with the least. Ours is the whole call from Python: cells opened, each checksum checked,
the answer a new `bytes` object; fastavro is given bodies. What the transcode alone takes, without
all that, is told by `cargo bench -p headrace-codec --bench transcode`, beside another crate.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import cast

import fastavro
import msgspec

from headrace.codec import Catalog, encode_commands
from headrace.loadtest.interpreter import interpreter
from headrace.loadtest.writer_bench import processor
from headrace.registry.catalog import (
    CatalogDocument,
    Group,
    KeyField,
    Schema,
    ValueField,
    encode_document,
)

FLAT, NULLABLE, HISTORY = "bench::flat", "bench::nullable", "bench::history"
RECORDS, EVENTS = 200, 50
"""Few enough that an answer stays below the size from which malloc maps fresh pages for it."""
EVENT_TIME_MS = 1_700_000_000_000
ROUND_SECONDS = 0.01
CELL_HEADER_BYTES, SINGLE_OBJECT_HEADER_BYTES = 13, 10
HISTORY_BLOCK_BYTES, BLOCK_EVENT_BYTES = 32, 22
"""What a History block adds in all and per event (`rust_codec/core/src/format.rs`)."""

RECORD_FIELDS = {
    "rides_total": "Long",
    "rating_mean": "Double",
    "country_code": "Text",
    "is_premium": "Boolean",
    "rides_week": "Long",
    "rating_7d": "Double",
    "language": "Text",
    "followers": "Long",
    "spend_mean": "Double",
    "is_verified": "Boolean",
    "likes_total": "Long",
    "spend_7d": "Double",
    "city": "Text",
    "level": "Long",
    "risk_score": "Double",
    "has_photo": "Boolean",
    "session_s": "Long",
    "distance_km": "Double",
    "device": "Text",
    "friends": "Long",
}
"""The 20-field record: 7 longs, 6 doubles, 4 texts, 3 booleans."""
EVENT_FIELDS = {
    "room_id": "Long",
    "score": "Double",
    "watch_s": "Double",
    "peer_country": "Text",
    "clicked": "Boolean",
    "position": "Long",
}
DEFAULTS: dict[str, object] = {"Long": 0, "Double": 0.0, "Text": "", "Boolean": False}

Contender = Callable[[], object]


class Timing(msgspec.Struct, frozen=True):
    """CPU nanoseconds per record (or event) of one contender."""

    median_ns: float
    minimum_ns: float
    rounds: int


class Sizes(msgspec.Struct, frozen=True):
    """Mean bytes of one record, or of one History of 50 events."""

    json: float
    avro_body: float
    cell: float
    block: float
    avro_saves_percent: float


class Report(msgspec.Struct, frozen=True):
    """What was measured, on what."""

    method: str
    machine: str
    build: str
    python: str
    fastavro: str
    msgspec: str
    commit: str
    measured_at: str
    sizes: dict[str, Sizes]
    timings: dict[str, dict[str, Timing]]
    ratios: dict[str, float]


class Sample(msgspec.Struct, frozen=True):
    """One group's stored cells, and how fastavro reads their bodies."""

    group: str
    cells: list[bytes]
    bodies: list[bytes]
    schema: dict[str, object]


def bench_catalog() -> Catalog:
    """Two Objects of 20 fields, one of them all nullable, and a History."""
    groups = [
        _group(1, FLAT, RECORD_FIELDS, nullable=False),
        _group(2, NULLABLE, RECORD_FIELDS, nullable=True),
        _group(3, HISTORY, EVENT_FIELDS, nullable=False),
    ]
    document = CatalogDocument(generation=1, published_at_ms=EVENT_TIME_MS, groups=tuple(groups))
    return Catalog(encode_document(document))


def _group(number: int, name: str, fields: Mapping[str, str], *, nullable: bool) -> Group:
    values = tuple(
        ValueField(
            id=at,
            name=field,
            type=kind,
            nullable=nullable,
            default=None if nullable else DEFAULTS[kind],
        )
        for at, (field, kind) in enumerate(fields.items(), 1)
    )
    return Group(
        id=number,
        name=name,
        feature_type="History" if name == HISTORY else "Object",
        owner="bench",
        keys=(KeyField(name="user_id", type="Long"),),
        schemas=(Schema(ordinal=1, fields=values),),
    )


def sample(catalog: Catalog, group: str) -> Sample:
    """The cells that commands of this group become, the same in every run."""
    random = Random(group)
    history, nullable = group == HISTORY, group == NULLABLE
    fields = EVENT_FIELDS if history else RECORD_FIELDS
    payloads: list[bytes] = []
    for number in range(EVENTS if history else RECORDS):
        values = {name: _value(kind, random, nullable=nullable) for name, kind in fields.items()}
        command = {
            "feature_name": group,
            "method": "APPEND" if history else "UPDATE",
            "keys": {"user_id": 1 if history else number},
            "values": values | {"_last_updated_at_ms": EVENT_TIME_MS + number},
        }
        payloads.append(msgspec.json.encode(command))
    batch = encode_commands(catalog, payloads, now_ms=EVENT_TIME_MS + 60_000)
    if batch.rejections:
        raise SystemExit(f"a command was refused: {batch.rejections[0].message}")
    cells = [mutation.cell for mutation in batch.mutations()]
    header = CELL_HEADER_BYTES + SINGLE_OBJECT_HEADER_BYTES
    schema = json.loads(catalog.avro_schema(catalog.fingerprint(group)) or "null")
    parsed = cast(dict[str, object], fastavro.parse_schema(schema))
    return Sample(group, cells, [cell[header:] for cell in cells], parsed)


def _value(kind: str, random: Random, *, nullable: bool) -> object:
    if nullable and random.random() < 0.1:
        return None
    if kind == "Long":
        return random.randrange(1 << random.randrange(1, 24))
    if kind == "Double":
        return random.random() * 1000
    if kind == "Boolean":
        return random.random() < 0.5
    return "".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=random.randrange(2, 14)))


def contenders(catalog: Catalog, given: Sample) -> dict[str, Contender]:
    """Each turns the whole sample into its answer."""
    group, cells, bodies, schema = given.group, given.cells, given.bodies, given.schema
    read, encode = fastavro.schemaless_reader, msgspec.json.Encoder().encode

    def with_fastavro() -> Sequence[object]:
        return [read(io.BytesIO(body), schema, None) for body in bodies]

    def to_values() -> list[object]:
        return [catalog.decode_event(group, cell)[1] for cell in cells]

    return {
        "headrace to JSON objects": lambda: catalog.transcode(group, cells, None, layout="objects"),
        "headrace to JSON rows": lambda: catalog.transcode(group, cells, None, layout="rows"),
        "headrace to Python values": to_values,
        "fastavro to Python values": with_fastavro,
        "fastavro to JSON objects by msgspec": lambda: encode(with_fastavro()),
    }


def check_equal(answers: Mapping[str, Contender]) -> None:
    """Every contender gives the same values; raises SystemExit when not."""
    wanted = answers["fastavro to Python values"]()
    rows = [list(cast(dict[str, object], record).values()) for record in cast(list[object], wanted)]
    for name, answer in answers.items():
        given = answer()
        found = json.loads(given) if isinstance(given, bytes) else given
        if found != (rows if name.endswith("rows") else wanted):
            raise SystemExit(f"`{name}` answers other values")


def measure(answers: Mapping[str, Contender], records: int, rounds: int) -> dict[str, Timing]:
    """CPU time per record, interleaved."""
    random = Random(0)
    spent: dict[str, list[float]] = {name: [] for name in answers}
    for _ in range(rounds):
        for name in random.sample(list(answers), len(answers)):
            spent[name].append(_round_ns(answers[name]) / records)
    return {
        name: Timing(round(statistics.median(times), 1), round(min(times), 1), rounds)
        for name, times in spent.items()
    }


def _round_ns(answer: Contender) -> float:
    calls, began = 0, time.process_time_ns()
    while (passed := time.process_time_ns() - began) < ROUND_SECONDS * 1e9:
        answer()
        calls += 1
    return passed / calls


def sizes(catalog: Catalog, given: Sample) -> Sizes:
    """Bytes of the forms that one record (or History) takes."""
    history = given.group == HISTORY
    divisor = 1 if history else len(given.cells)
    text = catalog.transcode(given.group, given.cells, None, layout="objects")
    avro = sum(map(len, given.bodies))
    if history:
        block = HISTORY_BLOCK_BYTES + avro + BLOCK_EVENT_BYTES * len(given.cells)
    else:
        key = catalog.encode_key(given.group, {"user_id": 1})
        folded = [
            catalog.fold_object(given.group, [(0, cell)], delete_timestamp=None, now_ms=0)
            for cell in given.cells
        ]
        block = sum(len(record.block(key)) for record in folded if record is not None)
    shown = len(text) - len(given.cells) - 1  # The outer array's brackets and commas.
    return Sizes(
        json=shown / divisor,
        avro_body=avro / divisor,
        cell=sum(map(len, given.cells)) / divisor,
        block=block / divisor,
        avro_saves_percent=round(100 * (1 - avro / shown), 1),
    )


def run(rounds: int, build: str, commit: str) -> Report:
    """Check, then measure all samples."""
    catalog = bench_catalog()
    samples = [sample(catalog, group) for group in (FLAT, NULLABLE, HISTORY)]
    timings: dict[str, dict[str, Timing]] = {}
    for given in samples:
        answers = contenders(catalog, given)
        check_equal(answers)
        timings[given.group] = measure(answers, len(given.cells), rounds)
    slow, quick = "fastavro to JSON objects by msgspec", "headrace to JSON objects"
    return Report(
        method=(__doc__ or "").partition("\n\n")[2].partition("\n\n")[2].replace("\n", " ").strip(),
        machine=f"{platform.machine()}, {processor()}",
        build=build,
        python=interpreter(),
        fastavro=fastavro.__version__,
        msgspec=msgspec.__version__,
        commit=commit,
        measured_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        sizes={given.group: sizes(catalog, given) for given in samples},
        timings=timings,
        ratios={
            group: round(times[slow].median_ns / times[quick].median_ns, 1)
            for group, times in timings.items()
        },
    )


def main(arguments: Sequence[str]) -> None:
    """Run once and print the report; keep it where `--out` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--build", required=True, help="cargo profile that the codec is built with")
    parser.add_argument("--out", type=Path, help="JSON file for the raw results")
    options = parser.parse_args(arguments)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    report = run(options.rounds, options.build, commit.stdout.strip())
    text = json.dumps(msgspec.to_builtins(report), indent=2)
    print(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])

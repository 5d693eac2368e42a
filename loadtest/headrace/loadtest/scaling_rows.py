"""The rows of the scaling curves: one group of 4 numbers, however many rows of it are stored.

Ids and values have eight digits at every size, so that requests and answers are equally long.
"""

# pyarrow has no types.
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TextIO

import msgspec
import numpy as np
import pyarrow as pa

from headrace.codec import Catalog, CommandBatch, encode_columns, encode_commands
from headrace.loadtest import feature_data
from headrace.registry.catalog import CatalogDocument, Group, KeyField, Schema, ValueField

FIRST_USER = 10_000_000
ROWS_MAX = 90_000_000
"""More would need ids of nine digits."""
ROWS_A_CHUNK = 50_000
NOW_MS = feature_data.EVENT_MS + 3_600_000
BAR_CELLS = 24
BAR_INTERVAL_S = 0.2


class LoadingBar:
    """How many rows are loaded, and how many a second, on one line of stderr."""

    def __init__(self, what: str, rows: int, out: TextIO = sys.stderr) -> None:
        self._what, self._rows, self._out = what, rows, out
        self._began_s = time.monotonic()
        self._shown_s = 0.0

    def show(self, loaded: int) -> None:
        """Say that so many are loaded; the last call is the one that names all."""
        now_s = time.monotonic()
        ended = loaded >= self._rows
        if not ended and now_s - self._shown_s < BAR_INTERVAL_S:
            return
        self._shown_s = now_s
        filled = BAR_CELLS * loaded // self._rows
        bar = "█" * filled + "░" * (BAR_CELLS - filled)
        rate = loaded / max(1e-9, now_s - self._began_s)
        line = f"\r{bar} {self._what}: {loaded:,} of {self._rows:,} rows, {rate:,.0f} a second"
        print(line, end="\x1b[K\n" if ended else "\x1b[K", file=self._out, flush=True)


def document() -> CatalogDocument:
    """One group of 4 numbers."""
    fields = tuple(
        ValueField(id=number, name=f"f{number}", type="Long", default=0) for number in range(1, 5)
    )
    return one_group(group(1, "load::small-v1", fields))


def group(group_id: int, name: str, fields: tuple[ValueField, ...]) -> Group:
    return Group(
        id=group_id,
        name=name,
        feature_type="Object",
        owner="load",
        keys=(KeyField(name="user_id", type="Long"),),
        schemas=(Schema(ordinal=1, fields=fields),),
    )


def one_group(only: Group) -> CatalogDocument:
    return CatalogDocument(
        generation=1, published_at_ms=feature_data.EVENT_MS, groups=(only,), next_group_id=2
    )


def users(rows: int) -> range:
    """The ids of so many rows."""
    if rows > ROWS_MAX:
        raise SystemExit(f"scaling_bench: at most {ROWS_MAX:,} rows have ids of equal length")
    return range(FIRST_USER, FIRST_USER + rows)


def chunks(ids: range) -> Iterator[range]:
    for start in range(0, len(ids), ROWS_A_CHUNK):
        yield ids[start : start + ROWS_A_CHUNK]


def encoded(catalog: Catalog, only: Group, ids: range) -> CommandBatch:
    """An UPDATE of each row, all of whose values are its id."""
    column = pa.array(np.arange(ids.start, ids.stop))
    names = [field.name for field in only.schemas[-1].fields]
    table = pa.table({"user_id": column, **dict.fromkeys(names, column)})
    return encoded_table(catalog, only.name, table)


def encoded_table(catalog: Catalog, name: str, table: pa.Table) -> CommandBatch:
    """An UPDATE of each row of a table, as a bulk load makes them."""
    commands = encode_columns(
        catalog, name, _stream(table), method="UPDATE", event_time_ms=feature_data.EVENT_MS
    )
    batch = encode_commands(catalog, [command for _, command in commands], now_ms=NOW_MS)
    if batch.rejections:
        raise SystemExit(f"scaling_bench: refused: {batch.rejections[0].message}")
    return batch


def _stream(table: pa.Table) -> bytes:
    """As an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def asked(ids: Sequence[int], requests: int, keys: int) -> list[list[int]]:
    """So many random ids for each request, the same on each run."""
    source = random.Random(f"{len(ids)}-{keys}")
    return [[source.choice(ids) for _ in range(keys)] for _ in range(requests)]


def body(name: str, ids: Sequence[int], fields: Sequence[str] | None = None) -> bytes:
    """A read of these rows."""
    read: dict[str, object] = {"feature_group": name, "keys": {"user_id": ids}}
    if fields is not None:
        read["fields"] = fields
    return msgspec.json.encode({"reads": [read]})

"""Checks that what the gateway serves is what the offline store holds, for random keys."""

from __future__ import annotations

import base64
import random
import struct
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import pyarrow as pa
from serving import Client

from headrace.registry.catalog import Group

KEYS_A_READ = 50
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Key = tuple[Any, ...]
Row = dict[str, Any]


class Comparison(NamedTuple):
    """How many keys and values were compared, how long reading took, and what differed."""

    keys: int
    values: int
    seconds: float
    differences: list[str]


def compare(
    client: Client, offline: Sequence[tuple[Group, Any]], *, keys: int, seed: int
) -> Comparison:
    """Read `keys` random keys of these groups over HTTP and compare all their value fields.

    `offline` gives each group's latest rows as a `pyarrow.Table`.
    """
    every = [(group.name, key) for group, rows in offline for key in _keys(group, rows)]
    chosen = random.Random(seed).sample(every, min(keys, len(every)))  # noqa: S311 - a test sample
    groups = {group.name: group for group, _ in offline}
    rows_of = {
        group.name: _by_key(group, rows, {key for name, key in chosen if name == group.name})
        for group, rows in offline
    }
    values, seconds, differences = 0, 0.0, list[str]()
    for name, group in groups.items():
        wanted = [key for chosen_name, key in chosen if chosen_name == name]
        for first in range(0, len(wanted), KEYS_A_READ):
            some = wanted[first : first + KEYS_A_READ]
            start_s = time.perf_counter()
            result = client.rows({"reads": [_read(group, some)]})[0]
            seconds += time.perf_counter() - start_s
            for key, served in zip(some, result["rows"], strict=True):
                expected = rows_of[name][key]
                values += len(group.fields) * max(1, len(expected))
                if not _equal(group, result["fields"], served, expected):
                    differences.append(f"{name} {key}: {served!r} is not {expected!r}")
            differences += [
                f"{name} {some[s['row'] - 1]}: {s['status']}" for s in result["statuses"]
            ]
    return Comparison(len(chosen), values, seconds, differences)


def _keys(group: Group, rows: Any) -> list[Key]:
    """Distinct keys, sorted so that a seed always draws the same ones."""
    columns = rows.select([key.name for key in group.keys]).to_pydict().values()
    return sorted(set(zip(*columns, strict=True)))


def _by_key(group: Group, rows: Any, wanted: set[Key]) -> dict[Key, list[Row]]:
    columns = rows.select([key.name for key in group.keys]).to_pydict().values()
    keys = list(zip(*columns, strict=True))
    some = rows.filter(pa.array([key in wanted for key in keys])).to_pylist()
    found: dict[Key, list[Row]] = {}
    for row in some:
        found.setdefault(tuple(row[key.name] for key in group.keys), []).append(row)
    return found


def _read(group: Group, keys: Sequence[Key]) -> dict[str, Any]:
    columns = {key.name: [values[at] for values in keys] for at, key in enumerate(group.keys)}
    read: dict[str, Any] = {"feature_group": group.name, "keys": columns}
    if group.feature_type == "History":
        read["limit"] = group.max_events
    return read


def _equal(group: Group, fields: Sequence[str], served: Any, expected: list[Row]) -> bool:
    types = {field.name: field.type for field in group.fields}
    if group.feature_type == "Object":
        return _values(types, fields, served) == _values_offline(types, fields, expected[0])
    names = fields[1:]
    got = [(event[0], _values(types, names, event[1:])) for event in served]
    want = [(_milliseconds(row), _values_offline(types, names, row)) for row in expected]
    if len(want) <= group.max_events:
        return Counter(got) == Counter(want) and _is_newest_first(got)
    # Events that tie with the oldest one kept: the store chooses among these by event id.
    oldest = got[-1][0] if got else 0
    newer = Counter(event for event in want if event[0] > oldest)
    return len(got) == group.max_events and newer <= Counter(got) <= Counter(want)


def _is_newest_first(events: Sequence[tuple[int, Any]]) -> bool:
    times = [at_ms for at_ms, _ in events]
    return times == sorted(times, reverse=True)


def _values(types: dict[str, str], fields: Sequence[str], served: Sequence[Any]) -> Key:
    return tuple(_parsed(types[name], value) for name, value in zip(fields, served, strict=True))


def _values_offline(types: dict[str, str], fields: Sequence[str], row: Row) -> Key:
    return tuple(_normal(types[name], row[name]) for name in fields)


def _parsed(kind: str, value: Any) -> Any:
    """A value from JSON, in the form the offline store gives."""
    if value is None:
        return None
    if kind == "Date":
        return date.fromisoformat(value)
    if kind == "Timestamp":
        return datetime.fromisoformat(value)
    if kind == "Bytes":
        return base64.b64decode(value)
    return _normal(kind, value)


def _normal(kind: str, value: Any) -> Any:
    """Floats as the 32 bits they are stored in; lists as tuples, which can be counted."""
    if isinstance(value, list):
        item = "Float" if kind.startswith("Vector") else kind[len("List<") : -1]
        return tuple(_normal(item, element) for element in value)
    if kind == "Float" and value is not None:
        return struct.pack("<f", value)
    return value


def _milliseconds(row: Row) -> int:
    return (row["_event_time"] - EPOCH) // timedelta(milliseconds=1)

"""The data that load is made on: Objects of 20 and of 250 fields and a History of 50 events."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from headrace.codec import Catalog, LmdbStore, encode_commands
from headrace.registry.catalog import (
    CatalogDocument,
    Group,
    KeyField,
    Schema,
    Service,
    ServiceRead,
    ValueField,
    encode_document,
)
from headrace.registry.physical import CATALOG_DOCUMENT, CATALOG_GENERATION

OBJECT = "load::record-v1"
HISTORY = "load::history-v1"
SERVICE = "load-ranker-v1"
ROWS = 10_000
HISTORIES = 1_000
EVENTS = 50
EVENT_MS = 1_700_000_000_000
BATCH = 2_000

DEFAULTS: dict[str, object] = {"Long": 0, "Double": 0.0, "Text": "", "Boolean": False}
RECORD_TYPES = ["Long"] * 7 + ["Double"] * 6 + ["Text"] * 4 + ["Boolean"] * 3
EVENT_TYPES = ["Long", "Double", "Text", "Boolean"]
WIDE = "load::wide-v1"
WIDE_FIELDS = 250
WIDE_TYPES = (RECORD_TYPES * 13)[:WIDE_FIELDS]
WIDE_ROWS = 1_000
FIRST_ABSENT = 1_000_000
"""No row has this key or a higher one."""
COUNTRIES = ["KR", "US", "JP", "DE", "BR", "FR", "IN", "TR"]


def fields(types: list[str]) -> tuple[ValueField, ...]:
    """One value field per type, named after it."""
    return tuple(
        ValueField(
            id=number,
            name=f"{kind.lower()}_feature_{number}",
            type=kind,
            default=DEFAULTS[kind],
        )
        for number, kind in enumerate(types, 1)
    )


def catalog_document(generation: int = 1) -> CatalogDocument:
    """Both groups and a service over them."""
    key = (KeyField(name="user_id", type="Long"),)
    return CatalogDocument(
        generation=generation,
        published_at_ms=EVENT_MS,
        groups=(
            Group(
                id=1,
                name=OBJECT,
                feature_type="Object",
                owner="load",
                keys=key,
                schemas=(Schema(ordinal=1, fields=fields(RECORD_TYPES)),),
            ),
            Group(
                id=2,
                name=HISTORY,
                feature_type="History",
                owner="load",
                keys=key,
                schemas=(Schema(ordinal=1, fields=fields(EVENT_TYPES)),),
                max_events=EVENTS,
            ),
        ),
        services=(
            Service(
                name=SERVICE,
                owner="load",
                reads=(
                    ServiceRead(feature_group=OBJECT, keys={"user_id": "user_id"}),
                    ServiceRead(feature_group=OBJECT, keys={"user_id": "peer_id"}, alias="peer"),
                    ServiceRead(feature_group=HISTORY, keys={"user_id": "history_id"}, limit=10),
                ),
            ),
        ),
        next_group_id=3,
    )


def with_wide_group(document: CatalogDocument) -> CatalogDocument:
    """And a group of 250 fields."""
    wide = Group(
        id=3,
        name=WIDE,
        feature_type="Object",
        owner="load",
        keys=(KeyField(name="user_id", type="Long"),),
        schemas=(Schema(ordinal=1, fields=fields(WIDE_TYPES)),),
    )
    groups = (*document.groups, wide)
    return msgspec.structs.replace(document, groups=groups, next_group_id=4)


def wide_sample(rows: int = WIDE_ROWS) -> Iterator[bytes]:
    """Commands for that many rows of 250 fields, the same on each run."""
    source = random.Random(250)
    for user_id in range(rows):
        yield command(WIDE, "UPDATE", user_id, EVENT_MS, WIDE_TYPES, source)


def sample(*, rows: int = ROWS, histories: int = HISTORIES) -> Iterator[bytes]:
    """Commands for that many rows and Histories, the same on each run."""
    source = random.Random(20)
    for user_id in range(rows):
        yield command(OBJECT, "UPDATE", user_id, EVENT_MS, RECORD_TYPES, source)
    for user_id in range(histories):
        for event in range(EVENTS):
            at_ms = EVENT_MS + event * 60_000
            yield command(HISTORY, "APPEND", user_id, at_ms, EVENT_TYPES, source)


def update(user_id: int, at_ms: int, source: random.Random) -> bytes:
    """An UPDATE of a whole record at an event time."""
    return command(OBJECT, "UPDATE", user_id, at_ms, RECORD_TYPES, source)


def write_store(
    folder: Path, *, rows: int = ROWS, histories: int = HISTORIES, wide_rows: int = 0
) -> None:
    """Publish the catalog and write all rows; with `wide_rows` also the group of 250 fields."""
    document = catalog_document()
    if wide_rows:
        document = with_wide_group(document)
    text = encode_document(document)
    store = LmdbStore(str(folder))
    commands = itertools.chain(sample(rows=rows, histories=histories), wide_sample(wide_rows))
    apply_commands(store, Catalog(text), commands)
    store.put(CATALOG_DOCUMENT, text)
    store.put(CATALOG_GENERATION, b"1")
    store.close()


def apply_commands(store: LmdbStore, catalog: Catalog, commands: Iterable[bytes]) -> None:
    """Write commands in batches; raises ValueError when one is refused."""
    waiting = iter(commands)
    now_ms = EVENT_MS + 86_400_000
    while batch := list(itertools.islice(waiting, BATCH)):
        encoded = encode_commands(catalog, batch, now_ms=now_ms)
        if encoded.rejections:
            raise ValueError(f"the load data is refused: {encoded.rejections[0].message}")
        store.apply(encoded, catalog, now_ms=now_ms)


def read_body(keys: int, source: random.Random) -> bytes:
    """A read of that many random rows, all 20 fields."""
    wanted = [source.randrange(ROWS) for _ in range(keys)]
    return _json({"reads": [{"feature_group": OBJECT, "keys": {"user_id": wanted}}]})


def patient_body(keys: int, source: random.Random) -> bytes:
    """The same by a caller who waits: what is read from the store is not refused for its load."""
    wanted = [source.randrange(ROWS) for _ in range(keys)]
    reads = [{"feature_group": OBJECT, "keys": {"user_id": wanted}}]
    return _json({"reads": reads, "deadline_ms": 5_000})


def absent_body(keys: int, absent_percent: int, source: random.Random) -> bytes:
    """The same where that share of the keys has no row."""
    wanted = [
        source.randrange(ROWS) + (FIRST_ABSENT if source.random() * 100 < absent_percent else 0)
        for _ in range(keys)
    ]
    reads = [{"feature_group": OBJECT, "keys": {"user_id": wanted}}]
    return _json({"reads": reads, "missing": "null"})


def wide_body(keys: int, source: random.Random) -> bytes:
    """A read of that many random rows of 250 fields."""
    wanted = [source.randrange(WIDE_ROWS) for _ in range(keys)]
    return _json({"reads": [{"feature_group": WIDE, "keys": {"user_id": wanted}}]})


def history_body(source: random.Random) -> bytes:
    """A read of one History, all 50 events."""
    keys = {"user_id": [source.randrange(HISTORIES)]}
    return _json({"reads": [{"feature_group": HISTORY, "keys": keys, "limit": EVENTS}]})


def service_body(peers: int, source: random.Random) -> bytes:
    """A service request: one row, its peers and a short History."""
    keys = {
        "user_id": [source.randrange(ROWS)],
        "peer_id": [source.randrange(ROWS) for _ in range(peers)],
        "history_id": [source.randrange(HISTORIES)],
    }
    return _json({"service": SERVICE, "keys": keys})


def values_in(answer: bytes) -> int:
    """Values in a JSON answer; event times of a History are not counted."""
    results = json.loads(answer)["results"]
    return sum(_values(row) for result in results for row in result["rows"])


def _values(row: list[object]) -> int:
    events = [item for item in row if isinstance(item, list)]
    return sum(len(event) - 1 for event in events) if events else len(row)


def command(
    group: str, method: str, user_id: int, at_ms: int, types: list[str], source: random.Random
) -> bytes:
    """A command with a random value for every field."""
    values: dict[str, object] = {field.name: _value(field.type, source) for field in fields(types)}
    values["_last_updated_at_ms"] = at_ms
    keys = {"user_id": user_id}
    return _json({"feature_name": group, "method": method, "keys": keys, "values": values})


def _value(kind: str, source: random.Random) -> object:
    if kind == "Long":
        return source.randrange(10 ** source.randrange(1, 8))
    if kind == "Double":
        return round(source.random() * 1000, 4)
    if kind == "Boolean":
        return source.random() < 0.5
    return source.choice(COUNTRIES)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()

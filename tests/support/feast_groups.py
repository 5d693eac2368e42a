"""What Feast's clients read in tests: groups and services with Feast names, and rows in them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from gateway_over_lmdb import NOW_MS
from litestar import Litestar
from running_gateway import make_app

from headrace.codec import Catalog, LmdbStore, ReadEngine
from headrace.gateway.catalog_in_force import CatalogInForce
from headrace.gateway.stores.lmdb import LmdbCatalogReader
from headrace.gateway.stores.lmdb_reads import LmdbReads
from headrace.loadtest.feature_data import apply_commands
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
from headrace.registry.watch import CatalogWatcher

DRIVERS = "rides::driver-stats-v1"
ROUTES = "rides::route-stats-v1"
CARS = "rides::car-stats-v1"
SHIFTS = "rides::shift-stats-v1"
EVENT_MS = NOW_MS - 1_000
STALE_MS = NOW_MS - 2 * 86_400_000
BIG = 9_007_199_254_740_993
"""2^53 + 1: a double cannot hold it."""
BENCH_GROUPS = 25
BENCH_FEATURES = 10
BENCH_ENTITIES = 20

DRIVER_FIELDS = (
    ValueField(id=1, name="conv_rate", type="Float", default=0.0),
    ValueField(id=2, name="avg_daily_trips", type="Long", default=0),
    ValueField(id=3, name="score", type="Double", nullable=True),
    ValueField(id=4, name="tags", type="List<Text>", default=[]),
    ValueField(id=5, name="trips", type="List<Long>", default=[]),
    ValueField(id=6, name="embedding", type="Vector<3>", nullable=True),
    ValueField(id=7, name="photo", type="Bytes", default=""),
    ValueField(id=8, name="seen_at", type="Timestamp", default="1970-01-01T00:00:00Z"),
    ValueField(id=9, name="city", type="Text", default="XX", feast_name="HomeCity"),
    ValueField(id=10, name="active", type="Boolean", default=False),
)


def _group(number: int, name: str, feast_name: str | None, **more: object) -> Group:
    fields: dict[str, object] = {"feature_type": "Object", "owner": "tests", **more}
    return Group(id=number, name=name, feast_name=feast_name, **fields)  # type: ignore[arg-type]  # by name


def bench_group(number: int) -> Group:
    """One of the 25 of the public feast-benchmarks suite: 10 int64 features, key `entity`."""
    names = (f"feature_{BENCH_FEATURES * number + step}" for step in range(BENCH_FEATURES))
    fields = (
        ValueField(id=position, name=name, type="Long", default=0)
        for position, name in enumerate(names, 1)
    )
    return _group(
        100 + number,
        f"bench::group-{number}",
        f"feature_view_{number}",
        keys=(KeyField(name="entity", type="Long"),),
        schemas=(Schema(ordinal=1, fields=tuple(fields)),),
    )


def bench_service(number: int, groups: Iterable[int]) -> Service:
    """A service of that suite over some of its groups."""
    reads = (ServiceRead(feature_group=f"bench::group-{group}") for group in groups)
    return Service(
        name=f"bench-{number}-v1",
        owner="tests",
        reads=tuple(reads),
        feast_name=f"feature_service_{number}",
    )


def document() -> CatalogDocument:
    """Drivers, routes with a composite key, and the groups and services of feast-benchmarks."""
    drivers = _group(
        1,
        DRIVERS,
        "driver_hourly_stats",
        keys=(KeyField(name="driver_id", type="Long"),),
        schemas=(Schema(ordinal=1, fields=DRIVER_FIELDS),),
        max_age_ms=86_400_000,
    )
    flights = (ValueField(id=1, name="flights", type="Long", default=0),)
    routes = _group(
        2,
        ROUTES,
        None,
        keys=(KeyField(name="origin", type="Text"), KeyField(name="dest", type="Text")),
        schemas=(Schema(ordinal=1, fields=flights),),
    )
    # Two more that call a Text what drivers call a Long, and the other way round.
    cars = _group(
        3,
        CARS,
        "car_stats",
        keys=(KeyField(name="driver_id", type="Text"),),
        schemas=(Schema(ordinal=1, fields=flights),),
    )
    shifts = _group(
        4,
        SHIFTS,
        "shift_stats",
        keys=(KeyField(name="driver_id", type="Long"), KeyField(name="city", type="Text")),
        schemas=(
            Schema(ordinal=1, fields=(ValueField(id=1, name="hours", type="Long", default=0),)),
        ),
    )
    activity = Service(
        name="driver-activity-v1",
        owner="tests",
        feast_name="driver_activity",
        reads=(
            ServiceRead(feature_group=DRIVERS, fields=("avg_daily_trips", "city")),
            ServiceRead(feature_group=ROUTES, keys={"origin": "home", "dest": "work"}),
        ),
    )
    return CatalogDocument(
        generation=1,
        published_at_ms=NOW_MS,
        groups=(
            drivers,
            routes,
            cars,
            shifts,
            *(bench_group(number) for number in range(BENCH_GROUPS)),
        ),
        services=(
            activity,
            *(bench_service(number, range(number + 1)) for number in range(5)),
            bench_service(5, range(BENCH_GROUPS)),
        ),
        next_group_id=200,
    )


def bench_value(entity: int, feature: int) -> int:
    """What that suite's feature of that entity is here."""
    return entity * 1_000 + feature


def _command(group: str, keys: dict[str, object], values: dict[str, object], at_ms: int) -> bytes:
    values = {**values, "_last_updated_at_ms": at_ms}
    command = {"feature_name": group, "method": "UPDATE", "keys": keys, "values": values}
    return json.dumps(command).encode()


def commands() -> Iterator[bytes]:
    """Rows: a full driver, one with a null, a stale one, a route, and entities 0 to 19."""
    full: dict[str, object] = {
        "conv_rate": 1.0,
        "avg_daily_trips": BIG,
        "score": 0.1,
        "tags": ["a", "é"],
        "trips": [1, BIG],
        "embedding": [0.5, 1.0, -2.25],
        "photo": base64.b64encode(b"\x00\xffjpeg").decode(),
        "seen_at": "2023-11-14T22:13:20Z",
        "city": "Seoul",
        "active": True,
    }
    yield _command(DRIVERS, {"driver_id": 1001}, full, EVENT_MS)
    yield _command(DRIVERS, {"driver_id": 1002}, full | {"score": None, "city": "Busan"}, EVENT_MS)
    yield _command(DRIVERS, {"driver_id": 1003}, full, STALE_MS)
    yield _command(DRIVERS, {"driver_id": BIG}, {"city": "Jeju"}, EVENT_MS)
    yield _command(ROUTES, {"origin": "ICN", "dest": "JFK"}, {"flights": 14}, EVENT_MS)
    yield _command(SHIFTS, {"driver_id": 0, "city": "Seoul"}, {"hours": 8}, EVENT_MS)
    for number in range(BENCH_GROUPS):
        features = range(BENCH_FEATURES * number, BENCH_FEATURES * (number + 1))
        for entity in range(BENCH_ENTITIES):
            values: dict[str, object] = {
                f"feature_{feature}": bench_value(entity, feature) for feature in features
            }
            yield _command(f"bench::group-{number}", {"entity": entity}, values, EVENT_MS)


async def empty_app(folder: Path) -> Litestar:
    """An application over a new store in `folder` that holds nothing, not even a catalog."""
    return await _app_over(LmdbStore(str(folder)))


async def feast_app(folder: Path) -> Litestar:
    """An application over a new store in `folder` that holds all of that."""
    store = LmdbStore(str(folder))
    text = encode_document(document())
    store.put(CATALOG_DOCUMENT, text)
    store.put(CATALOG_GENERATION, b"1")
    apply_commands(store, Catalog(text), commands())
    return await _app_over(store)


async def _app_over(store: LmdbStore) -> Litestar:
    watcher = CatalogWatcher(LmdbCatalogReader(store), lambda: NOW_MS)
    app = make_app(LmdbReads(ReadEngine(), store), CatalogInForce(watcher), watcher)
    await watcher.refresh()
    return app

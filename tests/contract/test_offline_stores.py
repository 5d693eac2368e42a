"""What every offline store owes upsync and downsync (semantics 24, 25, 28)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol, cast

import pytest

from headrace.registry.catalog import FeatureType, Group, KeyField, Schema, Upsync, ValueField
from headrace.sync.offline.duckdb import DuckdbOfflineStore
from headrace.sync.offline.memory import MemoryOfflineStore
from headrace.sync.offline.ports import ChangeQuery, LogRange, OfflineReader, OfflineWriter
from headrace.sync.offline.types import Rows, arrow_rows, declared_columns, system_columns

DAY = datetime(2024, 5, 1, tzinfo=UTC)


class OfflineStore(OfflineReader, OfflineWriter, Protocol):
    async def stored(self, group: Group) -> Rows: ...


@pytest.fixture(params=["memory", "duckdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OfflineStore]:
    if request.param == "memory":
        yield MemoryOfflineStore()
    else:
        embedded = DuckdbOfflineStore(tmp_path)
        yield embedded
        embedded.close()


def make_group(
    feature_type: FeatureType = "Object", *, updated_at: str | None = None, max_events: int = 100
) -> Group:
    fields = (
        ValueField(id=1, name="level", type="Long", default=7),
        ValueField(id=2, name="score", type="Float", nullable=True),
        ValueField(id=3, name="tags", type="List<Text>", default=[]),
        ValueField(id=4, name="embedding", type="Vector<2>", nullable=True),
        ValueField(id=5, name="seal", type="Bytes", nullable=True),
        ValueField(id=6, name="born", type="Date", nullable=True),
        ValueField(id=7, name="seen_at", type="Timestamp", nullable=True),
        ValueField(id=8, name="live", type="Boolean", default=False),
    )
    return Group(
        id=1,
        name="live::user-stats-v1",
        feature_type=feature_type,
        owner="o",
        keys=(KeyField(name="user_id", type="Long"), KeyField(name="country", type="Text")),
        schemas=(Schema(ordinal=1, fields=fields),),
        max_events=max_events,
        upsync=Upsync(enabled=True, incremental_update=True, updated_at=updated_at),
    )


def make_row(
    user_id: int,
    level: int | None,
    *,
    hours: int | None = 0,
    source: str = "transform",
    **values: object,
) -> dict[str, object]:
    return {
        "user_id": user_id,
        "country": "KR",
        "level": level,
        "tags": ["a"],
        "live": True,
        "_event_time": None if hours is None else DAY + timedelta(hours=hours),
        "_source": source,
        "_deleted": False,
        "_ingested_at": DAY,
        **values,
    }


async def append(
    store: OfflineStore, group: Group, rows: Sequence[dict[str, object]], first_offset: int = 0
) -> None:
    table = arrow_rows(declared_columns(group) + system_columns(), rows)
    token = LogRange("seed", 0, first_offset, first_offset + max(len(rows), 1))
    await store.append(group, table, token)


async def changes(
    store: OfflineStore,
    group: Group,
    run_id: str = "run",
    *,
    since_ms: int | None = None,
    full: bool = False,
) -> list[dict[str, object]]:
    """One whole run: prepare, fetch everything, settle, release."""
    wanted = ChangeQuery(run_id=run_id, snapshot_time_ms=1, since_ms=since_ms, full=full)
    change = await store.prepare(group, wanted)
    rows = await store.fetch(group, run_id, first_row=0, rows=change.rows)
    await store.settle(group, run_id)
    await store.release(group, run_id)
    return rows.to_pylist()


def levels(rows: Sequence[dict[str, object]]) -> list[tuple[int, int]]:
    return sorted((cast("int", row["user_id"]), cast("int", row["level"])) for row in rows)


async def test_the_latest_row_of_each_key_is_sent(store: OfflineStore) -> None:
    group = make_group()
    rows = [make_row(1, 10, hours=1), make_row(1, 11, hours=3), make_row(1, 12, hours=2)]
    await append(store, group, [*rows, make_row(2, 20)])
    assert levels(await changes(store, group)) == [(1, 11), (2, 20)]


async def test_every_declared_type_comes_back_as_it_was_appended(store: OfflineStore) -> None:
    group = make_group()
    values: dict[str, object] = {
        "score": 0.1,
        "tags": ["", "ü", "𝄞"],
        "embedding": [1.5, -0.0],
        "seal": b"\x00\xff",
        "born": (DAY - timedelta(days=1)).date(),
        "seen_at": DAY + timedelta(microseconds=1),
    }
    await append(store, group, [make_row(-(2**63), 2**63 - 1) | values])
    (row,) = await changes(store, group)
    rounded = {"score": 0.10000000149011612, "_event_time": DAY}
    keys = {"user_id": -(2**63), "country": "KR", "level": 2**63 - 1, "live": True}
    assert row == {**values, **keys, **rounded}


async def test_rows_of_downsync_are_not_sent_back(store: OfflineStore) -> None:
    """(semantics 24)"""
    group = make_group()
    echo = make_row(1, 99, hours=5, source="downsync")
    await append(store, group, [make_row(1, 10), echo, make_row(2, 98, source="downsync")])
    assert levels(await changes(store, group)) == [(1, 10)]


@pytest.mark.parametrize("hours", [3, 2], ids=["newer", "equally old"])
async def test_a_key_whose_newest_row_is_a_delete_is_never_sent(
    store: OfflineStore, hours: int
) -> None:
    """(semantics 1, 24): at equal event time the DELETE wins."""
    group = make_group()
    gone = make_row(1, None, hours=hours, source="downsync", _deleted=True, tags=None)
    await append(store, group, [make_row(1, 10, hours=2), gone, make_row(2, 20)])
    assert levels(await changes(store, group)) == [(2, 20)]


async def test_a_key_written_after_its_delete_is_sent(store: OfflineStore) -> None:
    group = make_group()
    gone = make_row(1, 0, hours=1, source="downsync", _deleted=True)
    await append(store, group, [gone, make_row(1, 10, hours=2)])
    assert levels(await changes(store, group)) == [(1, 10)]


async def test_an_unchanged_row_is_not_sent_twice(store: OfflineStore) -> None:
    group = make_group()
    await append(store, group, [make_row(1, 10), make_row(2, 20)])
    await changes(store, group, "first")
    await append(store, group, [make_row(2, 21, hours=1)], first_offset=10)
    assert levels(await changes(store, group, "second")) == [(2, 21)]
    assert await changes(store, group, "third") == []


async def test_a_row_that_returns_to_an_earlier_value_is_sent_again(store: OfflineStore) -> None:
    group = make_group()
    for turn, level in enumerate([10, 11, 10]):
        row = make_row(1, level, hours=None, _ingested_at=DAY + timedelta(hours=turn))
        await append(store, group, [row], first_offset=10 * turn)
        assert levels(await changes(store, group, f"run{turn}")) == [(1, level)]


async def test_a_full_run_sends_what_was_sent_before(store: OfflineStore) -> None:
    group = make_group()
    await append(store, group, [make_row(1, 10)])
    await changes(store, group, "first")
    assert levels(await changes(store, group, "second", full=True)) == [(1, 10)]


async def test_rows_before_the_mark_are_not_looked_at(store: OfflineStore) -> None:
    group = make_group(updated_at="seen_at")
    later = DAY + timedelta(hours=1)
    await append(store, group, [make_row(1, 10, seen_at=later), make_row(2, 20, seen_at=DAY)])
    since_ms = int((DAY + timedelta(hours=1)).timestamp() * 1000)
    assert levels(await changes(store, group, since_ms=since_ms)) == [(1, 10)]


async def test_the_mark_is_the_newest_moment_of_the_latest_rows(store: OfflineStore) -> None:
    group = make_group(updated_at="seen_at")
    newest = DAY + timedelta(hours=9, milliseconds=5)
    await append(store, group, [make_row(1, 10, seen_at=newest), make_row(2, 20, seen_at=DAY)])
    change = await store.prepare(group, ChangeQuery(run_id="run", snapshot_time_ms=1))
    assert (change.rows, change.scanned) == (2, 2)
    assert change.mark_ms == int(DAY.timestamp() * 1000) + 9 * 3_600_000 + 5


async def test_updated_at_is_the_event_time_of_a_sent_row(store: OfflineStore) -> None:
    """(semantics 24): `updated_at`, else `_event_time`, else the snapshot time."""
    group = make_group(updated_at="seen_at")
    later = DAY + timedelta(hours=4)
    await append(store, group, [make_row(1, 10, seen_at=later), make_row(2, 20, hours=1)])
    await append(store, group, [make_row(3, 30, hours=None)], first_offset=10)
    sent = {row["user_id"]: row["_event_time"] for row in await changes(store, group)}
    snapshot = datetime(1970, 1, 1, 0, 0, 0, 1000, tzinfo=UTC)
    assert sent == {1: later, 2: DAY + timedelta(hours=1), 3: snapshot}


async def test_a_resumed_run_meets_the_rows_it_pinned(store: OfflineStore) -> None:
    """(semantics 24): a resumed run repeats identical commands, whatever came since."""
    group = make_group()
    await append(store, group, [make_row(user, user * 10) for user in range(50)])
    query = ChangeQuery(run_id="run", snapshot_time_ms=1)
    await store.prepare(group, query)
    before = await store.fetch(group, "run", first_row=10, rows=20)
    newer = [make_row(user, 0, hours=8) for user in range(50)]
    await append(store, group, newer, first_offset=100)
    assert (await store.prepare(group, query)).rows == 50
    after = await store.fetch(group, "run", first_row=10, rows=20)
    assert len(before.to_pylist()) == 20
    assert after.to_pylist() == before.to_pylist()


async def test_settling_twice_changes_nothing(store: OfflineStore) -> None:
    group = make_group()
    await append(store, group, [make_row(1, 10)])
    await store.prepare(group, ChangeQuery(run_id="run", snapshot_time_ms=1))
    await store.settle(group, "run")
    await store.settle(group, "run")
    await store.release(group, "run")
    assert await changes(store, group, "next") == []


async def test_a_history_sends_its_newest_events_once_each(store: OfflineStore) -> None:
    group = make_group("History", max_events=3)
    await append(store, group, [make_row(1, hour, hours=hour) for hour in range(5)])
    assert levels(await changes(store, group, "first")) == [(1, 2), (1, 3), (1, 4)]
    twice = make_row(1, 4, hours=4)
    await append(store, group, [twice, make_row(1, 9, hours=9)], first_offset=10)
    assert levels(await changes(store, group, "second")) == [(1, 9)]


async def test_events_that_tie_with_the_oldest_kept_one_are_all_sent(store: OfflineStore) -> None:
    """The online store breaks ties by event id (semantics 5), so it has to see all of them."""
    group = make_group("History", max_events=2)
    await append(store, group, [make_row(1, level) for level in (1, 2, 3)])
    assert levels(await changes(store, group)) == [(1, 1), (1, 2), (1, 3)]


async def test_a_field_younger_than_its_row_is_sent_as_its_default(store: OfflineStore) -> None:
    group = make_group()
    await append(store, group, [make_row(1, None)])
    assert levels(await changes(store, group)) == [(1, 7)]


async def test_the_redo_of_a_range_replaces_its_rows(store: OfflineStore) -> None:
    """(semantics 28)"""
    group = make_group()
    for level in (10, 11):
        table = arrow_rows(declared_columns(group) + system_columns(), [make_row(1, level)])
        await store.append(group, table, LogRange("realtime", 0, 5, 9))
    assert levels((await store.stored(group)).to_pylist()) == [(1, 11)]


@pytest.mark.parametrize(
    ("second", "replaced"),
    [
        ((5, 9), {5, 6, 7, 8}),
        ((4, 9), {5, 6, 7, 8}),
        ((5, 12), {5, 6, 7, 8}),
        ((5, 7), set()),
        ((7, 9), set()),
        ((6, 8), set()),
        ((7, 12), set()),
        ((2, 7), {5, 6}),
        ((9, 12), set()),
        ((2, 5), set()),
    ],
)
async def test_whatever_ranges_overlap_each_offset_has_one_row(
    store: OfflineStore, second: tuple[int, int], replaced: set[int]
) -> None:
    """A range removes only what lies wholly in it: more may be a later worker's (semantics 28)."""
    group = make_group()
    for level, (first, after) in ((1, (5, 9)), (2, second)):
        rows = [make_row(at, level, _command_offset=at) for at in range(first, after)]
        table = arrow_rows(declared_columns(group) + system_columns(), rows)
        await store.append(group, table, LogRange("realtime", 0, first, after))
    stored = dict.fromkeys(range(*second), 2) | dict.fromkeys(set(range(5, 9)) - replaced, 1)
    assert levels((await store.stored(group)).to_pylist()) == sorted(stored.items())


async def test_ranges_of_other_partitions_stand_side_by_side(store: OfflineStore) -> None:
    group = make_group()
    for partition in range(3):
        row = make_row(partition, 1)
        table = arrow_rows(declared_columns(group) + system_columns(), [row])
        await store.append(group, table, LogRange("realtime", partition, 5, 9))
    assert (await store.stored(group)).num_rows == 3


async def test_a_redo_without_rows_removes_what_the_range_held(store: OfflineStore) -> None:
    group = make_group()
    columns = declared_columns(group) + system_columns()
    token = LogRange("realtime", 0, 5, 9)
    await store.append(group, arrow_rows(columns, [make_row(1, 1)]), token)
    await store.append(group, arrow_rows(columns, []), token)
    assert (await store.stored(group)).num_rows == 0


async def test_an_empty_store_has_nothing_to_send(store: OfflineStore) -> None:
    assert await changes(store, make_group()) == []

"""What only the embedded offline store owes: transforms, whole files, one run at a time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.registry.catalog import Group, KeyField, Schema, Upsync, ValueField
from headrace.sync.errors import OfflineSchemaMismatch, RunConflict
from headrace.sync.offline.duckdb import DuckdbOfflineStore
from headrace.sync.offline.files import MERGED_FILES, appearing
from headrace.sync.offline.ports import ChangeQuery, LogRange, TransformOutcome, TransformRun
from headrace.sync.offline.types import Rows, arrow_rows, declared_columns, system_columns

PLANES = "SELECT * FROM (VALUES ('N1', 3, 0.5), ('N2', 4, NULL)) AS planes(tailnum, legs, delay)"


def make_group(*fields: ValueField, updated_at: str | None = None) -> Group:
    declared = fields or (
        ValueField(id=1, name="legs", type="Integer", default=0),
        ValueField(id=2, name="delay", type="Float", nullable=True),
    )
    return Group(
        id=1,
        name="flights::plane-v1",
        feature_type="Object",
        owner="o",
        keys=(KeyField(name="tailnum", type="Text"),),
        schemas=(Schema(ordinal=1, fields=declared),),
        upsync=Upsync(enabled=True, updated_at=updated_at),
    )


async def transform(
    root: Path, query: str, group: Group | None = None, *, run_id: str = "run", now_ms: int = 1
) -> TransformOutcome:
    run = TransformRun(run_id=run_id, query=query, prelude="", sources=root / "raw", now_ms=now_ms)
    return await DuckdbOfflineStore(root / "offline").transform(group or make_group(), run)


async def test_a_transform_appends_the_rows_it_makes(tmp_path: Path) -> None:
    assert await transform(tmp_path, PLANES) == TransformOutcome(rows=2, appended=2)
    rows = (await DuckdbOfflineStore(tmp_path / "offline").stored(make_group())).to_pylist()
    made = sorted((row["tailnum"], row["legs"], row["delay"], row["_source"]) for row in rows)
    assert made == [("N1", 3, 0.5, "transform"), ("N2", 4, None, "transform")]


async def test_a_transform_that_makes_the_same_rows_appends_none(tmp_path: Path) -> None:
    await transform(tmp_path, PLANES, run_id="first")
    again = await transform(tmp_path, PLANES, run_id="second", now_ms=2)
    assert again == TransformOutcome(rows=2, appended=0)


async def test_a_row_back_at_an_earlier_value_is_new_when_it_tells_no_time(tmp_path: Path) -> None:
    for turn, legs in enumerate((3, 4, 3)):
        query = f"SELECT 'N1' AS tailnum, {legs} AS legs, NULL AS delay"
        outcome = await transform(tmp_path, query, run_id=f"run{turn}", now_ms=turn)
        assert outcome.appended == 1


async def test_raw_files_are_views_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "planes.csv").write_text("tailnum,legs,delay\nN9,7,1.25\n")
    pq.write_table(pa.table({"bonus": [2]}), tmp_path / "raw" / "extra.parquet")
    query = "SELECT tailnum, legs + bonus AS legs, delay FROM planes, extra"
    await transform(tmp_path, query)
    rows = (await DuckdbOfflineStore(tmp_path / "offline").stored(make_group())).to_pylist()
    assert [row["legs"] for row in rows] == [9]


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("SELECT 'N1' AS tailnum, 1 AS legs", "column `delay` is missing"),
        ("SELECT 'N1' AS tailnum, 1 AS legs, 0 AS delay, 2 AS wings", "column `wings` is not a"),
        ("SELECT 'N1' AS tailnum, '1' AS legs, 0 AS delay", "column `legs` is VARCHAR"),
        ("SELECT 'N1' AS tailnum, 1.5::DOUBLE AS legs, 0 AS delay", "column `legs` is DOUBLE"),
        ("SELECT 7 AS tailnum, 1 AS legs, 0 AS delay", "column `tailnum` is INTEGER"),
        ("SELECT 'N1' AS tailnum, NULL AS legs, 0 AS delay", "column `legs` is null in 1 rows"),
        ("SELECT NULL AS tailnum, 1 AS legs, 0 AS delay", "column `tailnum` is null in 1 rows"),
        ("SELECT 'N1' AS tailnum, 2**40::BIGINT AS legs, 0 AS delay", "`legs` is DOUBLE"),
        ("SELECT 'N1' AS tailnum, 1099511627776 AS legs, 0 AS delay", "1099511627776"),
        (f"{PLANES} UNION ALL SELECT 'N1', 9, 9", "1 keys have several rows with one event time"),
        ("SELECT 1; SELECT 2", "must be one SELECT"),
        ("DROP TABLE stored", "must be one SELECT"),
        ("SELECT * FROM nowhere", "does not run: Catalog Error"),
        ("SELEC 1", "does not run: Parser Error"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_transform_that_does_not_fit_is_refused(
    tmp_path: Path, query: str, problem: str
) -> None:
    with pytest.raises(OfflineSchemaMismatch) as caught:
        await transform(tmp_path, query)
    assert problem in str(caught.value)
    assert not list((tmp_path / "offline").rglob("*.parquet"))


async def test_all_misfits_of_a_transform_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(OfflineSchemaMismatch) as caught:
        await transform(tmp_path, "SELECT 1 AS tailnum, 2 AS wings")
    assert [
        name for name in ("tailnum", "legs", "delay", "wings") if f"`{name}`" in str(caught.value)
    ] == [
        "tailnum",
        "legs",
        "delay",
        "wings",
    ]


async def test_a_vector_of_the_wrong_length_is_refused(tmp_path: Path) -> None:
    group = make_group(ValueField(id=1, name="embedding", type="Vector<3>", nullable=True))
    with pytest.raises(OfflineSchemaMismatch, match="length 2 to array with length 3"):
        await transform(tmp_path, "SELECT 'N1' AS tailnum, [1.0, 2.0] AS embedding", group)


async def test_rows_written_before_a_field_was_added_read_as_its_default(tmp_path: Path) -> None:
    await transform(tmp_path, PLANES)
    grown = make_group(
        ValueField(id=1, name="legs", type="Long", default=0),
        ValueField(id=3, name="hangar", type="Text", default="it's"),
        ValueField(id=4, name="tags", type="List<Text>", default=["a"]),
        ValueField(id=5, name="seal", type="Bytes", default="AP8="),
    )
    rows = (await DuckdbOfflineStore(tmp_path / "offline").latest(grown)).to_pylist()
    assert [(row["hangar"], row["tags"], row["seal"]) for row in rows] == [
        ("it's", ["a"], b"\x00\xff")
    ] * 2


async def test_two_runs_of_one_group_are_refused(tmp_path: Path) -> None:
    first, second = DuckdbOfflineStore(tmp_path), DuckdbOfflineStore(tmp_path)
    await first.prepare(make_group(), ChangeQuery(run_id="a", snapshot_time_ms=1))
    with pytest.raises(RunConflict, match="another upsync of `flights::plane-v1` is under way"):
        await second.prepare(make_group(), ChangeQuery(run_id="b", snapshot_time_ms=1))
    first.close()
    await second.prepare(make_group(), ChangeQuery(run_id="b", snapshot_time_ms=1))
    second.close()


def test_a_file_that_was_not_finished_never_appears(tmp_path: Path) -> None:
    target = tmp_path / "rows.parquet"

    def write_half() -> None:
        with appearing(target) as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert list(tmp_path.iterdir()) == []


def downsynced(*offsets: int) -> Rows:
    rows = [
        {
            "tailnum": f"N{offset}",
            "legs": offset,
            "_event_time": datetime.fromtimestamp(offset, UTC),
            "_source": "downsync",
            "_deleted": False,
            "_command_offset": offset,
        }
        for offset in offsets
    ]
    return arrow_rows(declared_columns(make_group()) + system_columns(), rows)


async def append_one_by_one(store: DuckdbOfflineStore, first: int, after: int) -> None:
    for offset in range(first, after):
        token = LogRange("realtime", 3, offset, offset + 1)
        await store.append(make_group(), downsynced(offset), token)


async def stored_offsets(store: DuckdbOfflineStore) -> list[object]:
    rows = (await store.stored(make_group())).to_pylist()
    return [row["_command_offset"] for row in sorted(rows, key=lambda row: str(row["_event_time"]))]


def files_of(root: Path) -> list[Path]:
    return sorted(root.rglob("*.parquet"))


async def test_many_small_files_become_few_and_keep_their_rows(tmp_path: Path) -> None:
    store = DuckdbOfflineStore(tmp_path)
    await append_one_by_one(store, 0, 4 * MERGED_FILES)
    assert len(files_of(tmp_path)) <= MERGED_FILES + 1
    assert await stored_offsets(store) == list(range(4 * MERGED_FILES))


async def test_members_left_beside_their_merged_file_are_not_read_twice(tmp_path: Path) -> None:
    """The process may die after the merged file appeared and before the members are removed."""
    store = DuckdbOfflineStore(tmp_path)
    await append_one_by_one(store, 0, MERGED_FILES)
    members = {path: path.read_bytes() for path in files_of(tmp_path)}
    await append_one_by_one(store, MERGED_FILES, MERGED_FILES + 1)
    for path, content in members.items():
        path.write_bytes(content)
    assert await stored_offsets(store) == list(range(MERGED_FILES + 1))


async def test_a_redo_after_a_merge_still_replaces_what_it_covers(tmp_path: Path) -> None:
    store = DuckdbOfflineStore(tmp_path)
    await append_one_by_one(store, 0, MERGED_FILES + 2)
    await append_one_by_one(store, MERGED_FILES, MERGED_FILES + 2)
    assert await stored_offsets(store) == list(range(MERGED_FILES + 2))


async def test_files_that_overlap_are_merged_to_one_row_an_offset(tmp_path: Path) -> None:
    """As workers leave them that overtook each other."""
    store = DuckdbOfflineStore(tmp_path)
    for first in range(MERGED_FILES + 1):
        token = LogRange("realtime", 3, first, first + 3)
        await store.append(make_group(), downsynced(first, first + 1, first + 2), token)
    assert await stored_offsets(store) == list(range(MERGED_FILES + 3))
    await append_one_by_one(store, MERGED_FILES + 3, MERGED_FILES + 4)
    assert len(files_of(tmp_path)) == 2
    assert await stored_offsets(store) == list(range(MERGED_FILES + 4))


async def test_a_late_append_under_a_merged_file_removes_none_of_it(tmp_path: Path) -> None:
    store = DuckdbOfflineStore(tmp_path)
    await append_one_by_one(store, 0, MERGED_FILES + 1)
    await append_one_by_one(store, 5, 8)
    assert await stored_offsets(store) == list(range(MERGED_FILES + 1))


async def test_merging_spans_a_field_that_was_added(tmp_path: Path) -> None:
    store = DuckdbOfflineStore(tmp_path)
    await append_one_by_one(store, 0, MERGED_FILES - 1)
    grown = make_group(
        ValueField(id=1, name="legs", type="Long", default=0),
        ValueField(id=3, name="hangar", type="Text", default="none"),
    )
    columns = declared_columns(grown) + system_columns()
    for offset in (MERGED_FILES - 1, MERGED_FILES):
        row = {"tailnum": "N", "legs": 2**40, "hangar": "A", "_deleted": False}
        row |= {"_source": "downsync", "_event_time": datetime.fromtimestamp(offset, UTC)}
        token = LogRange("realtime", 3, offset, offset + 1)
        await store.append(grown, arrow_rows(columns, [row]), token)
    rows = (await store.stored(grown)).to_pylist()
    assert len(files_of(tmp_path)) == 2
    assert sorted(str(row["hangar"]) for row in rows) == ["A"] * 2 + ["none"] * (MERGED_FILES - 1)


async def test_a_reader_sees_each_row_once_while_files_are_merged(tmp_path: Path) -> None:
    """Reader and writer are two processes' worth of stores over one folder."""
    writer, reader = DuckdbOfflineStore(tmp_path), DuckdbOfflineStore(tmp_path)
    await append_one_by_one(writer, 0, MERGED_FILES - 4)
    writing = asyncio.create_task(append_one_by_one(writer, MERGED_FILES - 4, 6 * MERGED_FILES))
    seen = 0
    while not writing.done():
        offsets = await stored_offsets(reader)
        assert offsets == list(range(len(offsets)))
        assert len(offsets) >= seen
        seen = len(offsets)
    await writing
    assert seen > MERGED_FILES

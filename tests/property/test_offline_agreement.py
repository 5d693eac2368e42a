"""The embedded offline store agrees with the model in memory on what is latest and what changed."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from headrace.registry.catalog import FeatureType, Group, KeyField, Schema, Upsync, ValueField
from headrace.sync.offline.duckdb import DuckdbOfflineStore
from headrace.sync.offline.memory import MemoryOfflineStore
from headrace.sync.offline.ports import ChangeQuery, LogRange
from headrace.sync.offline.types import arrow_rows, declared_columns, system_columns

DAY = datetime(2024, 5, 1, tzinfo=UTC)
HISTORIES = 4
STEPS = 4


def make_group(feature_type: FeatureType, updated_at: str | None) -> Group:
    field = ValueField(id=1, name="level", type="Long", default=0)
    return Group(
        id=1,
        name="live::user-v1",
        feature_type=feature_type,
        owner="o",
        keys=(KeyField(name="user_id", type="Long"),),
        schemas=(Schema(ordinal=1, fields=(field,)),),
        max_events=3,
        upsync=Upsync(enabled=True, updated_at=updated_at),
    )


def draw_rows(draw: random.Random, turn: int) -> list[dict[str, object]]:
    """Few keys, few times and few values: ties, deletes and returns to old values are common."""
    rows: list[dict[str, object]] = []
    for number in range(draw.randrange(1, 8)):
        source = draw.choice(["transform", "transform", "downsync"])
        row: dict[str, object] = {
            "user_id": draw.randrange(3),
            "level": draw.randrange(3),
            "seen_at": DAY + timedelta(hours=draw.randrange(4)),
            "_event_time": DAY + timedelta(hours=draw.randrange(4)),
            "_source": source,
            "_deleted": source == "downsync" and draw.random() < 0.3,
            "_ingested_at": DAY + timedelta(days=turn, seconds=number),
            "_command_offset": turn * 10 + number,
        }
        if draw.random() < 0.1:
            row["_event_time"] = None
        rows.append(row)
    return rows


Sent = list[tuple[object, object, object]]


async def run(
    store: DuckdbOfflineStore | MemoryOfflineStore, group: Group, query: ChangeQuery
) -> Sent:
    change = await store.prepare(group, query)
    rows = await store.fetch(group, query.run_id, first_row=0, rows=change.rows)
    await store.settle(group, query.run_id)
    await store.release(group, query.run_id)
    sent = [(row["user_id"], row["level"], row["_event_time"]) for row in rows.to_pylist()]
    return [(change.scanned, change.mark_ms, None), *sorted(sent, key=str)]


async def tell(
    root: Path, group: Group, draw: random.Random
) -> tuple[Sequence[Sent], Sequence[Sent]]:
    """The same appends and runs on both stores: what each sent."""
    embedded, model = DuckdbOfflineStore(root), MemoryOfflineStore()
    sent: tuple[list[Sent], list[Sent]] = ([], [])
    columns = declared_columns(group) + system_columns()
    for turn in range(STEPS):
        rows = arrow_rows(columns, draw_rows(draw, turn))
        token = LogRange("seed", 0, turn * 10, turn * 10 + draw.choice([10, 10, 12]))
        since_ms = draw.choice([None, None, int(DAY.timestamp() * 1000) + 7_200_000])
        query = ChangeQuery(
            run_id=f"run{turn}", snapshot_time_ms=turn, since_ms=since_ms, full=draw.random() < 0.2
        )
        await embedded.append(group, rows, token)
        await model.append(group, rows, token)
        sent[0].append(await run(embedded, group, query))
        sent[1].append(await run(model, group, query))
    return sent


@pytest.mark.parametrize("updated_at", [None, "seen_at"])
@pytest.mark.parametrize("feature_type", ["Object", "History"])
def test_both_stores_send_the_same_rows_in_random_histories(
    feature_type: FeatureType, updated_at: str | None
) -> None:
    group = make_group(feature_type, updated_at)
    for seed in range(HISTORIES):
        with tempfile.TemporaryDirectory() as folder:
            embedded, model = asyncio.run(tell(Path(folder), group, random.Random(seed)))
        assert embedded == model, f"seed {seed}"

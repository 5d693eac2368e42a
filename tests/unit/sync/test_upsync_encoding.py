"""Rows of the offline store as the commands that the writer takes."""

from __future__ import annotations

import datetime as dt
import json

import pytest

from headrace.codec import Catalog, encode_commands
from headrace.registry.catalog import (
    CatalogDocument,
    Group,
    KeyField,
    Schema,
    ValueField,
    encode_document,
)
from headrace.sync.errors import OfflineSchemaMismatch
from headrace.sync.offline.types import arrow_rows, upsync_columns
from headrace.sync.upsync_encoding import command_encoder

EVENT_TIME = dt.datetime(2026, 11, 24, 23, 0, 0, 1999, tzinfo=dt.UTC)
EVENT_MS = 1_795_561_200_001
GROUP = Group(
    id=3,
    name="flights::plane-stats",
    feature_type="Object",
    owner="flights",
    keys=(KeyField(name="tailnum", type="Text"),),
    schemas=(
        Schema(
            ordinal=1,
            fields=(
                ValueField(id=1, name="legs", type="Long", default=0),
                ValueField(id=2, name="delay", type="Double", default=0),
                ValueField(id=3, name="seen", type="Timestamp", nullable=True),
            ),
        ),
    ),
)
ROW: dict[str, object] = {
    "tailnum": "N14228",
    "legs": 7,
    "delay": 1.5,
    "seen": EVENT_TIME,
    "_event_time": EVENT_TIME,
}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog(
        encode_document(CatalogDocument(generation=1, published_at_ms=0, groups=(GROUP,)))
    )


def test_a_row_is_the_write_that_its_json_command_makes(catalog: Catalog) -> None:
    ((key, command),) = command_encoder(catalog)(GROUP, arrow_rows(upsync_columns(GROUP), [ROW]))
    assert key == catalog.encode_key(GROUP.name, {"tailnum": "N14228"})
    values = {
        "legs": 7,
        "delay": 1.5,
        "seen": "2026-11-24T23:00:00.001999Z",
        "_last_updated_at_ms": EVENT_MS,
    }
    text = json.dumps(
        {
            "feature_name": GROUP.name,
            "method": "UPDATE",
            "keys": {"tailnum": "N14228"},
            "values": values,
        }
    )
    batch = encode_commands(catalog, [command, text.encode()], now_ms=EVENT_MS)
    bulk, json_write = batch.mutations()
    assert (bulk.event_time_ms, bulk.cell) == (EVENT_MS, json_write.cell)


@pytest.mark.parametrize(
    ("change", "place"),
    [({"delay": float("nan")}, "`delay`, row 1"), ({"tailnum": ""}, "`tailnum`, row 1")],
    ids=["nan", "empty key"],
)
def test_a_row_that_no_command_can_hold_is_named(
    catalog: Catalog, change: dict[str, object], place: str
) -> None:
    rows = arrow_rows(upsync_columns(GROUP), [ROW, {**ROW, **change}])
    with pytest.raises(OfflineSchemaMismatch, match=place):
        command_encoder(catalog)(GROUP, rows)

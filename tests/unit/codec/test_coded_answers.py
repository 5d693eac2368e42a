"""Content codings of answers that come late, and forms that the engine does not have."""

from __future__ import annotations

import gzip
import json

import pytest

from headrace.codec import CachedReads, Catalog, PendingRead, Placement, ReadEngine
from headrace.gateway.ports import ACCEPT_JSON, CODED_GZIP
from headrace.registry.catalog import (
    CatalogDocument,
    Group,
    KeyField,
    Schema,
    ValueField,
    encode_document,
)

NOW_MS = 1_700_000_000_000
USERS = "live::users"


@pytest.fixture
def engine() -> ReadEngine:
    group = Group(
        id=1,
        name=USERS,
        feature_type="Object",
        owner="o",
        keys=(KeyField(name="user_id", type="Long"),),
        schemas=(
            Schema(ordinal=1, fields=(ValueField(id=1, name="level", type="Long", default=7),)),
        ),
    )
    document = CatalogDocument(generation=1, published_at_ms=NOW_MS, groups=(group,))
    engine = ReadEngine()
    engine.install(Catalog(encode_document(document)))
    return engine


def _begin(engine: ReadEngine, accept: int) -> PendingRead:
    reads = CachedReads(engine, Placement(["none"], epoch=1))
    keys = {"user_id": list(range(500))}
    pending = reads.submit(
        json.dumps({"reads": [{"feature_group": USERS, "keys": keys}]}).encode(),
        caller=1,
        accept=accept,
        now_ms=NOW_MS,
        request_id=b"late-1",
        keep_alive=True,
    )
    assert isinstance(pending, PendingRead)
    for slot in range(500):
        pending.take_cells(slot, [], NOW_MS)
    return pending


def test_a_late_answer_is_coded_as_its_request_asked(engine: ReadEngine) -> None:
    plain = _begin(engine, ACCEPT_JSON).finish().partition(b"\r\n\r\n")[2]
    head, _, coded = _begin(engine, ACCEPT_JSON | CODED_GZIP).finish().partition(b"\r\n\r\n")
    assert b"\r\ncontent-encoding: gzip\r\n" in head
    assert gzip.decompress(coded) == plain
    assert len(coded) < len(plain) / 5


@pytest.mark.parametrize("accept", [4, 15, 48, 64, 255])
def test_a_form_that_there_is_not_is_refused(engine: ReadEngine, accept: int) -> None:
    with pytest.raises(ValueError, match="`accept` is"):
        _begin(engine, accept)

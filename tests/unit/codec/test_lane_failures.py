"""A turn of the lane whose Python half fails: it is answered once, and its number is not reused."""

from __future__ import annotations

import json
import sys

import pytest

from headrace.codec import (
    CachedReads,
    Catalog,
    LaneConnection,
    Placement,
    ReadEngine,
    ReadLane,
    ReadTimes,
    RequestIds,
)
from headrace.registry.catalog import (
    CatalogDocument,
    Group,
    KeyField,
    Schema,
    ValueField,
    encode_document,
)

GROUP = "live::users"
BODY = json.dumps({"reads": [{"feature_group": GROUP, "keys": {"user_id": [1]}}]}).encode()


def _catalog() -> Catalog:
    level = ValueField(id=1, name="level", type="Long", default=0)
    group = Group(
        id=1,
        name=GROUP,
        feature_type="Object",
        owner="o",
        keys=(KeyField(name="user_id", type="Long"),),
        schemas=(Schema(ordinal=1, fields=(level,)),),
    )
    return Catalog(
        encode_document(CatalogDocument(generation=1, published_at_ms=0, groups=(group,)))
    )


class Half:
    """The codec's half of a connection, and what it says to the other half."""

    def __init__(self) -> None:
        engine = ReadEngine()
        engine.install(_catalog())
        self.cached = CachedReads(engine, Placement(["a:1"], epoch=1))
        self.cached.listen(
            flush_soon=_fails,
            missed=_fails,
            refusal=(b"", b""),
            least=1_000,
            least_reads=8,
            unknown=1_000,
            wait_ms=5,
        )
        self.lane = ReadLane(
            self.cached,
            clock=lambda: 0,
            ids=RequestIds(b"t"),
            times=ReadTimes(),
            body_bytes_max=1_000,
            held_bytes_max=1_000_000,
            due_answers_max=4,
        )
        self.written: list[bytes] = []
        self.connection = LaneConnection(
            self.lane, received=_fails, end=_fails, crowded=_fails, over=lambda: None
        )
        self.connection.connected(self.written.append)

    def read(self) -> bool:
        return self.connection.read(BODY, 0, b"id", keep_alive=True)


def _fails(*_: object) -> None:
    raise OSError("the other half fails")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was written to nobody in particular."""
    told: list[str] = []

    def tell(each: sys.UnraisableHookArgs) -> None:
        told.append(str(each.exc_value))

    monkeypatch.setattr(sys, "unraisablehook", tell)
    return told


def test_a_missed_turn_that_nobody_takes_over_is_answered_as_unavailable(told: list[str]) -> None:
    half = Half()
    assert half.read()
    assert [answer[9:12] for answer in half.written] == [b"503"]
    assert half.connection.due == 0
    assert half.lane.held_bytes == 0
    assert told == ["the other half fails"]


def test_a_turn_under_way_stays_so_though_nobody_was_told_to_send(told: list[str]) -> None:
    half = Half()
    half.cached.node_up(0)
    for due in (1, 2, 3, 4):  # the fourth also fails to say that no more may be due
        assert half.read()
        assert half.connection.due == due
    assert half.written == []
    assert told == ["the other half fails"] * 5
    assert len(half.cached.drop_node(0)) == 4

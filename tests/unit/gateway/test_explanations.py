"""What `explain` decides about a row, without a store."""

from __future__ import annotations

import pytest
from running_gateway import GROUP_NAME, document

from headrace.gateway.errors import BadKey, BadParameter, MissingParameter, UnknownParameter
from headrace.gateway.explain import judge, read_keys
from headrace.gateway.ports import Inspection
from headrace.registry.catalog import Group, KeyField, Schema, ValueField

GROUP = document().groups[0]
PAIR = Group(
    id=9,
    name="live::pair",
    feature_type="Object",
    owner="o",
    keys=(KeyField(name="origin", type="Text"), KeyField(name="room", type="Integer")),
    schemas=(Schema(ordinal=1, fields=(ValueField(id=1, name="a", type="Long", default=0),)),),
)


def test_no_live_cell_is_missing() -> None:
    """Semantics 11."""
    decision, reason = judge(GROUP, Inspection(), 0)
    assert decision == "MISSING"
    assert "no live cell" in reason


@pytest.mark.parametrize(("age_ms", "decision"), [(7_200_000, "OK"), (7_200_001, "STALE")])
def test_stale_begins_past_max_age(age_ms: int, decision: str) -> None:
    """Semantics 11."""
    assert GROUP.name == GROUP_NAME
    found = Inspection(None, ((1_000, {}), (500, {})))
    assert judge(GROUP, found, 1_000 + age_ms)[0] == decision


def test_keys_are_read_by_type() -> None:
    keys = read_keys(PAIR, {"room": "-7", "origin": "12"})
    assert keys == {"origin": "12", "room": -7}


@pytest.mark.parametrize("text", ["", "1.0", "+1", "01", "1e3", " 1", "١", "9" * 20])
def test_only_a_plain_whole_number_is_an_integer_key(text: str) -> None:
    """Semantics 8."""
    with pytest.raises(BadKey, match="`room` is Integer") as caught:
        read_keys(PAIR, {"origin": "a", "room": text})
    assert caught.value.parameter == "room"


@pytest.mark.parametrize(
    ("parameters", "error", "parameter", "nearest"),
    [
        ({}, MissingParameter, "origin", None),
        ({"origin": "a"}, MissingParameter, "room", None),
        ({"origin": "a", "room": "1", "rom": "2"}, UnknownParameter, "rom", "room"),
    ],
)
def test_keys_are_exactly_the_groups_key_fields(
    parameters: dict[str, str], error: type[BadParameter], parameter: str, nearest: str | None
) -> None:
    with pytest.raises(error, match="live::pair") as caught:
        read_keys(PAIR, parameters)
    assert (caught.value.parameter, caught.value.nearest) == (parameter, nearest)

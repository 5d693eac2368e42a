"""Physical names: pure, invertible, and never anything but a plain identifier (semantics 9)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.registry import physical

SIDES = st.from_regex(r"[a-z][a-z0-9]{0,5}(-[a-z0-9]{1,4}){0,3}", fullmatch=True)
GROUPS = st.tuples(SIDES, SIDES).map("::".join).filter(physical.is_group_name)


@given(GROUPS)
def test_table_name_can_be_undone(group: str) -> None:
    """So no two groups share a table."""
    assert physical.group_name(physical.table_name(group)) == group


@given(GROUPS)
def test_table_name_fits_every_engine(group: str) -> None:
    table = physical.table_name(group)
    assert len(table) <= 48
    assert physical.quoted(table) == f'"{table}"'


@pytest.mark.parametrize(
    "name",
    ["a", "a::", "::a", "A::b", "a::b::c", "a::b-", "a::-b", "a::b--c", "a::b_c", "a::1b",
     "a::" + "b" * 42, "a::b\n", ""],
)  # fmt: skip
def test_names_that_are_no_groups(name: str) -> None:
    assert not physical.is_group_name(name)


@pytest.mark.parametrize("name", ["a::b", "live::host-stat-v1", "a1::b2-3", "a::" + "b" * 41])
def test_names_that_are_groups(name: str) -> None:
    assert physical.is_group_name(name)


@pytest.mark.parametrize(
    ("name", "valid"),
    [("ranker-v1", True), ("flights::ranker-v12", True), ("ranker", False), ("ranker-v0", False),
     ("Ranker-v1", False), ("r" * 42 + "-v1", False)],
)  # fmt: skip
def test_service_names(name: str, valid: bool) -> None:
    assert physical.is_service_name(name) is valid


@pytest.mark.parametrize(
    ("name", "valid"),
    [("a", True), ("a_1", True), ("a" * 48, True), ("a" * 49, False), ("_a", False), ("1a", False),
     ("a-b", False), ("a\n", False), ("", False)],
)  # fmt: skip
def test_field_names(name: str, valid: bool) -> None:
    assert physical.is_field_name(name) is valid


def test_avro_name_carries_the_ordinal() -> None:
    """semantics 6"""
    assert physical.avro_name("live::host-stat-v1", 3) == "headrace.live.s3.host_stat_v1"


def test_topics_and_consumer_groups_carry_the_prefix() -> None:
    assert physical.topic_name("x", "realtime") == "x.realtime"
    assert physical.consumer_group("x", "writer") == "x.writer"


@pytest.mark.parametrize("text", ['a"b', "a b", "A", "a;", "", "a\n", "1a"])
def test_nothing_but_an_identifier_reaches_a_statement(text: str) -> None:
    with pytest.raises(ValueError, match="is not a physical name"):
        physical.quoted(text)

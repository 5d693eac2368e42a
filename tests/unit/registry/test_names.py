"""The nearest valid name, for messages."""

from __future__ import annotations

import pytest

from headrace.registry.names import did_you_mean, nearest


@pytest.mark.parametrize(
    ("wrong", "valid", "expected"),
    [
        ("onlin", ["online", "offline"], "online"),
        ("zzz", ["online", "cache"], "online"),
        ("x" * 1_000_000, ["online"], "online"),
        ("x", [], None),
    ],
)
def test_nearest_is_a_valid_name_if_there_is_one(
    wrong: str, valid: list[str], expected: str | None
) -> None:
    assert nearest(wrong, valid) == expected


def test_only_a_name_that_may_have_been_meant_is_suggested() -> None:
    assert did_you_mean("levle", ["level", "score"]) == "; did you mean `level`?"
    assert did_you_mean("zzz", ["level", "score"]) == ""

"""What the owner of a hash slot could not be told is kept until it can."""

from __future__ import annotations

import pytest

from headrace.gateway.cached import cluster
from headrace.gateway.cached.cluster import Untold, UntoldKeys


def untold(key: bytes, block: bytes = b"block") -> Untold:
    return Untold(1, key, b"lease of " + key, block)


def test_a_key_is_untold_until_each_block_that_was_seen_is_told() -> None:
    keys = UntoldKeys()
    keys.add(untold(b"a", b"older"))
    keys.add(untold(b"a", b"newer"))
    keys.add(untold(b"a", b"newer"))
    assert keys.some(10) == [untold(b"a", b"older"), untold(b"a", b"newer")]
    keys.discard(untold(b"a", b"older"))
    assert b"a" in keys
    keys.discard(untold(b"a", b"newer"))
    assert b"a" not in keys


def test_what_cannot_be_told_now_lets_the_others_go_first() -> None:
    keys = UntoldKeys()
    for key in (b"a", b"b", b"c"):
        keys.add(untold(key))
    keys.put_off(b"a")
    assert [each.block_key for each in keys.some(2)] == [b"b", b"c"]


def test_telling_what_is_told_already_changes_nothing() -> None:
    keys = UntoldKeys()
    keys.discard(untold(b"a"))
    keys.put_off(b"a")
    assert keys.some(1) == []


def test_beyond_the_bound_the_oldest_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "UNTOLD_MAX", 2)
    keys = UntoldKeys()
    for key in (b"a", b"b", b"c"):
        keys.add(untold(key))
    assert [each.block_key for each in keys.some(9)] == [b"b", b"c"]

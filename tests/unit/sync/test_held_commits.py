"""Offsets wait for the cache, bounded in number and in time (semantics 18)."""

from __future__ import annotations

import random
import struct

import pytest

from headrace.registry.catalog import CachePolicy, CatalogDocument, Group, KeyField, Schema
from headrace.sync.backoff import Backoff
from headrace.sync.batch import Batch, Stage
from headrace.sync.errors import StageOrderBroken
from headrace.sync.held_commits import HeldCommits, holding_times_ms, longest_hold_ms
from headrace.sync.ports import Coordinates, LogRecord


def _stored(offset: int, *keys: bytes, safe_at_ms: int = 1_000) -> Batch:
    batch = Batch([LogRecord(Coordinates("realtime", 0, offset), b"k", b"v", 0)])
    for stage in (Stage.DECODED, Stage.BURIED, Stage.STORED):
        batch.enter(stage)
    batch.keys, batch.safe_at_ms = keys, safe_at_ms
    return batch


def _offsets(batches: list[Batch]) -> list[int]:
    return [batch.next_offsets["realtime", 0] for batch in batches]


def test_a_batch_without_keys_is_free_at_once() -> None:
    held = HeldCommits()
    held.hold(_stored(4))
    assert _offsets(held.release(0)) == [5]


def test_a_batch_waits_until_its_keys_are_invalidated() -> None:
    held = HeldCommits()
    held.hold(_stored(4, b"a"))
    assert held.release(999) == []
    held.settle(held.attempt(again=True))
    assert _offsets(held.release(999)) == [5]


def test_a_batch_is_free_when_no_older_block_can_exist_any_more() -> None:
    held = HeldCommits()
    held.hold(_stored(4, b"a", safe_at_ms=1_000))
    assert _offsets(held.release(1_000)) == [5]
    assert held.key_count == 0


def test_batches_leave_in_the_order_they_were_written() -> None:
    held = HeldCommits()
    held.hold(_stored(1, b"a", safe_at_ms=2_000))
    held.hold(_stored(2))
    held.hold(_stored(3, b"b", safe_at_ms=1_000))
    assert held.release(1_999) == []
    assert _offsets(held.release(2_000)) == [2, 3, 4]


def test_a_key_written_twice_is_invalidated_once() -> None:
    held = HeldCommits()
    held.hold(_stored(1, b"a", b"b"))
    held.hold(_stored(2, b"b", b"c"))
    assert held.attempt(again=True).keys == [b"a", b"b", b"c"]


def test_only_keys_that_could_not_be_invalidated_are_held_and_tried_again() -> None:
    """Keys still to be invalidated are held, no others (semantics 18)."""
    held = HeldCommits()
    held.hold(_stored(1, b"alive"))
    held.hold(_stored(2, b"dead", b"alive"))
    held.hold(_stored(3, b"alive"))
    held.settle(held.attempt(again=True), left=[b"dead"])
    assert held.key_count == 1
    assert _offsets(held.release(0)) == [2]
    assert held.attempt(again=True).keys == [b"dead"]


def test_what_was_tried_waits_while_what_is_new_is_tried() -> None:
    held = HeldCommits()
    held.hold(_stored(1, b"dead"))
    held.settle(held.attempt(again=False), left=[b"dead"])
    held.hold(_stored(2, b"new"))
    assert held.attempt(again=False).keys == [b"new"]


def test_batches_that_wait_for_older_ones_are_bounded_as_keys_are() -> None:
    held = HeldCommits(keys_max=2)
    held.hold(_stored(1, b"dead"))
    held.hold(_stored(2))
    assert held.full


def test_a_key_that_is_written_during_an_attempt_is_not_done_with_it() -> None:
    held = HeldCommits()
    held.hold(_stored(1, b"a"))
    attempt = held.attempt(again=True)
    held.hold(_stored(2, b"a"))
    held.settle(attempt)
    assert _offsets(held.release(0)) == [2]
    assert held.attempt(again=True).keys == [b"a"]


def test_polling_pauses_only_while_the_bound_is_reached() -> None:
    held = HeldCommits(keys_max=2)
    held.hold(_stored(1, b"a"))
    assert not held.full
    held.hold(_stored(2, b"b"))
    assert held.full
    held.settle(held.attempt(again=True))
    held.release(0)
    assert not held.full


def test_keys_are_held_for_their_groups_ttl_jitter_local_ttl_and_a_lease() -> None:
    """1.1 × cache.ttl + local_ttl + 2 s after the store write (semantics 18)."""
    groups = tuple(
        Group(
            id=number,
            name=f"live::group-{number}",
            feature_type="Object",
            owner="o",
            keys=(KeyField(name="k", type="Long"),),
            schemas=(Schema(ordinal=1, fields=()),),
            cache=CachePolicy(ttl_ms=ttl_ms, local_ttl_ms=local_ttl_ms),
        )
        for number, ttl_ms, local_ttl_ms in [(1, 600_000, 1_000), (2, 10_000, 0), (3, 0, 0)]
    )
    times_ms = holding_times_ms(CatalogDocument(generation=1, published_at_ms=0, groups=groups))
    assert times_ms == {1: 663_000, 2: 13_000, 3: 2_000}
    keys = [struct.pack(">I", 2) + b"x", struct.pack(">I", 3) + b"y"]
    assert longest_hold_ms(keys, times_ms) == 13_000


STAGES = list(Stage)


@pytest.mark.parametrize("reached", STAGES, ids=lambda stage: stage.name.lower())
def test_a_batch_goes_on_to_the_next_stage_and_no_other(reached: Stage) -> None:
    for wanted in STAGES:
        batch = Batch([])
        batch.stage = reached
        if wanted == reached + 1:
            batch.enter(wanted)
        else:
            with pytest.raises(StageOrderBroken, match=reached.name):
                batch.enter(wanted)


def test_waits_grow_to_their_bound_and_are_spread_over_all_of_it() -> None:
    backoff = Backoff(random.Random(1).random, first_ms=10, bound_ms=1_000)
    waits = [backoff.next_ms() for _ in range(1_000)]
    assert max(waits[:3]) <= 40
    assert 990 < max(waits) <= 1_000
    assert min(waits[10:]) < 20

"""The downsync decision: frozen vectors, the ratio, and the interval (semantics 26)."""

from __future__ import annotations

import math

import pytest

from headrace.registry.catalog import Downsync
from headrace.sync.downsync_sampling import is_emitted, is_sampled, sample_position

GROUP = "flights::airport-now"
KEY = bytes.fromhex("00000001") + b"\x00\x03JFK"


@pytest.mark.parametrize(
    ("group", "key", "bucket", "position"),
    [
        ("flights::airport-now", "0000000100034a464b", 23148148, 3051157343009350531),
        ("flights::airport-now", "0000000100034a464b", 23148149, 3162473156902465402),
        ("flights::airport-now", "0000000100034c4741", 23148148, 17344312867264960007),
        ("live::user-stats-v1", "0000000280000000000003e9", 1700000000, 17246082620492646695),
        ("live::user-stats-v1", "0000000280000000000003e9", -1, 5419490781718504833),
        ("a::b", "", 0, 13711960228892197020),
        (
            "live::realtime-room-context",
            "0000000a7fffffffffffffff",
            4611686018427387904,
            16432348482698916317,
        ),
        ("live::n", "0000ffff0000", -9223372036854775808, 10899833698070905149),
    ],
)
def test_sample_positions_never_change(group: str, key: str, bucket: int, position: int) -> None:
    """A changed number would sample differently after an upgrade: never edit these."""
    assert sample_position(group, bytes.fromhex(key), bucket) == position


@pytest.mark.parametrize("ratio", [0.01, 0.1, 0.5, 0.9, 0.99])
def test_the_sample_keeps_its_ratio(ratio: float) -> None:
    """(reliability W11): within four standard deviations of a binomial draw."""
    rows = 40_000
    policy = Downsync(enabled=True, min_interval_ms=1_000, random_sampling_ratio=ratio)
    kept = sum(
        is_sampled(GROUP, KEY + (row % 200).to_bytes(2, "big"), row // 200 * 1_000, policy)
        for row in range(rows)
    )
    deviation = math.sqrt(rows * ratio * (1 - ratio))
    assert abs(kept - rows * ratio) < 4 * deviation


@pytest.mark.parametrize(("ratio", "expected"), [(1.0, True), (0.0, False)])
def test_a_ratio_of_one_keeps_all_and_of_zero_none(ratio: float, *, expected: bool) -> None:
    policy = Downsync(enabled=True, random_sampling_ratio=ratio)
    decisions = {is_sampled(GROUP, KEY, second * 1_000, policy) for second in range(2_000)}
    assert decisions == {expected}


def test_a_larger_ratio_keeps_what_a_smaller_one_keeps() -> None:
    kept = [
        {
            second
            for second in range(2_000)
            if is_sampled(GROUP, KEY, second * 1_000, Downsync(random_sampling_ratio=ratio))
        }
        for ratio in (0.2, 0.6, 0.9)
    ]
    assert kept[0] < kept[1] < kept[2]


def test_times_of_one_bucket_share_a_decision() -> None:
    policy = Downsync(min_interval_ms=60_000, random_sampling_ratio=0.5)
    for minute in range(200):
        start = minute * 60_000
        decisions = {is_sampled(GROUP, KEY, start + at, policy) for at in (0, 1, 30_000, 59_999)}
        assert len(decisions) == 1


@pytest.mark.parametrize(
    ("after_ms", "emitted"),
    [(-1, False), (0, False), (59_999, False), (60_000, True), (600_000, True)],
)
def test_a_change_sooner_than_the_interval_is_dropped(after_ms: int, *, emitted: bool) -> None:
    policy = Downsync(min_interval_ms=60_000)
    last_ms = 1_700_000_000_123
    assert is_emitted(GROUP, KEY, last_ms + after_ms, policy, {KEY: last_ms}) is emitted


def test_a_key_never_emitted_waits_for_nothing() -> None:
    policy = Downsync(min_interval_ms=60_000)
    assert is_emitted(GROUP, KEY, 5, policy, {b"another key": 4})

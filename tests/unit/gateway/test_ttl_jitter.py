"""Blocks that were filled together do not all expire together."""

from __future__ import annotations

from collections import Counter

from headrace.gateway.cached.reads import jittered

KEYS = 10_000
TTL_MS = 600_000


def test_keys_filled_at_once_expire_over_a_tenth_of_their_ttl() -> None:
    """Each lives 0.9 to 1 times as long as declared, so that the store is asked for them evenly:
    in any second of that tenth for at most 1.2 times its share, but for what chance adds."""
    lives_ms = [jittered(TTL_MS) for _ in range(KEYS)]
    assert 0.9 * TTL_MS <= min(lives_ms) < 0.901 * TTL_MS
    assert 0.999 * TTL_MS < max(lives_ms) <= TTL_MS
    in_a_second = Counter(life_ms // 1_000 for life_ms in lives_ms)
    share = KEYS / (0.1 * TTL_MS / 1_000)
    # A count has a spread of √share: six of them are met once in a billion runs.
    assert max(in_a_second.values()) <= 1.2 * share + 6 * share**0.5

"""Which real-time commands reach the warehouse: interval and sample, decided alike everywhere.

The decision is a pure function of the commands of one key in log order, so every worker, restart
and version makes the same one (semantics 26).
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Final

from headrace.registry.catalog import Downsync

HASH_KEY: Final = b"headrace-downsync"
BUCKET_MS_MIN: Final = 1_000


def sample_position(group: str, key: bytes, bucket: int) -> int:
    """Where one key stands in one time bucket, as a number below 2^64.

    u64 BE of BLAKE2b-8(key = `headrace-downsync`; group · 0x00 · key bytes · bucket as i64 BE).
    """
    message = b"".join((group.encode(), b"\0", key, bucket.to_bytes(8, "big", signed=True)))
    return int.from_bytes(blake2b(message, digest_size=8, key=HASH_KEY).digest(), "big")


def is_sampled(group: str, key: bytes, event_time_ms: int, policy: Downsync) -> bool:
    """Whether the sample keeps this key at this time; a ratio of 1 keeps all."""
    bucket = event_time_ms // max(policy.min_interval_ms, BUCKET_MS_MIN)
    return sample_position(group, key, bucket) < policy.random_sampling_ratio * 2**64


def is_emitted(
    group: str,
    key: bytes,
    event_time_ms: int,
    policy: Downsync,
    last_emitted_ms: Mapping[bytes, int],
) -> bool:
    """Whether a command becomes an offline row, given when each key was last emitted."""
    last_ms = last_emitted_ms.get(key)
    if last_ms is not None and event_time_ms < last_ms + policy.min_interval_ms:
        return False
    return is_sampled(group, key, event_time_ms, policy)

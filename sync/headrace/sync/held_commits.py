"""Batches that are written and wait for the cache before they may be committed (semantics 18).

A batch is free once its keys are invalidated, or once so much time has passed since its store write
that no older block or lease can exist any more. Batches leave in the order they were written.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from headrace.registry.catalog import CachePolicy, CatalogDocument
from headrace.sync.batch import Batch, Stage

KEYS_MAX = 200_000
"""Keys held at most before polling pauses, about 10 MB of them, and batches that wait for older."""

MARGIN_MS = 2_000
"""A lease lives 2 s; a fill under an older one can land no later (semantics 18)."""

_group_id = struct.Struct(">I").unpack_from


class Attempt(NamedTuple):
    """Keys to invalidate, each once, oldest first, and the batches that wait for them."""

    keys: list[bytes]
    batches: list[Batch]


class HeldCommits:
    """Written batches that are not committed yet, oldest first."""

    def __init__(self, keys_max: int = KEYS_MAX) -> None:
        self._keys_max = keys_max
        self._batches: deque[Batch] = deque()
        self._untried: list[Batch] = []
        self.key_count = 0

    @property
    def full(self) -> bool:
        """True when polling has to pause."""
        return max(self.key_count, len(self._batches)) >= self._keys_max

    def hold(self, batch: Batch) -> None:
        """Keep a stored batch; one that has no `keys` is free as soon as those before it are."""
        self._batches.append(batch)
        if batch.keys:
            self._untried.append(batch)
        self.key_count += len(batch.keys)

    def attempt(self, *, again: bool) -> Attempt:
        """What is to be invalidated now: what is untried, and with `again` all that is held."""
        among, self._untried = self._batches if again else self._untried, []
        batches = [batch for batch in among if batch.keys]
        return Attempt(list(dict.fromkeys(key for batch in batches for key in batch.keys)), batches)

    def settle(self, attempt: Attempt, left: Iterable[bytes] = ()) -> None:
        """All keys of an attempt were invalidated, but those that are `left`."""
        remaining = frozenset(left)
        for batch in attempt.batches:
            self.key_count -= len(batch.keys)
            batch.keys = [key for key in batch.keys if key in remaining] if remaining else ()
            self.key_count += len(batch.keys)

    def release(self, now_ms: int) -> list[Batch]:
        """Take out the batches that may be committed now, oldest first."""
        free: list[Batch] = []
        while self._batches and _is_free(self._batches[0], now_ms):
            batch = self._batches.popleft()
            self.key_count -= len(batch.keys)
            batch.keys = ()
            batch.enter(Stage.INVALIDATED)
            free.append(batch)
        return free


def _is_free(batch: Batch, now_ms: int) -> bool:
    return not batch.keys or now_ms >= batch.safe_at_ms


def holding_times_ms(document: CatalogDocument) -> dict[int, int]:
    """By group id: how long after a store write an older block or lease of it may still exist."""
    return {group.id: _holding_time_ms(group.cache) for group in document.groups}


def _holding_time_ms(cache: CachePolicy) -> int:
    return -(-cache.ttl_ms * 11 // 10) + cache.local_ttl_ms + MARGIN_MS


def longest_hold_ms(keys: Iterable[bytes], times_ms: Mapping[int, int]) -> int:
    """The longest holding time among the groups of these keys."""
    group_ids = {_group_id(key)[0] for key in keys}
    return max((times_ms.get(group_id, MARGIN_MS) for group_id in group_ids), default=0)

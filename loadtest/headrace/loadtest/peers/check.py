"""Before anything is timed: every peer answers every row as the commands left it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import cast

from headrace.loadtest.feature_data import HISTORY, OBJECT, WIDE
from headrace.loadtest.peers.adapters import HEADRACE_JSON, Ask, post
from headrace.loadtest.peers.rows import Values
from headrace.loadtest.peers.servers import PATIENT_MS, Live, PeerFailed
from headrace.loadtest.peers.table import OUR_SERVER, Peer

LEARNT_PER_REQUEST = 100
FILLING_PASSES = 2
"""Filling the cache is best effort: a busy gateway drops some."""
KEYS_A_REQUEST = {OBJECT: 100, WIDE: 50, HISTORY: 1}
ABSENT_KEYS = [999_001, 999_002]
"""Asked for among rows that exist, so that their places are checked too."""


def check_equal(live: Live, peers: Sequence[Peer], told: Callable[[str], None]) -> dict[str, int]:
    """Compare all rows of all peers with the truth, by value; the counts of values compared.

    Raises `PeerFailed` with the first difference. Equal to one truth, peers are equal to each
    other.
    """
    counts: dict[str, int] = {}
    if any(peer.name == OUR_SERVER for peer in peers):
        told("filling our cache")
        _fill_our_cache(live)
    for peer in peers:
        told(f"checking the answers of {peer.name}")
        counts[peer.name] = sum(_check(live, peer, ask) for ask in _asks(live, peer))
    return counts


def _fill_our_cache(live: Live) -> None:
    for _ in range(FILLING_PASSES):
        for group, members in live.truth.items():
            learn(live, group, list(members))


def learn(live: Live, group: str, user_ids: Sequence[int]) -> None:
    """Have ours read these keys from the store, so that the cache holds them, absent ones too."""
    port = live.peers[OUR_SERVER].port
    for start in range(0, len(user_ids), LEARNT_PER_REQUEST):
        keys = list(user_ids[start : start + LEARNT_PER_REQUEST])
        ask = Ask(group, keys, some_absent=True, deadline_ms=PATIENT_MS)
        post(port, HEADRACE_JSON, HEADRACE_JSON.body(ask))


def _asks(live: Live, peer: Peer) -> Iterator[Ask]:
    for group, members in live.truth.items():
        if group == HISTORY and not peer.has_history:
            continue
        waiting = iter(members)
        while keys := list(itertools.islice(waiting, KEYS_A_REQUEST[group])):
            yield Ask(group, keys, deadline_ms=PATIENT_MS)
    yield Ask(
        OBJECT, [ABSENT_KEYS[0], 0, ABSENT_KEYS[1], 0], some_absent=True, deadline_ms=PATIENT_MS
    )


def _check(live: Live, peer: Peer, ask: Ask) -> int:
    port = live.peers[peer.name].port
    try:
        answer = post(port, peer.adapter, peer.adapter.body(ask))
    except OSError as error:
        raise PeerFailed(f"{peer.name} does not answer for {ask.group}: {error}") from error
    found = peer.adapter.rows(ask, answer, port)
    wanted = [live.truth[ask.group].get(user_id) for user_id in ask.user_ids]
    if len(found) != len(wanted):
        raise PeerFailed(f"{peer.name} answers {len(found)} rows for {len(wanted)} keys")
    for user_id, row, expected in zip(ask.user_ids, found, wanted, strict=True):
        if not _same(row, expected):
            raise PeerFailed(
                f"{peer.name} answers {str(row)[:300]} for {ask.group} {user_id}, "
                f"where the commands left {str(expected)[:300]}"
            )
    return sum(_values(row) for row in found)


def _same(found: object, wanted: object) -> bool:
    """Equal in value and in kind: true is not 1, and 1.0 is what JSON may print as 1."""
    if isinstance(found, list) and isinstance(wanted, list):
        ours, theirs = cast(list[object], found), cast(list[object], wanted)
        return len(ours) == len(theirs) and all(map(_same, ours, theirs))
    return found == wanted and isinstance(found, bool) == isinstance(wanted, bool)


def _values(row: Values | None) -> int:
    if row is None:
        return 0
    return sum(len(item) - 1 if isinstance(item, list) else 1 for item in row)

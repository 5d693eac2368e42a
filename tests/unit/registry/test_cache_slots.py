"""Where a Redis Cluster keeps a key's block and lease."""

from __future__ import annotations

import pytest
from redis.crc import key_slot

from headrace.registry.cache_slots import SLOTS, SlotPlacement

PLACEMENT = SlotPlacement(epoch=7)
KEYS = [b"", b"\0\0\0\1plain", b"{}", b"}{", b"{tag}x", b"\xff\r\n{"]


@pytest.mark.parametrize("key", KEYS)
def test_block_and_lease_are_in_the_slot_that_redis_puts_them_in(key: bytes) -> None:
    slot = PLACEMENT.node(key)
    assert key_slot(PLACEMENT.block_key(key)) == slot
    assert key_slot(PLACEMENT.lease_key(key)) == slot
    assert PLACEMENT.places([key]) == [(slot, PLACEMENT.block_key(key), PLACEMENT.lease_key(key))]


def test_no_two_keys_share_a_block_or_a_lease() -> None:
    made = [name(key) for key in KEYS for name in (PLACEMENT.block_key, PLACEMENT.lease_key)]
    made += [SlotPlacement(epoch=71).block_key(key) for key in KEYS]
    assert len(set(made)) == len(made)


def test_keys_are_spread_over_the_slots() -> None:
    slots = [PLACEMENT.node(number.to_bytes(8, "big")) for number in range(6_000)]
    thirds = [sum(slot * 3 // SLOTS == third for slot in slots) for third in range(3)]
    assert all(1_800 <= count <= 2_200 for count in thirds)


def test_where_keys_go_is_frozen() -> None:
    """Another version of this program must look where this one wrote."""
    assert PLACEMENT.block_key(b"\0\0\0\1key") == FROZEN_BLOCK_KEY
    assert PLACEMENT.node(b"\0\0\0\1key") == FROZEN_SLOT


FROZEN_BLOCK_KEY = b"hb7:{1615}\x00\x00\x00\x01key"
FROZEN_SLOT = 15626

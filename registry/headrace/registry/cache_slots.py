"""Where a Redis Cluster keeps what is cached of a key: block and lease in one hash slot.

A slot is the CRC16 of what stands in the first braces of a key, modulo 16,384 (Redis Cluster
Specification, "Hash tags"). The tag stands before the key bytes, which may hold braces themselves.

| bytes | what |
| --- | --- |
| `hb` or `hl` | a block, a lease |
| digits, `:{` digits `}` | the epoch; the tag, the CRC16 of the key bytes modulo 16,384 |
| n | key bytes |

It stands in for `headrace.codec.Placement`: the slot is the node, and the cluster says whose it is.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Sequence

SLOTS = 16_384


class SlotPlacement:
    """The cache keys of one epoch in a Redis Cluster."""

    def __init__(self, *, epoch: int) -> None:
        self._block = b"hb%d:{" % epoch
        self._lease = b"hl%d:{" % epoch

    def node(self, key: bytes) -> int:
        """The hash slot of a key's block and lease."""
        return crc_hqx(_tag(key), 0) % SLOTS

    def block_key(self, key: bytes) -> bytes:
        """The cache key of a key's block."""
        return self._block + _tag(key) + b"}" + key

    def lease_key(self, key: bytes) -> bytes:
        """The cache key of a key's lease."""
        return self._lease + _tag(key) + b"}" + key

    def places(self, keys: Sequence[bytes]) -> list[tuple[int, bytes, bytes]]:
        """Slot, block key and lease key of many keys, in the same order."""
        return [(self.node(key), self.block_key(key), self.lease_key(key)) for key in keys]


def _tag(key: bytes) -> bytes:
    return b"%d" % (crc_hqx(key, 0) % SLOTS)

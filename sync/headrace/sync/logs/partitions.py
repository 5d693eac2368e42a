"""Which partition a command goes to, and which member of a consumer group reads which partition.

Pure functions of their arguments: the same on every process, restart and version.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable

from headrace.sync.errors import CommitRefused
from headrace.sync.ports import PartitionId

DEAD_LETTER_TOPIC = "dead-letters"
"""Rides the same log as the command topics, with one partition."""

REPLAY_GROUP = "headrace-dead-letters-replay"
"""The consumer group whose committed offset says how far dead letters were replayed."""

DEFAULT_PARTITION_COUNT = 4


def partition_of(key: bytes, partition_count: int) -> int:
    """The partition of a key: CRC-32 (ISO-HDLC) of its bytes, modulo the number of partitions."""
    return zlib.crc32(key) % partition_count


def share_of(member: str, members: Collection[str], partitions: Iterable[int]) -> frozenset[int]:
    """The partitions that `member` should read: partitions dealt round to the sorted members."""
    order = sorted(members)
    mine = order.index(member)
    return frozenset(partition for partition in partitions if partition % len(order) == mine)


def refuse(group: str, lost: Collection[PartitionId]) -> None:
    """Raise `CommitRefused` naming the partitions that a member no longer holds, if any."""
    if lost:
        places = ", ".join(f"`{topic}/{partition}`" for topic, partition in sorted(lost))
        raise CommitRefused(
            f"{places} went to another member of `{group}` before this one committed; "
            "it will handle the same commands again, which changes nothing"
        )

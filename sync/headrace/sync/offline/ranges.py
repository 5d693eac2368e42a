"""Which rows count where ranges of commands overlap (semantics 25, 28).

Workers that overtake each other append overlapping ranges in any order: one that lay frozen past
its session, one that died before its checkpoint. A range tells of every offset in it, and two
workers decide alike about the offsets they share. So nothing is lost and nothing told twice if

- only ranges wholly inside the one being appended are removed, and only after that one is durable;
- of ranges that share offsets, the one that begins first tells of them, the widest of equals.

Removals go from the smaller to the larger range only, so no two workers remove each other's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from headrace.sync.offline.ports import LogRange

Place = TypeVar("Place")


def is_inside(one: LogRange, other: LogRange) -> bool:
    """Whether `other` tells of every offset of `one`, and is not `one` itself."""
    same = (one.topic, one.partition) == (other.topic, other.partition)
    within = other.first_offset <= one.first_offset and one.next_offset <= other.next_offset
    return same and within and one != other


def widest_first(held: LogRange) -> tuple[str, int, int, int]:
    """The order in which ranges are asked for an offset: the first one that has it tells it."""
    return held.topic, held.partition, held.first_offset, -held.next_offset


def counting(ranges: Iterable[tuple[Place, LogRange]]) -> list[tuple[Place, int | None]]:
    """The places that hold rows that count, in order; where an earlier range tells of the first
    offsets of a place, with the offset from which on the place tells of them itself."""
    told: dict[tuple[str, int], int] = {}
    counted: list[tuple[Place, int | None]] = []
    for place, held in sorted(ranges, key=lambda item: widest_first(item[1])):
        partition = (held.topic, held.partition)
        known = told.get(partition, 0)
        if known < held.next_offset:
            counted.append((place, known if known > held.first_offset else None))
            told[partition] = held.next_offset
    return counted

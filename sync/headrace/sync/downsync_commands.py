"""Commands as downsync sees them: what they touch and when, judged at the time they were appended.

A redo must judge a command as the first attempt did, so "now" is the moment the log took it, not
the moment this worker reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

import msgspec

from headrace.codec import Catalog, CommandBatch, encode_commands
from headrace.sync.ports import Coordinates, LogRecord

UNKNOWN_CODES: Final = frozenset({"UNKNOWN_GROUP", "UNKNOWN_FIELD"})
"""Rejections that a newer catalog may lift (semantics 21)."""


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One accepted command. `event` holds the values of an APPEND, else None."""

    coordinates: Coordinates
    group: str
    method: str
    key: bytes
    event_time_ms: int
    event: dict[str, object] | None = None


class Decoded(msgspec.Struct, frozen=True):
    """Commands that the writer applies too, in log order; the others it dead-letters.

    `has_unknown` says that a name was not in this catalog: a newer one may know it.
    """

    commands: list[Command]
    has_unknown: bool


def decode(catalog: Catalog, records: Sequence[LogRecord]) -> Decoded:
    """Check and take apart records of one partition."""
    commands: list[Command] = []
    has_unknown = False
    for appended_at_ms, taken in groupby(records, key=lambda record: record.appended_at_ms):
        together = list(taken)
        payloads = [record.value for record in together]
        batch = encode_commands(catalog, payloads, now_ms=appended_at_ms)
        has_unknown |= any(rejection.code in UNKNOWN_CODES for rejection in batch.rejections)
        commands += _commands(catalog, together, batch)
    return Decoded(commands, has_unknown)


def _commands(
    catalog: Catalog, records: Sequence[LogRecord], batch: CommandBatch
) -> Iterator[Command]:
    events = {
        mutation.index: mutation.cell for mutation in batch.mutations() if mutation.kind == "event"
    }
    for index, method, key, event_time_ms in batch.coordinates():
        group, _ = catalog.decode_key(key)
        event = catalog.decode_event(group, events[index])[1] if index in events else None
        yield Command(
            coordinates=records[index].coordinates,
            group=group,
            method=method,
            key=key,
            event_time_ms=event_time_ms,
            event=event,
        )

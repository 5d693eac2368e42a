"""A small catalog, streams of commands for it, and what the online store must hold in the end.

The reference is written from semantics 1 to 5 alone. Event times of a stream are all different, so
that it needs no digest to break ties.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import msgspec

from headrace.registry.catalog import (
    CatalogDocument,
    FeatureType,
    Group,
    KeyField,
    Schema,
    ValueField,
)

OBJECT = "live::room-v1"
HISTORY = "live::room-events"
START_MS = 1_700_000_000_000
DEFAULTS: dict[str, object] = {"viewers": 0, "score": 0.5, "title": "untitled"}
MAX_EVENTS = 10_000


def document(generation: int = 1, *, groups: Iterable[str] = (OBJECT, HISTORY)) -> CatalogDocument:
    """A catalog with an Object and a History, both keyed by `room_id`."""
    fields: dict[str, tuple[FeatureType, tuple[ValueField, ...]]] = {
        OBJECT: (
            "Object",
            (
                ValueField(id=1, name="viewers", type="Long", default=0),
                ValueField(id=2, name="score", type="Double", default=0.5),
                ValueField(id=3, name="title", type="Text", default="untitled"),
            ),
        ),
        HISTORY: (
            "History",
            (
                ValueField(id=1, name="kind", type="Text", default=""),
                ValueField(id=2, name="amount", type="Long", default=0),
            ),
        ),
    }
    wanted = [name for name in fields if name in set(groups)]
    return CatalogDocument(
        generation=generation,
        published_at_ms=START_MS,
        next_group_id=3,
        groups=tuple(
            Group(
                id=list(fields).index(name) + 1,
                name=name,
                feature_type=fields[name][0],
                owner="tests",
                keys=(KeyField(name="room_id", type="Long"),),
                schemas=(Schema(ordinal=1, fields=fields[name][1]),),
                max_events=MAX_EVENTS,
            )
            for name in wanted
        ),
    )


class Command(msgspec.Struct, frozen=True):
    """One good command, and its bytes."""

    group: str
    method: Literal["UPDATE", "APPEND", "DELETE"]
    room_id: int
    event_time_ms: int
    values: dict[str, object]

    @property
    def key(self) -> bytes:
        """What spreads it over partitions: one key stays in one of them."""
        return f"{self.group}/{self.room_id}".encode()

    @property
    def payload(self) -> bytes:
        return msgspec.json.encode(
            {
                "feature_name": self.group,
                "method": self.method,
                "keys": {"room_id": self.room_id},
                "values": {**self.values, "_last_updated_at_ms": self.event_time_ms},
            }
        )


def commands(draw: random.Random, count: int, *, rooms: int = 50) -> list[Command]:
    """Partial and complete updates, events and deletes, in no order of event time."""
    return list(command_stream(draw, count, rooms=rooms))


def command_stream(draw: random.Random, count: int, *, rooms: int) -> Iterator[Command]:
    """The same, made one by one."""
    times_ms = [START_MS + number for number in range(count)]
    draw.shuffle(times_ms)
    for time_ms in times_ms:
        yield _command(draw, draw.randrange(rooms), time_ms)


def _command(draw: random.Random, room_id: int, event_time_ms: int) -> Command:
    group = draw.choice([OBJECT, OBJECT, HISTORY])
    if draw.random() < 0.02:
        return Command(group, "DELETE", room_id, event_time_ms, {})
    if group == HISTORY:
        event: dict[str, object] = {"kind": draw.choice("abc"), "amount": draw.randrange(1 << 40)}
        return Command(group, "APPEND", room_id, event_time_ms, event)
    values: dict[str, object] = {
        "viewers": draw.randrange(-(1 << 60), 1 << 60),
        "score": draw.uniform(-1e6, 1e6),
        "title": draw.choice(["", "żółw", "🐢" * draw.randrange(1, 9), "plain title"]),
    }
    named = draw.sample(list(values), draw.randint(1, 3))
    return Command(group, "UPDATE", room_id, event_time_ms, {name: values[name] for name in named})


def poison(draw: random.Random, number: int) -> tuple[str, bytes]:
    """Bytes that are no command of this catalog, all different, and the threat they stand for."""
    good = Command(OBJECT, "UPDATE", number, START_MS + number, {"viewers": number}).payload
    threat, spoil = draw.choice(POISONS)
    return threat, spoil(good, number)


def _replaced(old: bytes, new: bytes) -> Callable[[bytes, int], bytes]:
    return lambda good, _: good.replace(old, new)


POISONS: list[tuple[str, Callable[[bytes, int], bytes]]] = [
    ("cut short", lambda good, number: good[: len(good) - 1 - number % 20] + b"%d" % number),
    ("not JSON", lambda _, number: b"\x00\xffnot json %d" % number),
    ("not UTF-8", _replaced(b'"UPDATE"', b'"UPD\xffATE"')),
    ("unknown group", _replaced(b"room-v1", b"room-v9")),
    ("unknown field", _replaced(b'"viewers"', b'"watchers"')),
    (
        "wrong type",
        lambda good, number: good.replace(b'"viewers":%d' % number, b'"viewers":"%d"' % number),
    ),
    ("missing key", lambda good, number: good.replace(b'{"room_id":%d}' % number, b"{}")),
    (
        "fractional key",
        lambda good, number: good.replace(b'"room_id":%d}' % number, b'"room_id":%d.0}' % number),
    ),
    (
        "no event time",
        lambda good, number: good.replace(b',"_last_updated_at_ms":%d' % (START_MS + number), b""),
    ),
    ("from the future", _replaced(b'"_last_updated_at_ms":1', b'"_last_updated_at_ms":9')),
    ("wrong method", _replaced(b"UPDATE", b"APPEND")),
    (
        "duplicate member",
        lambda good, number: good.replace(b'"method"', b'"method":"UPDATE","method"'),
    ),
    ("deep nesting", lambda _, number: b'{"feature_name":' + b"[" * 5_000 + b"%d" % number),
]


def expected_objects(stream: Iterable[Command]) -> dict[int, dict[str, object]]:
    """By room: every value field of the rows that are there (semantics 1, 2, 4)."""
    newest: defaultdict[int, dict[str, tuple[int, object]]] = defaultdict(dict)
    deleted_at: dict[int, int] = {}
    for command in stream:
        if command.group != OBJECT:
            continue
        room, time_ms = command.room_id, command.event_time_ms
        if command.method == "DELETE":
            deleted_at[room] = max(deleted_at.get(room, 0), time_ms)
        for name, value in command.values.items():
            if time_ms > newest[room].get(name, (0, None))[0]:
                newest[room][name] = (time_ms, value)
    rows: dict[int, dict[str, object]] = {}
    for room, cells in newest.items():
        live = {name: v for name, (at, v) in cells.items() if at > deleted_at.get(room, 0)}
        if live:
            rows[room] = DEFAULTS | live
    return rows


def expected_events(stream: Iterable[Command]) -> dict[int, list[tuple[int, dict[str, object]]]]:
    """By room: its events, newest first, each once (semantics 4, 5)."""
    events: defaultdict[int, dict[int, dict[str, object]]] = defaultdict(dict)
    deleted_at: dict[int, int] = {}
    for command in stream:
        if command.group != HISTORY:
            continue
        room, time_ms = command.room_id, command.event_time_ms
        if command.method == "DELETE":
            deleted_at[room] = max(deleted_at.get(room, 0), time_ms)
        else:
            events[room][time_ms] = command.values
    return {
        room: live
        for room, of_room in events.items()
        if (
            live := sorted(
                ((at, v) for at, v in of_room.items() if at > deleted_at.get(room, 0)),
                reverse=True,
                key=lambda e: e[0],
            )
        )
    }

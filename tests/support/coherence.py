"""The checker of cache coherence: one pass over a history of writes and reads.

Every written value names its key and its event time, so a read says by itself which writes it saw.
Per key and field the store is a register that only grows in event time (semantics 1), which makes
the rules simple: what a read saw must not be older than what was acknowledged before it began, nor
than what its reader saw before (semantics 19); it must have been written, to that key; and one
write is seen whole. "Acknowledged" is the writer's commit: the invalidation returned, or so much
time passed that no older block can exist (semantics 18).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

Key = tuple[str, int]
"""(feature group, user)."""

LEVEL, NAME = "level", "name"
LEASE_LIFE_S = 2.0
BLOCK_LIFE_FACTOR = 1.1


class Rules(msgspec.Struct, frozen=True):
    """What a group declares."""

    fields: tuple[str, ...] = (LEVEL, NAME)
    history_events: int | None = None
    """How many events a History keeps, None for an Object."""
    ttl_ms: int | None = None
    cache_ttl_ms: int = 0
    local_ttl_ms: int = 0

    @property
    def bound_s(self) -> float:
        """How long after a store write an older block or lease may exist (semantics 18)."""
        life_ms = BLOCK_LIFE_FACTOR * self.cache_ttl_ms + self.local_ttl_ms
        return life_ms / 1000 + LEASE_LIFE_S


class WriteBegun(msgspec.Struct, frozen=True, gc=False):
    """A command came to a writer. Without fields it is a DELETE."""

    at_s: float
    key: Key
    event_time_ms: int
    fields: tuple[str, ...]


class WriteStored(msgspec.Struct, frozen=True, gc=False):
    """The store answered."""

    at_s: float
    key: Key
    event_time_ms: int


class WriteAcknowledged(msgspec.Struct, frozen=True, gc=False):
    """Its offset was committed."""

    at_s: float
    key: Key
    event_time_ms: int


class ReadBegun(msgspec.Struct, frozen=True, gc=False):
    """A reader asked for one key."""

    at_s: float
    read: int
    reader: str
    key: Key
    now_ms: int
    fields: tuple[str, ...] | None = None
    """The fields asked for; None for all of the group."""


class ReadEnded(msgspec.Struct, frozen=True, gc=False):
    """What it got: the row's values in the order asked, and the status of each field."""

    at_s: float
    read: int
    now_ms: int
    row: Any
    statuses: tuple[str, ...]


class Disturbed(msgspec.Struct, frozen=True, gc=False):
    """A gateway lost a cache node at about this time, or is without it."""

    at_s: float


class Lying(msgspec.Struct, frozen=True, gc=False):
    """From now on a cache connection does, or no longer does, give replies that are not true."""

    at_s: float
    begins: bool


class StoreOutage(msgspec.Struct, frozen=True, gc=False):
    """From now on the store cannot be reached by some reader, or can be again by all."""

    at_s: float
    begins: bool


class Audited(msgspec.Struct, frozen=True, gc=False):
    """A cached block beside the one that the store folds to, and the life it has left."""

    at_s: float
    key: Key
    cached: bytes
    folded: bytes
    life_ms: int
    folded_life_ms: int


Event = (
    WriteBegun
    | WriteStored
    | WriteAcknowledged
    | ReadBegun
    | ReadEnded
    | Disturbed
    | Lying
    | StoreOutage
    | Audited
)


class Violation(msgspec.Struct, frozen=True):
    """A promise that was broken, and where in the history."""

    rule: str
    position: int
    key: Key
    told: str

    def __str__(self) -> str:
        return f"{self.rule} at event {self.position}, {self.key}: {self.told}"


def value_of(key: Key, event_time_ms: int, field: str) -> int | str:
    """The value that a write gives a field: it names key and write."""
    if field == NAME:
        return f"{key[0]}/{key[1]}@{event_time_ms}"
    return event_time_ms * 1_000_000 + key[1]


class Written(msgspec.Struct):
    """One write and how far it has come, by position in the history."""

    event_time_ms: int
    fields: tuple[str, ...]
    begun: int
    stored_s: float | None = None
    acknowledged: int | None = None
    acknowledged_s: float | None = None


class Register:
    """All writes of one key."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.writes: dict[int, Written] = {}
        self.deletes: list[int] = []
        """Event times of all deletes that began, ascending."""
        self.events: list[int] = []
        """Event times of all acknowledged events, ascending."""
        self.floors: dict[str, int] = dict.fromkeys(rules.fields, 0)
        """By field: the newest acknowledged write or delete."""
        self.pending: dict[int, Written] = {}

    def raise_floors(self, written: Written) -> None:
        for field in written.fields or self.rules.fields:
            self.floors[field] = max(self.floors[field], written.event_time_ms)

    def delete_since(self, event_time_ms: int) -> int | None:
        """The oldest delete that removes what has this event time."""
        position = bisect_left(self.deletes, event_time_ms)
        return self.deletes[position] if position < len(self.deletes) else None

    def acknowledged_before(self, event_time_ms: int, position: int) -> bool:
        written = self.writes.get(event_time_ms)
        return (
            written is not None
            and written.acknowledged is not None
            and written.acknowledged < position
        )


class Read(msgspec.Struct):
    """A read under way."""

    begun: ReadBegun
    position: int
    floors: dict[str, int]
    lying: bool
    outages: int


class Session:
    """What one reader knows of one key."""

    __slots__ = ("deleted", "floors", "seen")

    def __init__(self) -> None:
        self.floors: dict[str, int] = {}
        self.seen: frozenset[int] = frozenset()
        self.deleted = 0


class Checker:
    """Takes events in order; `violations` says what was broken, `counts` what was seen."""

    def __init__(self, rules: Mapping[str, Rules]) -> None:
        self.violations: list[Violation] = []
        self.counts: Counter[str] = Counter()
        self._rules = rules
        self._registers: dict[Key, Register] = {}
        self._sessions: defaultdict[tuple[str, Key], Session] = defaultdict(Session)
        self._reads: dict[int, Read] = {}
        self._position = -1
        self._disturbed = -1
        self._lying = 0
        self._outages_under_way = 0
        self._outages = 0

    def take(self, event: Event) -> None:
        """The next event of the history."""
        self._position += 1
        match event:
            case WriteBegun():
                self._write_begun(event)
            case WriteStored():
                self._write_stored(event)
            case WriteAcknowledged():
                self._write_acknowledged(event)
            case ReadBegun():
                self._read_begun(event)
            case ReadEnded():
                self._read_ended(event)
            case Audited():
                self._audited(event)
            case _:
                self._spell(event)

    def _spell(self, event: Disturbed | Lying | StoreOutage) -> None:
        match event:
            case Disturbed():
                self._disturbed = self._position
            case Lying():
                self._lying += 1 if event.begins else -1
                for read in self._reads.values():
                    read.lying = True
            case StoreOutage():
                self._outages_under_way += 1 if event.begins else -1
                self._outages += 1

    def register(self, key: Key) -> Register:
        """The register of a key."""
        found = self._registers.get(key)
        if found is None:
            found = self._registers[key] = Register(self._rules[key[0]])
        return found

    def break_promise(self, rule: str, key: Key, told: str) -> None:
        """Note a violation at this place of the history."""
        self.violations.append(Violation(rule, self._position, key, told))

    def _write_begun(self, event: WriteBegun) -> None:
        self.counts["writes"] += 1
        register = self.register(event.key)
        if event.event_time_ms in register.writes:
            return  # Replayed, which changes nothing.
        written = Written(event.event_time_ms, event.fields, self._position)
        register.writes[event.event_time_ms] = written
        if not event.fields:
            insort(register.deletes, event.event_time_ms)

    def _write_stored(self, event: WriteStored) -> None:
        register = self.register(event.key)
        written = register.writes[event.event_time_ms]
        if written.stored_s is None:
            written.stored_s = event.at_s
            if written.acknowledged is None:
                register.pending[event.event_time_ms] = written

    def _write_acknowledged(self, event: WriteAcknowledged) -> None:
        register = self.register(event.key)
        self._acknowledge(register, register.writes[event.event_time_ms], event.at_s)

    def _acknowledge(self, register: Register, written: Written, at_s: float) -> None:
        register.pending.pop(written.event_time_ms, None)
        if written.acknowledged is not None:
            return
        written.acknowledged, written.acknowledged_s = self._position, at_s
        register.raise_floors(written)
        if written.fields:
            insort(register.events, written.event_time_ms)

    def _read_begun(self, event: ReadBegun) -> None:
        register = self.register(event.key)
        bound_s = register.rules.bound_s
        for written in tuple(register.pending.values()):
            if written.stored_s is not None and written.stored_s + bound_s < event.at_s:
                self._acknowledge(register, written, event.at_s)
        self._reads[event.read] = Read(
            event, self._position, dict(register.floors), self._lying > 0, self._outages
        )

    def _read_ended(self, event: ReadEnded) -> None:
        self.counts["reads"] += 1
        read = self._reads.pop(event.read)
        key = read.begun.key
        self.counts[event.statuses[0] if event.statuses else "OK"] += 1
        if "CORRUPT" in event.statuses:
            self.break_promise("corrupt", key, "a row is CORRUPT and nothing in the store is")
        elif "UNAVAILABLE" in event.statuses:
            if not self._outages_under_way and read.outages == self._outages:
                self.break_promise("unavailable", key, "UNAVAILABLE while the store was there")
        elif self._rules[key[0]].history_events is None:
            ObjectRead(self, read, event).check()
        else:
            HistoryRead(self, read, event).check()

    def _audited(self, event: Audited) -> None:
        self.counts["audited"] += 1
        if event.cached != event.folded:
            self.break_promise(
                "incoherent", event.key, f"cached {event.cached!r}, folded {event.folded!r}"
            )
        if event.life_ms > event.folded_life_ms:
            told = f"lives {event.life_ms} ms, may live {event.folded_life_ms} ms (semantics 7)"
            self.break_promise("life", event.key, told)

    def session(self, read: Read) -> Session:
        """What the reader of a read knows of its key."""
        return self._sessions[read.begun.reader, read.begun.key]

    def slack_s(self, read: Read) -> float:
        """How old an answer may be: the group's `local_ttl`, or all that lying replies allow.

        Monotonic reads are promised only without (semantics 19).
        """
        rules = self._rules[read.begun.key[0]]
        return rules.bound_s if read.lying else rules.local_ttl_ms / 1000

    def excused(self, read: Read, event_time_ms: int) -> bool:
        """Whether a reader may lose sight of a write again.

        Its invalidation is still held and a gateway was without the cache meanwhile: the declared
        bound holds then, and nothing better (semantics 19).
        """
        register = self.register(read.begun.key)
        written = register.writes.get(event_time_ms)
        return (
            written is not None
            and not register.acknowledged_before(event_time_ms, read.position)
            and self._disturbed > written.begun
        )

    def oldest_floor(self, read: Read, field: str) -> int:
        """What a read must not be older than."""
        slack_s = self.slack_s(read)
        if not slack_s:
            return read.floors[field]
        register = self.register(read.begun.key)
        before_s = read.begun.at_s - slack_s
        return max(
            (
                written.event_time_ms
                for written in register.writes.values()
                if written.acknowledged_s is not None
                and written.acknowledged_s < before_s
                and field in (written.fields or register.rules.fields)
            ),
            default=0,
        )


class ObjectRead:
    """One row of an Object against what is known."""

    def __init__(self, checker: Checker, read: Read, ended: ReadEnded) -> None:
        self._checker = checker
        self._read = read
        self._ended = ended
        self._key = read.begun.key
        self._register = checker.register(self._key)
        self._fields = read.begun.fields or self._register.rules.fields
        self._seen: dict[str, int | None] = {}

    def check(self) -> None:
        """Every field, then all together."""
        for field, value, status in zip(
            self._fields, self._ended.row, self._ended.statuses, strict=True
        ):
            absent = status in ("MISSING", "DEFAULTED")
            seen = None if absent else self._written(field, value)
            if not absent and seen is None:
                return
            self._seen[field] = seen
            self._not_older(field, seen)
        self._whole()

    def _break(self, rule: str, told: str) -> None:
        told += f" (reader {self._read.begun.reader}, read {self._read.begun.read})"
        self._checker.break_promise(rule, self._key, told)

    def _written(self, field: str, value: Any) -> int | None:
        """The write that a value is of."""
        try:
            seen = int(value.rsplit("@")[-1]) if field == NAME else value // 1_000_000
        except (AttributeError, ValueError, TypeError):
            seen = 0
        written = self._register.writes.get(seen)
        known = written is not None and field in written.fields
        if not known or value != value_of(self._key, seen, field):
            self._break("never written", f"`{field}` is {value!r}")
            return None
        return seen

    def _not_older(self, field: str, seen: int | None) -> None:
        floor = self._checker.oldest_floor(self._read, field)
        if seen is None:
            if not self._may_be_absent(floor):
                self._break("lost", f"`{field}` is absent, but {floor} was acknowledged")
        else:
            if seen < floor:
                self._break("stale", f"`{field}` is of {seen}, but {floor} was acknowledged")
            ttl_ms = self._register.rules.ttl_ms
            if ttl_ms is not None and seen + ttl_ms <= self._read.begun.now_ms:
                self._break("expired", f"`{field}` of {seen} had expired")
        if not self._checker.slack_s(self._read):
            self._not_backwards(field, seen)

    def _may_be_absent(self, floor: int) -> bool:
        return floor == 0 or self._expired(floor) or self._register.delete_since(floor) is not None

    def _expired(self, event_time_ms: int) -> bool:
        ttl_ms = self._register.rules.ttl_ms
        return ttl_ms is not None and event_time_ms + ttl_ms <= self._ended.now_ms

    def _not_backwards(self, field: str, seen: int | None) -> None:
        session = self._checker.session(self._read)
        floor = session.floors.get(field, 0)
        if seen is None:
            if not self._may_be_absent(floor):
                if not self._checker.excused(self._read, floor):
                    self._break("backwards", f"`{field}` is absent after {floor} was seen")
            elif floor and not self._expired(floor):
                session.floors[field] = self._register.delete_since(floor) or floor
        elif seen < floor and not self._checker.excused(self._read, floor):
            self._break("backwards", f"`{field}` is of {seen} after {floor} was seen")
        else:
            session.floors[field] = max(seen, floor)

    def _whole(self) -> None:
        for seen in self._seen.values():
            for field in self._register.writes[seen].fields if seen is not None else ():
                beside = self._seen.get(field, seen)
                if beside is None or (seen is not None and beside < seen):
                    self._break("torn", f"{seen} wrote `{field}` too, which is of {beside}")


class HistoryRead:
    """One list of events against what is known."""

    def __init__(self, checker: Checker, read: Read, ended: ReadEnded) -> None:
        self._checker = checker
        self._read = read
        self._ended = ended
        self._key = read.begun.key
        self._register = checker.register(self._key)

    def check(self) -> None:
        """Events are true, in order, none is missing and none is back."""
        times = [event[0] for event in self._ended.row]
        for event in self._ended.row:
            written = self._register.writes.get(event[0])
            expected = [value_of(self._key, event[0], field) for field in (LEVEL, NAME)]
            if written is None or not written.fields or event[1:] != expected:
                self._break("never written", f"event {event!r}")
                return
        if times != sorted(set(times), reverse=True):
            self._break("disorder", f"events of {times}")
            return
        events_max = self._register.rules.history_events or 0
        oldest = times[-1] if len(times) >= events_max else 0
        self._none_lost(frozenset(times), oldest)
        self._none_back(times)
        if not self._checker.slack_s(self._read):
            self._not_backwards(frozenset(times), oldest)

    def _break(self, rule: str, told: str) -> None:
        told += f" (reader {self._read.begun.reader}, read {self._read.begun.read})"
        self._checker.break_promise(rule, self._key, told)

    def _known(self, event_time_ms: int) -> bool:
        """Whether a write had to be known to this read."""
        written = self._register.writes[event_time_ms]
        slack_s = self._checker.slack_s(self._read)
        if not slack_s:
            return self._register.acknowledged_before(event_time_ms, self._read.position)
        before_s = self._read.begun.at_s - slack_s
        return written.acknowledged_s is not None and written.acknowledged_s < before_s

    def _none_lost(self, seen: frozenset[int], oldest: int) -> None:
        for event in reversed(self._register.events):
            if event <= oldest:
                break
            known = event in seen or not self._known(event)
            if not known and self._register.delete_since(event) is None:
                self._break("lost", f"event {event} was acknowledged")

    def _none_back(self, times: list[int]) -> None:
        for event in times:
            for delete in self._register.deletes[bisect_left(self._register.deletes, event) :]:
                if self._known(delete):
                    self._break("stale", f"event {event} was deleted by {delete}")

    def _not_backwards(self, seen: frozenset[int], oldest: int) -> None:
        session = self._checker.session(self._read)
        for event in session.seen - seen:
            delete = self._register.delete_since(event)
            if event <= oldest or self._checker.excused(self._read, event):
                continue
            if delete is None:
                self._break("backwards", f"event {event} was seen before")
            else:
                session.deleted = max(session.deleted, delete)
        for event in seen:
            if event <= session.deleted and not self._checker.excused(self._read, session.deleted):
                self._break("backwards", f"event {event} was seen deleted before")
        session.seen = seen


def check(history: Iterable[Event], rules: Mapping[str, Rules]) -> Checker:
    """A checker that has taken the whole history."""
    checker = Checker(rules)
    for event in history:
        checker.take(event)
    return checker

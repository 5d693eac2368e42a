"""Answers of a gateway as Python values: what a read gave, what became of commands.

Rows stay the lists that msgspec decodes them to, in request order: one Python object a value and
none beside it. Statuses, numpy and Arrow are made from them when they are asked for.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from headrace.client.errors import CommandsRefused, UnusableValue

if TYPE_CHECKING:
    import numpy as np

EVENT_TIME = "_event_time_ms"
"""First field of a History: the event time of each event."""

Unusable = Literal["raise", "null"]
"""What to do about values that are UNAVAILABLE or CORRUPT."""

Record = TypeVar("Record")


class Status(enum.Enum):
    """What is known of a value, from good to bad."""

    OK = "OK"
    DEFAULTED = "DEFAULTED"
    """Never written, or expired: the default stands there."""
    STALE = "STALE"
    """As stored, and older than the group's `max_age`."""
    NOT_FINITE = "NOT_FINITE"
    """NaN or infinite: null stands there."""
    MISSING = "MISSING"
    """There is no such row: defaults stand there."""
    UNAVAILABLE = "UNAVAILABLE"
    """The store was not reached in time: null stands there, whatever the value is."""
    CORRUPT = "CORRUPT"
    """The stored bytes are damaged: null stands there, whatever the value is."""

    @property
    def usable(self) -> bool:
        """Whether the value that stands there is an answer at all."""
        return self not in (Status.UNAVAILABLE, Status.CORRUPT)


class RowStatus(msgspec.Struct, frozen=True):
    """What is not OK about one row; `fields` names which of its fields, None all of them."""

    row: int
    status: Status
    fields: tuple[str, ...] | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of one read, in the order of its keys.

    A row of an Object is a list of values in the order of `fields`. A row of a History is a list of
    such lists, one an event, newest first, and None when it could not be read.
    """

    feature_group: str
    alias: str | None = msgspec.field(name="as", default=None)
    fields: tuple[str, ...]
    rows: list[list[Any] | None]
    statuses: tuple[RowStatus, ...]
    event_times: tuple[int | None, ...] | None = None
    """Of each row, in ms; asked for with `ReadOptions(event_times=True)`."""

    @property
    def name(self) -> str:
        """The alias in its service, else the feature group."""
        return self.alias or self.feature_group

    @property
    def is_history(self) -> bool:
        return self.fields[:1] == (EVENT_TIME,)

    @property
    def unusable(self) -> bool:
        """Whether any value is UNAVAILABLE or CORRUPT."""
        return any(not entry.status.usable for entry in self.statuses)

    def status(self, row: int, field: str | None = None) -> Status:
        """Of a value; without `field` the worst of its row. Raises KeyError for an unknown field.

        One value has one status, the worst that holds.
        """
        position = range(len(self.rows))[row]
        if field is not None:
            self._position(field)
        said = [
            entry.status
            for entry in self.statuses
            if entry.row == position
            and (field is None or entry.fields is None or field in entry.fields)
        ]
        return max(said, key=_BADNESS.__getitem__, default=Status.OK)

    def value(self, row: int, field: str) -> Any:
        """One value of an Object; raises `UnusableValue` rather than give a null that is none."""
        values = self.rows[row]
        position = self._position(field)
        status = self.status(row, field)
        if values is None or not status.usable:
            raise UnusableValue(f"`{self.name}` row {row} field `{field}` is {status.value}")
        return values[position]

    def column(self, field: str, *, unusable: Unusable = "raise") -> list[Any]:
        """One value a row; of a History a list a row, or None.

        Raises `UnusableValue` where a row could not be read, unless null is asked for instead.
        """
        position = self._position(field)
        if unusable == "raise":
            self._check_usable((field,))
        if self.is_history:
            return [
                None if row is None else [event[position] for event in row] for row in self.rows
            ]
        return [None if row is None else row[position] for row in self.rows]

    def status_column(self, field: str) -> list[Status]:
        """One status a row."""
        self._position(field)
        statuses = [Status.OK] * len(self.rows)
        for entry in self.statuses:
            if (entry.fields is None or field in entry.fields) and (
                _BADNESS[entry.status] > _BADNESS[statuses[entry.row]]
            ):
                statuses[entry.row] = entry.status
        return statuses

    def records(self, kind: type[Record], *, unusable: Unusable = "raise") -> list[Record]:
        """The rows of an Object as a dataclass, `msgspec.Struct` or `TypedDict` of the caller's.

        Its attributes are named like fields and typed as Python has them: `datetime` for Timestamp,
        `date` for Date, `bytes` for Bytes. Raises `msgspec.ValidationError` where one does not fit.
        """
        if self.is_history:
            raise TypeError(f"`{self.name}` is a History; use `events(row, kind)`")
        if unusable == "raise":
            self._check_usable(self.fields)
        records: list[Record] = msgspec.convert(
            [dict(zip(self.fields, row or (), strict=True)) for row in self.rows],
            GenericAlias(list, (kind,)),
        )
        return records

    def events(self, row: int, kind: type[Record]) -> list[Record]:
        """The events of one History row, newest first, as `records` has rows.

        The event time is the attribute `event_time_ms`.
        """
        if not self.is_history:
            raise TypeError(f"`{self.name}` is no History; use `records(kind)`")
        events = self.rows[row]
        if events is None:
            raise UnusableValue(f"`{self.name}` row {row} is {self.status(row).value}")
        names = ("event_time_ms", *self.fields[1:])
        made: list[Record] = msgspec.convert(
            [dict(zip(names, event, strict=True)) for event in events], GenericAlias(list, (kind,))
        )
        return made

    def to_numpy(
        self, *fields: str, dtype: str = "float32", unusable: Unusable = "raise"
    ) -> np.ndarray[Any, Any]:
        """Shape (rows, fields), or (rows, N) for one `Vector<N>` or list field of equal lengths.

        Fields are numbers or Booleans; none named is all. Null is NaN. Needs numpy.
        """
        from headrace.client.arrays import matrix

        return matrix(self, fields or self.fields, dtype, unusable)

    def _position(self, field: str) -> int:
        try:
            return self.fields.index(field)
        except ValueError:
            listed = ", ".join(f"`{name}`" for name in self.fields)
            raise KeyError(f"`{self.name}` has no field `{field}` here; it has {listed}") from None

    def _check_usable(self, fields: Iterable[str]) -> None:
        wanted = set(fields)
        for entry in self.statuses:
            if not entry.status.usable and (
                entry.fields is None or not wanted.isdisjoint(entry.fields)
            ):
                raise UnusableValue(
                    f"`{self.name}` row {entry.row} is {entry.status.value}; pass "
                    '`unusable="null"` to have null there'
                )


_BADNESS = {status: badness for badness, status in enumerate(Status)}


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """What a read gave: one result for each of its reads, in order.

    `read["name"]` is the result of that alias or feature group, `read.result` the only one.
    """

    generation: int
    """Of the catalog that the answer was made under."""
    results: tuple[Result, ...]
    request_id: str = ""

    def __getitem__(self, name: str) -> Result:
        found = [result for result in self.results if result.name == name]
        if len(found) != 1:
            listed = ", ".join(f"`{result.name}`" for result in self.results)
            raise KeyError(f"{len(found)} results are named `{name}`; there are {listed}")
        return found[0]

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    @property
    def result(self) -> Result:
        """The only result; raises ValueError when there are others."""
        if len(self.results) != 1:
            raise ValueError(f"this read has {len(self.results)} results; take one by its name")
        return self.results[0]

    @property
    def unusable(self) -> bool:
        """Whether any value is UNAVAILABLE or CORRUPT."""
        return any(result.unusable for result in self.results)


class AppendedCommand(msgspec.Struct, frozen=True, kw_only=True):
    """Where the command at `index` of the list stands on the command log."""

    index: int
    topic: str
    partition: int
    offset: int


class RefusedCommand(msgspec.Struct, frozen=True, kw_only=True):
    """Why the command at `index` of the list was not appended."""

    index: int
    code: str
    detail: str
    path: str
    offset: int | None


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a list of commands. The appended ones are durable."""

    generation: int
    appended: tuple[AppendedCommand, ...]
    refused: tuple[RefusedCommand, ...]
    request_id: str = ""

    def check(self) -> Sent:
        """Itself; raises `CommandsRefused` when any command was refused."""
        if self.refused:
            raise CommandsRefused(self.refused)
        return self

"""An offline store in memory: the rules in plain Python, the model that adapters must equal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import TypeAlias, cast

from headrace.registry.catalog import Group
from headrace.sync.errors import RunConflict
from headrace.sync.offline.ports import ChangeQuery, ChangeSet, LogRange
from headrace.sync.offline.ranges import counting, is_inside
from headrace.sync.offline.types import (
    COMMAND_OFFSET,
    DELETED,
    EVENT_TIME,
    INGESTED_AT,
    SOURCE,
    Rows,
    arrow_rows,
    declared_columns,
    key_columns,
    mark_column,
    system_columns,
    upsync_columns,
)

Row: TypeAlias = dict[str, object]

_FOREVER = datetime.max.replace(tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class MemoryOfflineStore:
    """`OfflineReader` and `OfflineWriter` over lists of dicts."""

    def __init__(self) -> None:
        self._appended: dict[str, dict[LogRange, list[Row]]] = {}
        self._sent: dict[str, set[tuple[str, str]]] = {}
        self._pinned: dict[tuple[str, str], tuple[list[Row], ChangeSet]] = {}
        self._running: dict[str, str] = {}

    async def append(self, group: Group, rows: Rows, token: LogRange) -> None:
        kept = self._appended.setdefault(group.name, {})
        for other in [known for known in kept if is_inside(known, token)]:
            del kept[other]
        kept[token] = rows.to_pylist()

    async def prepare(self, group: Group, query: ChangeQuery) -> ChangeSet:
        if self._running.setdefault(group.name, query.run_id) != query.run_id:
            raise RunConflict(f"another upsync of `{group.name}` is under way")
        place = (group.name, query.run_id)
        if place not in self._pinned:
            self._pinned[place] = self._change(group, query)
        return self._pinned[place][1]

    async def fetch(self, group: Group, run_id: str, *, first_row: int, rows: int) -> Rows:
        chunk = self._pinned[group.name, run_id][0][first_row : first_row + rows]
        columns = upsync_columns(group)
        ready = [{column.name: row[column.name] for column in columns} for row in chunk]
        return arrow_rows(columns, ready)

    async def settle(self, group: Group, run_id: str) -> None:
        rows = self._pinned[group.name, run_id][0]
        sent = self._sent.setdefault(group.name, set())
        if group.feature_type == "Object":
            keys = {_key(group, row) for row in rows}
            sent -= {pair for pair in sent if pair[0] in keys}
        sent |= {(_key(group, row), str(row["_hash"])) for row in rows}

    async def release(self, group: Group, run_id: str) -> None:
        self._pinned.pop((group.name, run_id), None)
        self._running.pop(group.name, None)

    async def stored(self, group: Group) -> Rows:
        return arrow_rows(declared_columns(group) + system_columns(), self._rows(group))

    def _rows(self, group: Group) -> list[Row]:
        """Every row that counts."""
        kept = self._appended.get(group.name, {})
        return [
            row
            for token, first_offset in counting((token, token) for token in kept)
            for row in kept[token]
            if first_offset is None or cast("int", row[COMMAND_OFFSET]) >= first_offset
        ]

    def _change(self, group: Group, query: ChangeQuery) -> tuple[list[Row], ChangeSet]:
        latest = self._latest(group)
        since = _EPOCH if query.since_ms is None else _instant(query.since_ms)
        sent = set[tuple[str, str]]() if query.full else self._sent.get(group.name, set())
        rows: list[Row] = []
        for row in latest:
            identity = _hash(group, row)
            if _moment(group, row) >= since and (_key(group, row), identity) not in sent:
                moment = _moment(group, row)
                at = _instant(query.snapshot_time_ms) if moment == _FOREVER else moment
                rows.append({**row, EVENT_TIME: at, "_hash": identity})
        rows.sort(key=lambda row: str(row["_hash"]))
        moments = [moment for row in latest if (moment := _moment(group, row)) != _FOREVER]
        mark = (max(moments) - _EPOCH) // timedelta(milliseconds=1) if moments else None
        return rows, ChangeSet(rows=len(rows), scanned=len(latest), mark_ms=mark)

    def _latest(self, group: Group) -> list[Row]:
        by_key: dict[str, list[Row]] = {}
        for row in self._rows(group):
            by_key.setdefault(_key(group, row), []).append(_with_defaults(group, row))
        latest: list[Row] = []
        for rows in by_key.values():
            newest = max(_moment(group, row) for row in rows)
            if any(row[DELETED] and _moment(group, row) == newest for row in rows):
                continue
            batch_rows = [row for row in rows if row[SOURCE] != "downsync" and not row[DELETED]]
            latest += _newest(group, batch_rows)
        return latest


def _newest(group: Group, rows: list[Row]) -> Iterable[Row]:
    if group.feature_type == "Object":
        order: Callable[[Row], tuple[datetime, datetime, str]] = lambda row: (  # noqa: E731 - a typed key
            _moment(group, row),
            cast("datetime", row[INGESTED_AT]),
            _hash(group, row),
        )
        return sorted(rows, key=order)[-1:]
    moments = sorted((_moment(group, row) for row in rows), reverse=True)
    oldest = moments[: group.max_events][-1:]
    distinct = {_hash(group, row): row for row in rows if [_moment(group, row)] >= oldest}
    return distinct.values()


def _with_defaults(group: Group, row: Row) -> Row:
    filled = dict(row)
    for column in declared_columns(group):
        if filled.get(column.name) is None:
            filled[column.name] = column.default
    return filled


def _moment(group: Group, row: Row) -> datetime:
    mark = mark_column(group)
    for name in (mark, EVENT_TIME):
        value = row.get(name) if name is not None else None
        if isinstance(value, datetime):
            return value
    return _FOREVER


def _key(group: Group, row: Row) -> str:
    return repr([row[column.name] for column in key_columns(group)])


def _hash(group: Group, row: Row) -> str:
    return repr([row[column.name] for column in declared_columns(group)] + [row[EVENT_TIME]])


def _instant(milliseconds: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=milliseconds)

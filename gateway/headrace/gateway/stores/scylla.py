"""Reading from ScyllaDB (or Cassandra) through acsylla: the catalog, and the rows a cache missed.

Point reads in flight together, never IN across partitions, at LOCAL_QUORUM because what is read
here may fill a cache. A read that fails is a reason, never a missing row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from acsylla.errors import CassException

from headrace.codec import Catalog
from headrace.gateway.ports import Cells, Unreachable
from headrace.gateway.stores.in_flight import InFlight, result_of
from headrace.registry.cql import CATALOG, RowStatements
from headrace.registry.errors import CatalogUnreadable

READS_IN_FLIGHT_MAX = 256
LIVE = "live"


class ScyllaCatalogReader:
    """`CatalogReader` over the catalog row; raises `CatalogUnreadable`."""

    def __init__(self, session: Any, keyspace: str) -> None:
        self._session = session
        self._table = f"{keyspace}.{CATALOG}"
        self._prepared: dict[str, Any] = {}

    async def generation(self) -> int:
        """The live generation, 0 when nothing was ever published."""
        found = await self._select("generation")
        return int(found) if found is not None else 0

    async def load(self) -> bytes | None:
        """The live document."""
        found = await self._select("document")
        return bytes(found) if found is not None else None

    async def _select(self, column: str) -> Any:
        text = f"SELECT {column} FROM {self._table} WHERE name = ?"
        try:
            if column not in self._prepared:
                self._prepared[column] = await self._session.create_prepared(text)
            row = (await self._session.execute(self._prepared[column].bind([LIVE]))).first()
        except CassException as error:
            reason = str(error) or type(error).__name__
            raise CatalogUnreadable(f"the online store cannot be reached: {reason}") from error
        return None if row is None else row.column_value(column)


class ScyllaRows:
    """Rows by key, as cells that the codec folds."""

    def __init__(self, session: Any, keyspace: str) -> None:
        self._session = session
        self._keyspace = keyspace
        self._prepared: dict[tuple[str, bool], Any] = {}
        """Of a group's name and whether its rows are histories."""
        self._in_flight = InFlight(READS_IN_FLIGHT_MAX)

    @property
    def in_flight(self) -> int:
        """Reads that the store was asked for and has not answered."""
        return self._in_flight.under_way

    async def fetch(
        self, catalog: Catalog, wanted: Sequence[tuple[bytes, int | None]], *, limit_ms: int
    ) -> list[Cells | Unreachable]:
        """One outcome per wanted (key, limit); the limit of a History, None for an Object."""
        due_s = asyncio.get_running_loop().time() + limit_ms / 1000
        begun: list[Begun | Unreachable] = []
        try:
            await self._begin(catalog, wanted, due_s, begun)
            outcomes: list[Cells | Unreachable] = []
            for each, (_, limit) in zip(begun, wanted, strict=True):
                if isinstance(each, Unreachable):
                    outcomes.append(each)
                    continue
                call, ended = each
                # Reads begun together end together: few of them have to be waited for.
                if not ended.done():
                    await ended
                outcomes.append(_outcome(call, is_history=limit is not None))
        except BaseException:
            for each in begun:
                if not isinstance(each, Unreachable):
                    each[0].close()
            raise
        return outcomes

    async def _begin(
        self,
        catalog: Catalog,
        wanted: Sequence[tuple[bytes, int | None]],
        due_s: float,
        begun: list[Begun | Unreachable],
    ) -> None:
        """Begin a read per wanted row, or say why not: into `begun`, in order."""
        now_s = asyncio.get_running_loop().time
        in_flight, execute = self._in_flight, self._session.execute
        limit_s, room = due_s - now_s(), 0
        keys = catalog.decode_keys([key for key, _ in wanted])
        for (group, parameters), (key, limit) in zip(keys, wanted, strict=True):
            try:
                prepared = self._prepared.get((group, limit is not None))
                if prepared is None:
                    prepared = await self._prepare(catalog, key, is_history=limit is not None)
                    room = 0
                if room == 0:
                    left = len(wanted) - len(begun)
                    room = in_flight.room_now(left) or await in_flight.room(left)
                    limit_s = due_s - now_s()
                if limit_s < DRIVER_LIMIT_MIN_S:
                    begun.append(Unreachable("the deadline passed before the store was asked"))
                    continue
                if limit is not None:
                    parameters.append(limit)
                statement = prepared.bind(parameters, None, None, limit_s)
                statement.set_is_idempotent(True)
                call = execute(statement)
                room -= 1
                begun.append((call, in_flight.begin(call)))
            except CassException as error:
                begun.append(_unreachable(error))

    async def _prepare(self, catalog: Catalog, key: bytes, *, is_history: bool) -> Any:
        group, fields = catalog.decode_key(key)
        rows = RowStatements(self._keyspace, group, list(fields))
        text = rows.select_events if is_history else rows.select_object
        prepared = self._prepared[group, is_history] = await self._session.create_prepared(text)
        return prepared


Begun = tuple[Coroutine[Any, Any, Any], asyncio.Future[Any]]
"""A call of the driver, and the future it waits for."""

DRIVER_LIMIT_MIN_S = 0.001
"""Below a millisecond the driver's limit is 0 ms, to it none at all."""


def _outcome(call: Coroutine[Any, Any, Any], *, is_history: bool) -> Cells | Unreachable:
    try:
        result = result_of(call)
    except CassException as error:
        return _unreachable(error)
    if is_history:
        return Cells([(0, row.column_value_by_index(0)) for row in result.all()])
    row = result.first()
    if row is None:
        return Cells([])
    record, patches = row.column_value_by_index(0), row.column_value_by_index(1)
    if not patches:
        return Cells([] if record is None else [(0, record)])
    return Cells([*patches.items(), *([] if record is None else [(0, record)])])


def _unreachable(error: Exception) -> Unreachable:
    return Unreachable(str(error) or type(error).__name__)

"""Reading from ScyllaDB (or Cassandra) through acsylla: the catalog, and the rows a cache missed.

Point reads in flight together, never IN across partitions, at LOCAL_QUORUM because what is read
here may fill a cache. A read that fails is a reason, never a missing row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from acsylla.errors import CassException

from headrace.codec import Catalog
from headrace.gateway.ports import Cells, Unreachable
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
        self._prepared: dict[str, Any] = {}
        self._rows: dict[str, RowStatements] = {}
        self._in_flight = asyncio.Semaphore(READS_IN_FLIGHT_MAX)

    async def fetch(
        self, catalog: Catalog, wanted: Sequence[tuple[bytes, int | None]], *, limit_ms: int
    ) -> list[Cells | Unreachable]:
        """One outcome per wanted (key, limit); the limit of a History, None for an Object."""
        due_s = asyncio.get_running_loop().time() + limit_ms / 1000
        reads = (self._one(catalog, key, limit, due_s) for key, limit in wanted)
        return await asyncio.gather(*reads)

    async def _one(
        self, catalog: Catalog, key: bytes, limit: int | None, due_s: float
    ) -> Cells | Unreachable:
        group, fields = catalog.decode_key(key)
        rows = self._rows.get(group)
        if rows is None:
            rows = self._rows[group] = RowStatements(self._keyspace, group, list(fields))
        text = rows.select_object if limit is None else rows.select_events
        parameters = [*fields.values()] if limit is None else [*fields.values(), limit]
        try:
            async with self._in_flight:
                left_ms = int((due_s - asyncio.get_running_loop().time()) * 1000)
                if left_ms < 1:  # To the driver, a limit of 0 ms is none at all.
                    return Unreachable("the deadline passed before the store was asked")
                statement = await self._bound(text, parameters, left_ms)
                result = await self._session.execute(statement)
        except CassException as error:
            return Unreachable(str(error) or type(error).__name__)
        if limit is not None:
            return Cells([(0, row.column_value_by_index(0)) for row in result.all()])
        return Cells(_object_cells(result.first()))

    async def _bound(self, text: str, parameters: list[int | str], limit_ms: int) -> Any:
        prepared = self._prepared.get(text)
        if prepared is None:
            prepared = self._prepared[text] = await self._session.create_prepared(text)
        statement = prepared.bind(parameters, timeout=limit_ms / 1000)
        statement.set_is_idempotent(True)
        return statement


def _object_cells(row: Any) -> list[tuple[int, bytes]]:
    if row is None:
        return []
    record, patches = row.as_tuple()
    cells: list[tuple[int, bytes]] = list((patches or {}).items())
    if record is not None:
        cells.append((0, record))
    return cells

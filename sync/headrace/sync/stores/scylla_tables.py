"""Tables, catalog and sync state in one ScyllaDB keyspace.

The catalog row is the only place where a lightweight transaction is used (semantics 21); the data
path stays free of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from acsylla.errors import CassException

from headrace.registry.catalog import CatalogDocument, Group, encode_document
from headrace.registry.cql import CATALOG, STATE, columns, create_own_tables, create_table
from headrace.registry.physical import table_name
from headrace.sync.errors import StoreSchemaMismatch
from headrace.sync.stores.scylla import Statements, unavailable
from headrace.sync.stores.scylla_schema import wait_for_agreement

LIVE = "live"
"""Name of the one catalog row."""


class ScyllaTableAdmin:
    """`TableAdmin`: creates what is missing, refuses what is there and differs."""

    def __init__(
        self,
        session: Any,
        keyspace: str,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._session = session
        self._keyspace = keyspace
        self._statements = Statements(session)
        self._sleep = sleep

    async def create(self, groups: Sequence[Group]) -> None:
        """Create tables and wait until all nodes have them; raises `StoreSchemaDisagreement`.

        A table that is there is not asked for: even then it would take the grant to create it.
        """
        present = await self._tables()
        tables = create_own_tables(self._keyspace)
        tables |= {table_name(group.name): create_table(self._keyspace, group) for group in groups}
        for name, text in tables.items():
            if name in present:
                continue
            try:
                await self._session.query(text)
            except CassException as error:
                raise unavailable(error) from error
        await wait_for_agreement(self._statements, sleep=self._sleep)
        for group in groups:
            await self._check(group)

    async def _tables(self) -> set[str]:
        result = await self._statements.run(
            "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?", [self._keyspace]
        )
        return {row.column_value("table_name") for row in result.all()}

    async def _check(self, group: Group) -> None:
        table = table_name(group.name)
        result = await self._statements.run(
            "SELECT column_name, type FROM system_schema.columns "
            "WHERE keyspace_name = ? AND table_name = ?",
            [self._keyspace, table],
        )
        present = dict(row.as_tuple() for row in result.all())
        expected = columns(group)
        if present != expected:
            raise StoreSchemaMismatch(
                f"table `{self._keyspace}.{table}` of `{group.name}` has columns {present}, "
                f"expected {expected}; it was made by something else: rename or drop it"
            )


class ScyllaCatalogWriter:
    """`CatalogWriter` by compare-and-set on the generation.

    Sent once: were it sent again after a lost answer, our own success would look like another's.
    """

    def __init__(self, session: Any, keyspace: str) -> None:
        self._table = f"{keyspace}.{CATALOG}"
        self._statements = Statements(session)

    async def publish(self, document: CatalogDocument) -> bool:
        """True when `document` is now the live generation."""
        text = encode_document(document)
        if document.generation == 1:
            result = await self._statements.run(
                f"INSERT INTO {self._table} (name, generation, document) VALUES (?, ?, ?) "
                "IF NOT EXISTS",
                [LIVE, 1, text],
                idempotent=False,
            )
        else:
            result = await self._statements.run(
                f"UPDATE {self._table} SET generation = ?, document = ? WHERE name = ? "
                "IF generation = ?",
                [document.generation, text, LIVE, document.generation - 1],
                idempotent=False,
            )
        return bool(result.first().column_value("[applied]"))


class ScyllaSyncState:
    """`SyncStateStore`: one row a name."""

    def __init__(self, session: Any, keyspace: str) -> None:
        self._table = f"{keyspace}.{STATE}"
        self._statements = Statements(session)

    async def get(self, name: str) -> bytes | None:
        """The value, None when it was never put."""
        row = (
            await self._statements.run(f"SELECT value FROM {self._table} WHERE name = ?", [name])
        ).first()
        if row is None:
            return None
        value: bytes | None = row.column_value("value")
        return value

    async def put(self, name: str, value: bytes) -> None:
        """Durable on a quorum when it returns."""
        await self._statements.run(
            f"UPDATE {self._table} SET value = ? WHERE name = ?", [value, name]
        )

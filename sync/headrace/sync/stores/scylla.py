"""Writing to ScyllaDB (or Cassandra) through acsylla: cells, one prepared statement a mutation.

Every write is idempotent, unlogged and at LOCAL_QUORUM, `USING TIMESTAMP` its write timestamp
(semantics 1), so the server resolves last-writer-wins and any order of arrival converges. Nothing
is read before it is written. The session comes from outside, one a process.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from acsylla.errors import (
    CassErrorLibRequestQueueFull,
    CassErrorLibRequestTimedOut,
    CassErrorServerOverloaded,
    CassErrorServerReadTimeout,
    CassErrorServerUnavailable,
    CassErrorServerWriteTimeout,
    CassException,
)

from headrace.codec import Catalog, CommandBatch, Mutation
from headrace.registry.cql import RowStatements
from headrace.sync.errors import StoreUnavailable
from headrace.sync.ports import MergedRecord

ENGINE_TTL_MARGIN_S = 24 * 3600
"""The engine's ttl only collects garbage, a day after readers stop serving a cell (semantics 3)."""
CONCURRENCY_MIN = 8
CONCURRENCY_MAX = 512
CONCURRENCY_START = 128
ATTEMPTS_MAX = 5
BACKOFF_START_S = 0.05
READS_IN_FLIGHT_MAX = 128

TRANSIENT = (
    CassErrorLibRequestQueueFull,
    CassErrorLibRequestTimedOut,
    CassErrorServerOverloaded,
    CassErrorServerReadTimeout,
    CassErrorServerUnavailable,
    CassErrorServerWriteTimeout,
)
"""Errors that a slower second try can mend; every write is idempotent, so a try may repeat."""


class Statements:
    """Prepared statements of one session, made at their first use."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._prepared: dict[str, Any] = {}

    async def bound(
        self, text: str, parameters: Sequence[object], *, idempotent: bool = True
    ) -> Any:
        """A statement ready to execute; an idempotent one the driver may send more than once."""
        prepared = self._prepared.get(text)
        if prepared is None:
            prepared = self._prepared[text] = await self._session.create_prepared(text)
        statement = prepared.bind(list(parameters))
        statement.set_is_idempotent(idempotent)
        return statement

    async def run(
        self, text: str, parameters: Sequence[object] = (), *, idempotent: bool = True
    ) -> Any:
        """Execute once and answer the result; raises `StoreUnavailable`."""
        try:
            statement = await self.bound(text, parameters, idempotent=idempotent)
            return await self._session.execute(statement)
        except CassException as error:
            raise unavailable(error) from error


class ScyllaOnlineWriter:
    """`OnlineWriter`: as many statements in flight as the server bears.

    The number in flight falls by half when the server says it is overloaded or too slow and grows
    slowly while all is well (additive increase, multiplicative decrease; Chiu and Jain 1989), so
    retries never add to an overload.
    """

    def __init__(
        self,
        session: Any,
        keyspace: str,
        *,
        chance: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._session = session
        self._keyspace = keyspace
        self._statements = Statements(session)
        self._rows: dict[int, RowStatements] = {}
        self._chance = chance
        self._sleep = sleep
        self.concurrency = CONCURRENCY_START

    async def store(self, batch: CommandBatch, catalog: Catalog, *, now_ms: int) -> None:
        """Write every mutation; durable on a quorum when this returns."""
        pending: Sequence[Mutation] = batch.mutations()
        backoff_s = BACKOFF_START_S
        for attempt in range(ATTEMPTS_MAX):
            if attempt > 0:
                await self._sleep(backoff_s * (0.5 + self._chance()))
                backoff_s *= 2
            pending = await self._attempt(pending, catalog, now_ms)
            if not pending:
                return
        raise StoreUnavailable(
            f"the online store did not take {len(pending)} writes in {ATTEMPTS_MAX} tries; "
            "nothing is committed and the writer will try again"
        )

    async def _attempt(
        self, mutations: Sequence[Mutation], catalog: Catalog, now_ms: int
    ) -> list[Mutation]:
        """Write all of them; answers those to try again."""
        failed: list[Mutation] = []
        queue = iter(mutations)

        async def lane() -> None:
            for mutation in queue:
                try:
                    await self._session.execute(await self._statement(mutation, catalog, now_ms))
                except TRANSIENT:
                    failed.append(mutation)
                    return  # This lane closes: fewer stay in flight.

        lanes = [lane() for _ in range(min(self.concurrency, len(mutations)))]
        for outcome in await asyncio.gather(*lanes, return_exceptions=True):
            if isinstance(outcome, CassException):
                raise unavailable(outcome)
            if isinstance(outcome, BaseException):
                raise outcome
        failed.extend(queue)
        if failed:
            self.concurrency = max(CONCURRENCY_MIN, self.concurrency // 2)
        else:
            self.concurrency = min(CONCURRENCY_MAX, self.concurrency + CONCURRENCY_MIN)
        return failed

    async def _statement(self, mutation: Mutation, catalog: Catalog, now_ms: int) -> Any:
        group, keys = catalog.decode_key(mutation.key)
        rows = self._rows.get(mutation.group_id)
        if rows is None:
            rows = self._rows[mutation.group_id] = RowStatements(self._keyspace, group, list(keys))
        text, parameters = row_write(rows, mutation, list(keys.values()), now_ms=now_ms)
        return await self._statements.bound(text, parameters)


def row_write(
    rows: RowStatements, mutation: Mutation, keys: list[int | str], *, now_ms: int
) -> tuple[str, list[object]]:
    """CQL text and parameters of one mutation."""
    stamp = mutation.write_timestamp
    ttl_s = engine_ttl_s(mutation.expires_at_ms, now_ms=now_ms)
    match mutation.kind:
        case "record":
            return rows.put_record, [stamp, ttl_s, mutation.cell, *keys]
        case "patch":
            return rows.put_patch, [stamp, ttl_s, mutation.field_id, mutation.cell, *keys]
        case "event":
            # Big-endian bytes order as the unsigned number does; a bigint would order as signed.
            event_id = mutation.event_id.to_bytes(8, "big")
            place = [mutation.event_time_ms, event_id]
            return rows.put_event, [stamp, ttl_s, mutation.cell, *keys, *place]
        case "delete_row" | "delete_history":
            return rows.delete_key, [stamp, *keys]


def engine_ttl_s(expires_at_ms: int | None, *, now_ms: int) -> int:
    """Seconds for USING TTL (semantics 3); 0 means none, in CQL."""
    if expires_at_ms is None:
        return 0
    left_s = -((now_ms - expires_at_ms) // 1000)  # Rounds up.
    return max(1, left_s) + ENGINE_TTL_MARGIN_S


class ScyllaMergedRecords:
    """`MergedRecordReader`: point reads in flight together, never IN across partitions."""

    def __init__(self, session: Any, keyspace: str) -> None:
        self._keyspace = keyspace
        self._statements = Statements(session)
        self._in_flight = asyncio.Semaphore(READS_IN_FLIGHT_MAX)

    async def fetch(
        self, catalog: Catalog, keys: Sequence[bytes], *, now_ms: int
    ) -> list[MergedRecord | None]:
        """One merged record per key; raises `StoreUnavailable`, never a missing row instead."""
        return await asyncio.gather(*(self._one(catalog, key, now_ms) for key in keys))

    async def _one(self, catalog: Catalog, key: bytes, now_ms: int) -> MergedRecord | None:
        group, fields = catalog.decode_key(key)
        select = RowStatements(self._keyspace, group, list(fields)).select_object
        async with self._in_flight:
            row = (await self._statements.run(select, list(fields.values()))).first()
        if row is None:
            return None
        record, patches = row.as_tuple()
        cells: list[tuple[int, bytes]] = list((patches or {}).items())
        if record is not None:
            cells.append((0, record))
        folded = catalog.fold_object(group, cells, delete_timestamp=None, now_ms=now_ms)
        if folded is None:
            return None
        return MergedRecord(folded.newest_event_time_ms, folded.values)


def unavailable(error: object) -> StoreUnavailable:
    """The port's error for whatever the driver said."""
    return StoreUnavailable(
        f"the online store could not be reached: {error or type(error).__name__}"
    )

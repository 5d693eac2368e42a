"""The asynchronous client: for servers that read features thousands of times a second.

A request costs one future and one timer beside its bytes. Connections are kept and the one used
last is used next; a connection carries one request at a time, and one whose answer nobody waits for
any more (deadline, cancellation) is closed, so that no answer can meet another's request.
"""

# pyarrow has no types.
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self, cast

from headrace.client.address import Address
from headrace.client.answers import Read, Sent, Unusable
from headrace.client.attempts import again_after_failure, again_after_s, checked_deadline_ms
from headrace.client.errors import (
    ClientError,
    ConnectionFailed,
    DeadlineExceeded,
    MalformedAnswer,
)
from headrace.client.exchange import Answer, AnswerReader, arrow_of, read_of, sent_of
from headrace.client.requests import (
    ARROW_TYPE,
    Command,
    GroupRead,
    Keys,
    ReadOptions,
    Request,
    RequestWriter,
)

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

    import pyarrow as pa

NO_OPTIONS = ReadOptions()


class AsyncClient:
    """Reads from and writes to one gateway, within one event loop.

        async with AsyncClient("http://127.0.0.1:6566") as client:
            read = await client.read("room-ranker-v1", {"user_id": [1001]})

    Every read raises `RefusedRequest`, `GatewayUnavailable`, `GatewayFailed`, `DeadlineExceeded`,
    `ConnectionFailed` or `MalformedAnswer`. A partial answer is no error unless
    `ReadOptions(strict=True)` asks for one: ask it for `unusable`.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        deadline_ms: int = 100,
        connections_max: int = 64,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._deadline_ms = checked_deadline_ms(deadline_ms)
        address = Address.parse(url)
        self._writer = RequestWriter(address, api_key)
        self._pool = _Pool(address, connections_max, tls)

    async def read(
        self,
        service: str,
        keys: Keys,
        *,
        deadline_ms: int | None = None,
        options: ReadOptions = NO_OPTIONS,
    ) -> Read:
        """Read a feature service; `keys` are its request keys."""
        limit_ms = self._limit(deadline_ms)
        request = self._writer.read_service(service, keys, options=options)
        return read_of(await self._answer(request, limit_ms))

    async def read_group(
        self,
        feature_group: str,
        keys: Keys,
        *,
        fields: Sequence[str] | None = None,
        limit: int | None = None,
        deadline_ms: int | None = None,
        options: ReadOptions = NO_OPTIONS,
    ) -> Read:
        """Read one feature group; `limit` is how many events of a History."""
        reads = [GroupRead(feature_group, keys, fields, limit)]
        return await self.read_groups(reads, deadline_ms=deadline_ms, options=options)

    async def read_groups(
        self,
        reads: Sequence[GroupRead],
        *,
        deadline_ms: int | None = None,
        options: ReadOptions = NO_OPTIONS,
    ) -> Read:
        """Read several feature groups in one request."""
        limit_ms = self._limit(deadline_ms)
        request = self._writer.read_groups(reads, options=options)
        return read_of(await self._answer(request, limit_ms))

    async def read_arrow(
        self,
        service: str,
        keys: Keys,
        *,
        deadline_ms: int | None = None,
        options: ReadOptions = NO_OPTIONS,
        unusable: Unusable = "raise",
    ) -> pa.Table:
        """Read a feature service as one Arrow table, over the bytes that came. Needs pyarrow.

        Its columns are those of `docs/formats.md`, with the types that fields have. Raises
        `UnusableValue` for values that could not be served, unless null is asked for instead.
        """
        from headrace.client.arrays import table

        limit_ms = self._limit(deadline_ms)
        request = self._writer.read_service(service, keys, options=options, accept=ARROW_TYPE)
        return table(arrow_of(await self._answer(request, limit_ms)), unusable)

    async def read_groups_arrow(
        self,
        reads: Sequence[GroupRead],
        *,
        deadline_ms: int | None = None,
        options: ReadOptions = NO_OPTIONS,
        unusable: Unusable = "raise",
    ) -> pa.Table:
        """Read feature groups as one Arrow table, as `read_arrow`."""
        from headrace.client.arrays import table

        limit_ms = self._limit(deadline_ms)
        request = self._writer.read_groups(reads, options=options, accept=ARROW_TYPE)
        return table(arrow_of(await self._answer(request, limit_ms)), unusable)

    async def send(
        self, commands: Sequence[Command | Mapping[str, Any]], *, deadline_ms: int = 5_000
    ) -> Sent:
        """Append commands to the command log; returns when they are durable.

        Some may be refused: see `Sent.refused`, or call `Sent.check`. After `DeadlineExceeded` or a
        `ConnectionFailed` with `sent`, they may have been appended; sending them again is harmless,
        because a replayed command changes nothing.
        """
        limit_ms = checked_deadline_ms(deadline_ms)
        return sent_of(await self._answer(self._writer.send(commands), limit_ms))

    async def close(self) -> None:
        """Close every idle connection; one in use closes with its answer."""
        self._pool.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _limit(self, deadline_ms: int | None) -> int:
        return self._deadline_ms if deadline_ms is None else checked_deadline_ms(deadline_ms)

    async def _answer(self, request: Request, limit_ms: int) -> Answer:
        loop = asyncio.get_running_loop()
        limit_s = loop.time() + limit_ms / 1000
        attempt = 0
        while True:
            attempt += 1
            try:
                answer = await self._pool.exchange(loop, request, limit_s)
            except ClientError as error:
                if not again_after_failure(request, error, attempt):
                    raise
                continue
            if answer.status != 503:
                return answer
            wait_s = again_after_s(request, answer, attempt, limit_s - loop.time())
            if wait_s is None:
                return answer
            await asyncio.sleep(wait_s)


class _Pool:
    """Connections to one address; at most `connections_max` at a time."""

    def __init__(self, address: Address, connections_max: int, tls: ssl.SSLContext | None) -> None:
        if connections_max < 1:
            raise ValueError(f"connections_max: expected at least 1, got {connections_max}")
        self._address = address
        self._tls = tls
        self._idle: list[_Connection] = []
        self._turns = asyncio.Semaphore(connections_max)
        self._closed = False

    async def exchange(
        self, loop: asyncio.AbstractEventLoop, request: Request, limit_s: float
    ) -> Answer:
        turns = self._turns
        if turns.locked():
            await self._wait_turn(limit_s)
        else:
            await turns.acquire()  # does not wait
        try:
            connection = self._idle_one() or await self._connect(loop, limit_s)
            answer = await connection.exchange(request, limit_s)
            if answer.lasting and not self._closed:
                self._idle.append(connection)
            else:
                connection.abort()
            return answer
        finally:
            turns.release()

    def close(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.pop().abort()

    async def _wait_turn(self, limit_s: float) -> None:
        try:
            async with asyncio.timeout_at(limit_s):
                await self._turns.acquire()
        except TimeoutError:
            raise DeadlineExceeded(
                "every connection is in use; the deadline passed before one was free"
            ) from None

    def _idle_one(self) -> _Connection | None:
        if self._closed:
            raise ConnectionFailed("this client is closed", sent=False)
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return None

    async def _connect(self, loop: asyncio.AbstractEventLoop, limit_s: float) -> _Connection:
        address = self._address
        if address.tls and self._tls is None:
            import ssl

            self._tls = ssl.create_default_context()
        try:
            async with asyncio.timeout_at(limit_s):
                _, connection = await loop.create_connection(
                    partial(_Connection, loop),
                    address.host,
                    address.port,
                    ssl=self._tls if address.tls else None,
                )
        except TimeoutError:
            raise DeadlineExceeded(f"no connection to `{address.authority}` in time") from None
        except OSError as error:
            raise ConnectionFailed(
                f"no connection to `{address.authority}`: {error.strerror or error}", sent=False
            ) from None
        return connection


class _Connection(asyncio.Protocol):
    """One connection with at most one request under way."""

    __slots__ = ("_loop", "_reader", "_transport", "_waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._reader = AnswerReader()
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Answer] | None = None

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    async def exchange(self, request: Request, limit_s: float) -> Answer:
        transport = self._transport
        if transport is None:
            raise ConnectionFailed("the connection ended before the request", sent=False)
        waiter: asyncio.Future[Answer] = self._loop.create_future()
        self._waiter = waiter
        timer = self._loop.call_at(limit_s, self._expire)
        self._reader.expect()
        transport.write(request.payload(limit_s - self._loop.time()))
        try:
            return await waiter
        except BaseException:
            # Failed, late or cancelled: what may still come answers nobody.
            transport.abort()
            raise
        finally:
            self._waiter = None
            timer.cancel()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            answer = self._reader.feed(data)
        except MalformedAnswer as error:
            self._fail(error)
            self.abort()
            return
        waiter = self._waiter
        if answer is not None and waiter is not None and not waiter.done():
            waiter.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._fail(ConnectionFailed(f"the connection ended early{_why(exc)}", sent=True))

    def _expire(self) -> None:
        self._fail(DeadlineExceeded("the answer did not come within the deadline"))

    def _fail(self, error: ClientError) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)


def _why(error: Exception | None) -> str:
    return f": {error}" if error is not None and str(error) else ""

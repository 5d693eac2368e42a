"""Limits and endings that every aiokafka client of ours shares.

`stop` of an aiokafka client (0.14) may never get to the end: an idempotent producer waits for ever
for what a gone broker has not acknowledged, an awaited inner task lets its cancellation escape, and
a second call returns at once because the first one already marked the client as closed. Each leaves
connections open and tasks that go on connecting. So `stopped` gives `stop` a time limit and then
cuts whatever is still there.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.producer.message_accumulator import MessageAccumulator

Client = TypeVar("Client")

CLOSE_LIMIT_MS = 2_000
REQUEST_LIMIT_MS = 5_000
BOOTSTRAP_LIMIT_MS = 1_000
"""How long a start that is given up may take to close the connection it asked for the brokers."""
WHY_NOT_LIMIT_MS = 1_000
START_OR_MEND = "start the brokers, or mend the URL of `commands`"
MEND_LISTENER = (
    "look at its log, and whether this listener wants `tls`, or `user` and `password`, in the URL "
    "of `commands`"
)
CUT_ROUND_MS = 50
CUT_ROUNDS_MAX = 20


@asynccontextmanager
async def running(client: Client) -> AsyncGenerator[Client]:
    """A client for the time of a block."""
    await started(client)
    try:
        yield client
    finally:
        await stopped(client)


async def started(client: Any) -> None:
    """Start a client; one that cannot start, or is cancelled meanwhile, is stopped.

    The start runs in a task of its own: its first connection is known to nothing but its own frame,
    so the start is given a moment to close that one before it is cancelled.
    """
    starting: asyncio.Task[object] = asyncio.ensure_future(client.start())
    try:
        await asyncio.shield(starting)
    except BaseException as error:
        await _to_the_end(_gave_up(client, starting))
        if isinstance(error, KafkaConnectionError | TimeoutError):
            raise await _why_not(client) from error
        raise


async def stopped(client: Any) -> None:
    """Stop a client within a limit; afterwards it holds no connection and runs no task.

    A caller that is cancelled waits all the same: a client that is left half stopped would keep
    its sockets. What an aborted producer had not delivered fails with `KafkaConnectionError`.
    """
    await _to_the_end(_ended(client))


class NoBroker(KafkaConnectionError):  # type: ignore[misc]  # aiokafka ships no types for it
    """No broker of the URL let us in: what each said, and what mends the first of them."""

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.reason}; {self.fix}"


def reason_of(error: BaseException) -> str:
    return str(error) or type(error).__name__


async def _why_not(client: Any) -> NoBroker:
    """What each broker of the URL answers to a connection.

    aiokafka says `Unable to bootstrap` and no more, be it a wrong password or a missing authority.
    """
    inner: Any = client.client if isinstance(client, AIOKafkaProducer) else client._client
    reasons: list[str] = []
    fixes: list[str] = []
    for host, port, _ in inner.hosts:
        try:
            connection = await create_conn(
                host,
                port,
                request_timeout_ms=WHY_NOT_LIMIT_MS,
                ssl_context=inner._ssl_context,
                security_protocol=inner._security_protocol,
                sasl_mechanism=inner._sasl_mechanism,
                sasl_plain_username=inner._sasl_plain_username,
                sasl_plain_password=inner._sasl_plain_password,
            )
        except (KafkaError, OSError) as error:
            reasons.append(f"{host}:{port} {reason_of(error)}")
            fixes.append(_fix(error))
        else:
            _abort(connection)
            reasons.append(f"{host}:{port} takes a connection and does not say who it is")
            fixes.append(MEND_LISTENER)
    return NoBroker("; ".join(reasons), fixes[0])


def _fix(error: KafkaError | OSError) -> str:
    """The next step; what mends a refusal is in the URL, what mends silence may be the server."""
    if isinstance(error, SaslAuthenticationFailed):
        return "mend `user`, `password` or `mechanism` in the URL of `commands`"
    if isinstance(error, UnsupportedSaslMechanismError):
        return "mend `mechanism` in the URL of `commands`"
    if isinstance(error, ssl.SSLError):
        return "mend `tls` and `ca` in the URL of `commands`"
    if isinstance(error, KafkaConnectionError):
        return MEND_LISTENER
    return START_OR_MEND


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Wait for `work`, which bounds itself, also when cancelled; be cancelled after it."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


async def _gave_up(client: Any, starting: asyncio.Task[object]) -> None:
    try:
        await asyncio.wait({starting}, timeout=BOOTSTRAP_LIMIT_MS / 1000)
    finally:
        starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await _ended(client)


async def _ended(client: Any) -> None:
    stop = client.close if isinstance(client, AIOKafkaAdminClient) else client.stop
    stopping: asyncio.Task[object] = asyncio.ensure_future(stop())
    try:
        await asyncio.wait({stopping}, timeout=CLOSE_LIMIT_MS / 1000)
        for _ in range(CUT_ROUNDS_MAX):
            # Again and again: a task that is cancelled may first wait for one of its own.
            if not (running := _cut(client, stopping)):
                break
            await asyncio.wait(running, timeout=CUT_ROUND_MS / 1000)
    finally:
        _cut(client, stopping)
    await asyncio.gather(stopping, return_exceptions=True)


def _cut(client: Any, stopping: asyncio.Task[object]) -> set[asyncio.Task[object]]:
    """Abort what a client still holds; returns the tasks that have yet to notice.

    Batches come first: who waits for them must learn that Kafka failed, not be cancelled.
    """
    parts = list(_parts(client))
    for part in parts:
        if isinstance(part, MessageAccumulator):
            part.fail_all(KafkaConnectionError("the producer was closed"))
    for part in parts:
        if isinstance(part, AIOKafkaConnection):
            _abort(part)
        elif isinstance(part, asyncio.Future) and part.done() and not part.cancelled():
            part.exception()  # Seen: asyncio would log it as never retrieved.
    tasks = {part for part in [stopping, *parts] if isinstance(part, asyncio.Task)}
    running = {task for task in tasks if not task.done()}
    for task in running:
        task.cancel()
    return running


def _abort(connection: Any) -> None:
    """Close without waiting until a peer that may be frozen has taken what was written."""
    writer = connection._writer  # `close` drops it, and only waits for the peer to read on.
    connection.close()
    if writer is not None:
        with contextlib.suppress(RuntimeError):  # The event loop was closed.
            writer.transport.abort()


def _parts(client: Any) -> Iterator[Any]:
    """Everything that hangs on a client: parts of its own, their futures, tasks, connections."""
    seen: set[int] = set()
    waiting = [client]
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, dict):
            waiting += part.values()
        elif isinstance(part, list | tuple | set | deque):
            waiting += part
        elif isinstance(part, asyncio.Future):
            yield part
        elif type(part).__module__.startswith("aiokafka."):
            yield part
            waiting += getattr(part, "__dict__", {}).values()

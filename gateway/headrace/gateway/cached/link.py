"""One pipelined connection to a cache node, and the breaker around it.

The bytes are made and understood by `headrace.codec.CachedReads`; here are sockets and time. A node
that is down, slow, or answers nonsense is left: what waited for it goes to the store at once, and
the connection is tried again after a pause that grows to a second. Nothing is retried.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any

from headrace.codec import CachedReads, PendingRead
from headrace.gateway.cached.scripts import ALL, Script
from headrace.gateway.ports import Clock
from headrace.registry.cache_url import CacheNode, CacheUrl

logger = logging.getLogger(__name__)

REPLY_LIMIT_S = 0.025
"""A node that lets a reply wait longer is left: the store answers sooner than that."""
CONNECT_LIMIT_S = 0.25
PAUSE_START_S = 0.05
PAUSE_MAX_S = 1.0
WATCH_INTERVAL_S = 0.005
SAY_INTERVAL_S = 10.0
CALLERS_AFTER_BYTES = 128 * 1024
"""After so many bytes of replies at once, more of which are likely to be there, callers are heard
before the next. Else one turn of the loop answers all that the node has said, while the node, whom
nobody asks for anything, rests; and after it this process rests until the node has answered."""
NOT_YET = "not connected yet"

Outcome = bytes | PendingRead | list[bytes | int | str | None] | None
Deliver = Callable[[Any, Outcome], None]
"""Told what finished, by what the request is known by or the number of the command."""

REFUSAL = re.compile(rb"(?:^|\r\n)-((?:ERR|NOAUTH|WRONGPASS|NOPERM|NOPROTO|DENIED)[^\r\n]*)")


class CacheLink(asyncio.Protocol):
    """One node's connection: greets, then moves bytes between the socket and `CachedReads`."""

    def __init__(
        self, reads: CachedReads, url: CacheUrl, position: int, deliver: Deliver, clock: Clock
    ) -> None:
        self.node: CacheNode = url.nodes[position]
        self.up = False
        """Whether the breaker is closed: greeted, and no reply is overdue."""
        self.problem: str | None = NOT_YET
        """Why the node is left; None while it is up."""
        self.opened = 0
        """How often the breaker opened."""
        self._reads = reads
        self._url = url
        self._position = position
        self._deliver = deliver
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._tls_context: ssl.SSLContext | None = None
        self._greeting: asyncio.Future[None] | None = None
        self._greeted = b""
        self._flushing = False
        self._sent: deque[tuple[int, float]] = deque()
        """Replies that had come once all sent so far are answered, and when they are overdue."""
        self._watch: asyncio.TimerHandle | None = None
        self._watch_due_s = 0.0
        self._deaf_s = 0.0
        """How long this loop did not listen when it should have, or not fast enough, in all."""
        self._behind = False
        """Whether more was there to be heard than one turn takes, since it was looked last."""
        self._lost = asyncio.Event()

    async def run(self) -> None:
        """Keep the node connected until cancelled."""
        pause_s = PAUSE_START_S
        try:
            while True:
                if await self._connect():
                    up_s = self._loop.time()
                    await self._lost.wait()
                    if self._loop.time() - up_s > PAUSE_MAX_S:
                        pause_s = PAUSE_START_S  # A node that greets and fails is not yet well.
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                pause_s = min(PAUSE_MAX_S, pause_s * 2)
        finally:
            self._leave("the gateway stops")

    def flush_soon(self) -> None:
        """Send what is queued at the end of this loop turn, once for all requests of the turn."""
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a TCP or TLS transport

    def data_received(self, data: bytes) -> None:
        if not self.up:
            self._hear_greeting(data)
            return
        done, broken = self._reads.feed(self._position, data, now_ms=self._clock())
        for caller, outcome in done:
            self._deliver(caller, outcome)
        if broken is not None:
            self._leave(broken)
        elif len(data) >= CALLERS_AFTER_BYTES and self._transport is not None:
            self._behind = True
            self._transport.pause_reading()
            self._loop.call_soon(self._read_on, self._transport)

    def _read_on(self, transport: asyncio.Transport) -> None:
        if transport is self._transport:  # Else the node was left meanwhile.
            transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:  # Else we ended it, and said why.
            self._leave(str(exc) if exc else "the node closed the connection")

    async def _connect(self) -> bool:
        self._lost.clear()
        self._greeted = b""
        self._greeting = self._loop.create_future()
        try:
            async with asyncio.timeout(CONNECT_LIMIT_S):
                await self._loop.create_connection(
                    lambda: self, self.node.host, self.node.port, ssl=self._tls()
                )
            async with asyncio.timeout(REPLY_LIMIT_S * 2):
                self._write(self._greeting_commands())
                await self._greeting
            if self._lost.is_set():
                raise ConnectionError("the node closed the connection")
        except (OSError, TimeoutError, ConnectionError) as error:
            self._leave(str(error) or type(error).__name__)
            if self._greeting.done() and not self._greeting.cancelled():
                self._greeting.exception()  # Seen, though it may be that nobody waits for it.
            return False
        self._reads.node_up(self._position)
        self.up, self.problem = True, None
        self._sent.clear()
        logger.info("cache node is up", extra={"node": self.node.name})
        return True

    def _greeting_commands(self) -> bytes:
        """Authenticate, select, load the scripts; the PING at the end says that all was heard."""
        url, commands = self._url, list[tuple[bytes, ...]]()
        if url.resp == 3:
            hello: tuple[bytes, ...] = (b"HELLO", b"3")
            if url.password is not None:
                hello += (b"AUTH", (url.user or "default").encode(), url.password.encode())
            commands.append(hello)
        elif url.password is not None:
            user = () if url.user is None else (url.user.encode(),)
            commands.append((b"AUTH", *user, url.password.encode()))
        if url.database:
            commands.append((b"SELECT", b"%d" % url.database))
        commands += [(b"SCRIPT", b"LOAD", script.text) for script in ALL]
        commands.append((b"PING",))
        return b"".join(map(encode_command, commands))

    def _hear_greeting(self, data: bytes) -> None:
        self._greeted += data
        if self._greeting is None or self._greeting.done():
            return
        if refused := REFUSAL.search(self._greeted):
            text = refused.group(1).decode("utf-8", "replace")
            self._greeting.set_exception(ConnectionError(f"the node refused us: {text}"))
        elif self._greeted.endswith(b"+PONG\r\n"):
            self._greeting.set_result(None)

    def _flush(self) -> None:
        self._flushing = False
        queued = self._reads.take(self._position)
        if queued is None or not self.up:
            return
        self._write(queued)
        answered, owed = self._reads.progress(self._position)
        now_s = self._loop.time()
        self._sent.append((answered + owed, now_s + REPLY_LIMIT_S - self._deaf_s))
        if self._watch is None:
            self._watch_again(now_s)

    def _look(self) -> None:
        """Leave a node whose oldest reply is overdue; what we were too busy to hear is not, nor
        what waits behind the replies of a node that says more than we can take in."""
        self._watch = None
        now_s = self._loop.time()
        self._deaf_s += max(0.0, now_s - self._watch_due_s)
        if self._behind:
            self._behind = False
            self._deaf_s += WATCH_INTERVAL_S
        answered, owed = self._reads.progress(self._position)
        while self._sent and self._sent[0][0] <= answered:
            self._sent.popleft()
        if not self.up or owed == 0:
            return
        if self._sent and now_s - self._deaf_s > self._sent[0][1]:
            self._leave(f"no reply within {REPLY_LIMIT_S * 1000:.0f} ms")
            return
        self._watch_again(now_s)

    def _watch_again(self, now_s: float) -> None:
        self._watch_due_s = now_s + WATCH_INTERVAL_S
        self._watch = self._loop.call_later(WATCH_INTERVAL_S, self._look)

    def _leave(self, reason: str) -> None:
        """Open the breaker: abandon the connection, give back whatever waited for it."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        if self._greeting is not None and not self._greeting.done():
            self._greeting.set_exception(ConnectionError(reason))
        if self.up:
            self.up = False
            self.opened += 1
            logger.warning("cache node is left", extra={"node": self.node.name, "reason": reason})
            for caller, outcome in self._reads.drop_node(self._position):
                self._deliver(caller, outcome)
        elif reason != self.problem:
            logger.warning("cache node is down", extra={"node": self.node.name, "reason": reason})
        self.problem = reason
        self._lost.set()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _tls(self) -> ssl.SSLContext | None:
        """Made once: reading the authorities takes longer than a reply may."""
        if self._url.tls and self._tls_context is None:
            self._tls_context = ssl.create_default_context(cafile=self._url.ca)
        return self._tls_context


class Links:
    """All nodes of a cache."""

    def __init__(self, reads: CachedReads, url: CacheUrl, deliver: Deliver, clock: Clock) -> None:
        self._reads = reads
        self._pending: dict[int, asyncio.Future[list[bytes | int | str | None] | None]] = {}
        self._deliver_read = deliver
        self._token = 0
        self._say_refused_due_s = 0.0
        self.scripts_refused = 0
        """Replies to scripts that were errors, such as those of a node that is out of memory."""
        self.nodes = [
            CacheLink(reads, url, position, self._deliver, clock)
            for position in range(len(url.nodes))
        ]
        self._tasks: list[asyncio.Task[None]] = []
        alone = len(self.nodes) == 1
        self.flush_soon = self.nodes[0].flush_soon if alone else self._flush_each_soon
        """Sends whatever is queued for any node at the end of this loop turn."""

    def start(self) -> None:
        """Begin to connect every node."""
        self._tasks = [asyncio.create_task(link.run()) for link in self.nodes]

    async def stop(self) -> None:
        """Leave every node."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def tried(self) -> bool:
        """Whether each node is connected, or has said why not."""
        return all(link.problem != NOT_YET for link in self.nodes)

    def keeper(self, node: int) -> CacheLink:
        """The node at this place."""
        return self.nodes[node]

    def reaches(self, node: int) -> bool:
        """Whether a node is asked now."""
        return self.nodes[node].up

    async def run_script(
        self, node: int, script: Script, keys: list[bytes], arguments: list[bytes]
    ) -> list[bytes | int | str | None] | None:
        """The items of the script's reply; None when the node cannot be asked or refused."""
        count = b"%d" % len(keys)
        reply = await self._command(node, [b"EVALSHA", script.sha, count, *keys, *arguments])
        if reply and isinstance(reply[0], str) and reply[0].startswith("NOSCRIPT"):
            reply = await self._command(node, [b"EVAL", script.text, count, *keys, *arguments])
        if reply and isinstance(reply[0], str):
            self._say_refused(node, reply[0])
            return None
        return reply

    async def delete(self, node: int, key: bytes) -> None:
        """Delete one key, if the node can be asked."""
        await self._command(node, [b"DEL", key])

    def _say_refused(self, node: int, reason: str) -> None:
        """A node that is out of memory refuses every fill: say so now and then, count the rest."""
        self.scripts_refused += 1
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._say_refused_due_s:
            self._say_refused_due_s = now_s + SAY_INTERVAL_S
            fields = {"node": self.nodes[node].node.name, "reason": reason}
            logger.warning("a cache node refuses scripts", extra=fields)

    def _flush_each_soon(self) -> None:
        for link in self.nodes:
            link.flush_soon()

    async def _command(
        self, node: int, parts: list[bytes]
    ) -> list[bytes | int | str | None] | None:
        self._token += 1
        token = self._token
        if not self._reads.command(node, parts, token):
            return None
        waiting: asyncio.Future[list[bytes | int | str | None] | None]
        waiting = self._pending[token] = asyncio.get_running_loop().create_future()
        self.nodes[node].flush_soon()
        return await waiting

    def _deliver(self, caller: Any, outcome: Outcome) -> None:
        if not isinstance(caller, int):
            self._deliver_read(caller, outcome)
            return
        waiting = self._pending.pop(caller)
        if not waiting.done():
            waiting.set_result(outcome if isinstance(outcome, list) else None)


def encode_command(parts: tuple[bytes, ...]) -> bytes:
    """A RESP array of bulk strings."""
    encoded = [b"*%d\r\n" % len(parts)]
    encoded += [b"$%d\r\n%b\r\n" % (len(part), part) for part in parts]
    return b"".join(encoded)

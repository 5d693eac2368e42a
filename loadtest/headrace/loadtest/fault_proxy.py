"""A TCP proxy on loopback that misbehaves on command, between us and a real server.

It knows enough of RESP (Redis serialization protocol 2 and 3) and CQL v4 frames to break a reply in
its middle, to repeat one whole reply, or to swap two. With `framing=None` it works
on raw bytes, and the faults that need a reply's boundary are refused.

    async with FaultProxy("127.0.0.1", redis_port, framing=resp_reply_end) as proxy:
        proxy.fault = Delay(ms=200)

Faults apply to what the server answers; `Refuse` and `BlackHole` concern whole connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

CHUNK_BYTES = 65_536

ReplyEnd = Callable[[bytes, int], int | None]
"""(bytes, start) → offset after the reply that starts there, None while it is incomplete."""


@dataclass(frozen=True)
class Pass:
    """No fault."""


@dataclass(frozen=True)
class Refuse:
    """New connections are closed at once, existing ones are cut."""


@dataclass(frozen=True)
class BlackHole:
    """Connections are accepted and bytes are taken, nothing ever comes back."""


@dataclass(frozen=True)
class Delay:
    """Every answer comes `ms` later, order kept."""

    ms: int


@dataclass(frozen=True)
class CutMidReply:
    """The first half of the next reply, then the connection is reset."""


@dataclass(frozen=True)
class Garble:
    """One bit in a hundred bytes of every answer is flipped."""

    seed: int = 1


@dataclass(frozen=True)
class DuplicateReply:
    """Every reply is sent twice."""


@dataclass(frozen=True)
class SwapReplies:
    """Of every two replies that arrive together, the second comes first."""


@dataclass(frozen=True)
class SlowDrip:
    """Answers come one byte at a time, `bytes_per_second` of them."""

    bytes_per_second: int


Fault = (
    Pass
    | Refuse
    | BlackHole
    | Delay
    | CutMidReply
    | Garble
    | DuplicateReply
    | SwapReplies
    | SlowDrip
)


class FaultProxy:
    """One listening port in front of one server. Set `fault` at any time, also under load.

    With `tls` it is the end of TLS before a server that speaks none.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        framing: ReplyEnd | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._target = (host, port)
        self._tls = tls
        self._framing = framing
        self._fault: Fault = Pass()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.connections_seen = 0

    @property
    def port(self) -> int:
        """The port to connect to."""
        if self._server is None:
            raise RuntimeError("the proxy is not started")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def fault(self) -> Fault:
        """What the proxy does now."""
        return self._fault

    @fault.setter
    def fault(self, fault: Fault) -> None:
        if isinstance(fault, (CutMidReply, DuplicateReply, SwapReplies)) and self._framing is None:
            raise ValueError(f"{type(fault).__name__} needs `framing`")
        self._fault = fault
        if isinstance(fault, Refuse):
            self.cut_connections()

    def cut_connections(self) -> None:
        """Reset every open connection."""
        for connection in self._connections:
            connection.cancel()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        self.cut_connections()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or isinstance(self._fault, Refuse):
            writer.transport.abort()
            return
        self.connections_seen += 1
        self._connections.add(task)
        try:
            await self._relay(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # A broken connection is what this proxy is for.
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._forward(reader, server_writer))
                both.create_task(self._answer(server_reader, writer))
        except* OSError:
            pass
        finally:
            server_writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while received := await reader.read(CHUNK_BYTES):
            if not isinstance(self._fault, BlackHole):
                writer.write(received)
                await writer.drain()
        raise ConnectionResetError("the client went away")

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held = b""
        loop = asyncio.get_running_loop()
        while received := await reader.read(CHUNK_BYTES):
            fault = self._fault
            held, ready = self._split(held + received)
            for part in self._spoil(fault, ready):
                if isinstance(fault, Delay):
                    # Timers of one delay fire in order, so answers keep theirs.
                    loop.call_later(fault.ms / 1000, _write, writer, part)
                    continue
                _write(writer, part)
                if isinstance(fault, SlowDrip):
                    await asyncio.sleep(1 / fault.bytes_per_second)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            if isinstance(fault, CutMidReply) and ready:
                break
        raise ConnectionResetError("the server went away")

    def _split(self, received: bytes) -> tuple[bytes, list[bytes]]:
        """(incomplete rest, whole replies)."""
        if self._framing is None:
            return b"", [received]
        replies: list[bytes] = []
        start = 0
        while start < len(received):
            end = self._framing(received, start)
            if end is None:
                break
            replies.append(received[start:end])
            start = end
        return received[start:], replies

    def _spoil(self, fault: Fault, replies: list[bytes]) -> list[bytes]:
        """What the client gets instead of `replies`."""
        match fault:
            case BlackHole():
                return []
            case CutMidReply():
                return [reply[: max(1, len(reply) // 2)] for reply in replies[:1]]
            case DuplicateReply():
                return [reply for reply in replies for _ in range(2)]
            case SwapReplies():
                pairs = zip(replies[1::2], replies[::2], strict=False)
                swapped = [reply for pair in pairs for reply in pair]
                return swapped + replies[len(swapped) :]
            case Garble(seed):
                return [_flip_bits(reply, random.Random(seed)) for reply in replies]
            case SlowDrip():
                return [bytes((byte,)) for reply in replies for byte in reply]
            case _:
                return replies


def _write(writer: asyncio.StreamWriter, part: bytes) -> None:
    if not writer.transport.is_closing():
        writer.write(part)


def _flip_bits(reply: bytes, chance: random.Random) -> bytes:
    spoiled = bytearray(reply)
    for position in range(chance.randrange(100), len(spoiled), 100):
        spoiled[position] ^= 1 << chance.randrange(8)
    return bytes(spoiled)


def resp_reply_end(received: bytes, start: int) -> int | None:
    """End of one RESP2 or RESP3 reply (redis.io, "Redis serialization protocol specification")."""
    line_end = received.find(b"\r\n", start)
    if line_end < 0:
        return None
    kind, argument = received[start : start + 1], received[start + 1 : line_end]
    after = line_end + 2
    if kind in b"$=!":
        length = int(argument)
        end = after if length < 0 else after + length + 2
        return end if end <= len(received) else None
    if kind in b"*~>%|":
        count = max(0, int(argument)) * (2 if kind in b"%|" else 1)
        for _ in range(count):
            end_of_item = resp_reply_end(received, after)
            if end_of_item is None:
                return None
            after = end_of_item
        return after
    return after


CQL_HEADER_BYTES, CQL_LENGTH_AT = 9, 5


def cql_reply_end(received: bytes, start: int) -> int | None:
    """End of one CQL v4 frame: 9 bytes of header, the last 4 being the body's length."""
    body = start + CQL_HEADER_BYTES
    if len(received) < body:
        return None
    end = body + int.from_bytes(received[start + CQL_LENGTH_AT : body], "big")
    return end if end <= len(received) else None

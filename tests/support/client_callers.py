"""Both clients behind one asynchronous face, and a scripted server that misbehaves on purpose."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from headrace.client import AsyncClient, Client, Read, Sent


class Caller(Protocol):
    """What tests ask of either client."""

    async def read(self, *arguments: Any, **options: Any) -> Read: ...
    async def read_group(self, *arguments: Any, **options: Any) -> Read: ...
    async def read_groups(self, *arguments: Any, **options: Any) -> Read: ...
    async def read_arrow(self, *arguments: Any, **options: Any) -> Any: ...
    async def read_groups_arrow(self, *arguments: Any, **options: Any) -> Any: ...
    async def send(self, *arguments: Any, **options: Any) -> Sent: ...


class InThreads:
    """The blocking client, each call in a thread of its own."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def read(self, *arguments: Any, **options: Any) -> Read:
        return await asyncio.to_thread(self._client.read, *arguments, **options)

    async def read_group(self, *arguments: Any, **options: Any) -> Read:
        return await asyncio.to_thread(self._client.read_group, *arguments, **options)

    async def read_groups(self, *arguments: Any, **options: Any) -> Read:
        return await asyncio.to_thread(self._client.read_groups, *arguments, **options)

    async def read_arrow(self, *arguments: Any, **options: Any) -> Any:
        return await asyncio.to_thread(self._client.read_arrow, *arguments, **options)

    async def read_groups_arrow(self, *arguments: Any, **options: Any) -> Any:
        return await asyncio.to_thread(self._client.read_groups_arrow, *arguments, **options)

    async def send(self, *arguments: Any, **options: Any) -> Sent:
        return await asyncio.to_thread(self._client.send, *arguments, **options)


@asynccontextmanager
async def caller_of(kind: str, port: int, **options: Any) -> AsyncGenerator[Caller]:
    """The `asynchronous` or the `blocking` client of a gateway on loopback."""
    settings: dict[str, Any] = {"deadline_ms": 10_000, **options}
    url = f"http://127.0.0.1:{port}"
    if kind == "asynchronous":
        async with AsyncClient(url, **settings) as client:
            yield client
    else:
        with Client(url, **settings) as blocking:
            yield InThreads(blocking)


KINDS = ("asynchronous", "blocking")

CUT = b""
"""In a script: end the connection here."""


@dataclass
class ScriptedServer:
    """Answers the n-th request of all connections with the n-th script; the last one repeats."""

    scripts: Sequence[Sequence[bytes]]
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    ended: int = 0
    port: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            await self._answer(reader, writer)
        finally:
            writer.transport.abort()
            self.ended += 1

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.rpartition(b"content-length: ")[2])
                self.requests.append(head + await reader.readexactly(length))
                script = self.scripts[min(len(self.requests), len(self.scripts)) - 1]
                for part in script:
                    if part == CUT:
                        # What was written goes out, then the end comes.
                        writer.close()
                        await writer.wait_closed()
                        return
                    writer.write(part)


@asynccontextmanager
async def scripted(*scripts: Sequence[bytes]) -> AsyncGenerator[ScriptedServer]:
    """A server that answers as it is told to."""
    server = ScriptedServer(scripts)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for writer in server.writers:
            writer.transport.abort()
        async with asyncio.timeout(10):
            while server.ended < server.connections:  # noqa: ASYNC110 - a condition of the loop
                await asyncio.sleep(0)
        del server.writers[:]


def http(status: int, body: bytes, *headers: str) -> bytes:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status} Said", f"content-length: {len(body)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


READ_BODY = (
    b'{"generation":3,"results":[{"feature_group":"live::host-stat-v1",'
    b'"fields":["level"],"rows":[[7]],"statuses":[]}]}'
)
SENT_BODY = b'{"generation":3,"appended":[],"refused":[]}'

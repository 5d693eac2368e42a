"""A server that does none of the work: it knows every answer before it is asked.

Its transport is our gateway's (uvloop, one `asyncio.Protocol` a connection), so its latency is what
machine, load generator and transport take at a rate. With `--redis` each request also waits for the
MGET that a reader of Redis sends for its keys, prepared too and pipelined on one connection: what
no server over Redis can be faster than.

Requests and answers are in an exchanges file (`headrace.loadtest.open_loop`), the places of rows in
Redis in the settings that `plain_rows` describes.

    python -m headrace.loadtest.peers.programs.control --port 6570 --exchanges FILE \
        [--redis 6379 --settings FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import uvloop

from headrace.loadtest.open_loop import Exchange, read_exchanges

HEAD_END = b"\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"


class Prepared(NamedTuple):
    """All that a request needs."""

    response: bytes
    command: bytes = b""
    """For Redis."""
    reply_bytes: int = 0


class Redis(asyncio.Protocol):
    """One connection: commands of a loop turn go out together, replies are told by their length."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._commands = list[bytes]()
        self._owed: deque[tuple[int, asyncio.Transport, bytes]] = deque()
        self._received_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def ask(self, prepared: Prepared, caller: asyncio.Transport) -> None:
        """Answer the caller when the reply is here."""
        if not self._commands:
            self._loop.call_soon(self._flush)
        self._commands.append(prepared.command)
        self._owed.append((prepared.reply_bytes, caller, prepared.response))

    def data_received(self, data: bytes) -> None:
        self._received_bytes += len(data)
        while self._owed and self._received_bytes >= self._owed[0][0]:
            reply_bytes, caller, response = self._owed.popleft()
            self._received_bytes -= reply_bytes
            caller.write(response)

    def _flush(self) -> None:
        self._transport.write(b"".join(self._commands))
        self._commands.clear()


class Control(asyncio.Protocol):
    """One caller, who has one request under way."""

    def __init__(self, prepared: dict[bytes, Prepared], redis: Redis | None) -> None:
        self._prepared = prepared
        self._redis = redis
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._received = self._received + data if self._received else data
        head, found, body = self._received.partition(HEAD_END)
        if not found or len(body) < _content_length(head):
            return
        self._received = b""
        prepared = self._prepared.get(body)
        if prepared is None:
            self._transport.write(NOT_FOUND)
        elif self._redis is None:
            self._transport.write(prepared.response)
        else:
            self._redis.ask(prepared, self._transport)


def _content_length(head: bytes) -> int:
    """Of the generator's heads, where it stands last, and of others."""
    _, _, after = head.lower().rpartition(b"content-length:")
    return int(after.partition(b"\r\n")[0])


def prepare(exchanges: list[Exchange]) -> dict[bytes, Prepared]:
    """The response to each request."""
    return {asked: Prepared(OK % (len(body), body)) for asked, body in exchanges}


async def prepare_replies(
    prepared: dict[bytes, Prepared], redis_port: int, groups: dict[str, Any]
) -> dict[bytes, Prepared]:
    """With the MGET of each request, and how long Redis's reply to it is."""
    reader, writer = await asyncio.open_connection("127.0.0.1", redis_port)
    made: dict[bytes, Prepared] = {}
    for body, each in prepared.items():
        (read,) = json.loads(body)["reads"]
        prefix = groups[read["feature_group"]]["prefix"]
        command = mget([f"{prefix}{user_id}".encode() for user_id in read["keys"]["user_id"]])
        writer.write(command)
        made[body] = each._replace(command=command, reply_bytes=await _reply_bytes(reader))
    writer.close()
    return made


def mget(keys: list[bytes]) -> bytes:
    """The command as Redis reads it."""
    parts = [b"$%d\r\n%b\r\n" % (len(part), part) for part in (b"MGET", *keys)]
    return b"*%d\r\n%b" % (len(parts), b"".join(parts))


async def _reply_bytes(reader: asyncio.StreamReader) -> int:
    """Read one array of strings; how long it was."""
    line = await reader.readuntil(b"\r\n")
    count = len(line)
    for _ in range(int(line[1:])):
        line = await reader.readuntil(b"\r\n")
        count += len(line)
        if not line.startswith(b"$-"):
            count += len(await reader.readexactly(int(line[1:]) + 2))
    return count


async def serve(port: int, prepared: dict[bytes, Prepared], redis_port: int | None) -> None:
    """Answer until the process is ended."""
    loop, redis = asyncio.get_running_loop(), None
    if redis_port is not None:
        _, redis = await loop.create_connection(Redis, "127.0.0.1", redis_port)
    server = await loop.create_server(lambda: Control(prepared, redis), "127.0.0.1", port)
    gc.collect()
    gc.freeze()
    await server.serve_forever()


async def run(asked: argparse.Namespace) -> None:
    """As the command line says."""
    prepared = prepare(read_exchanges(asked.exchanges))
    if asked.redis is not None:
        groups = json.loads(asked.settings.read_text())["groups"]
        prepared = await prepare_replies(prepared, asked.redis, groups)
    await serve(asked.port, prepared, asked.redis)


def main() -> None:
    """Serve with the gateway's event loop."""
    parser = argparse.ArgumentParser(prog="control", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--exchanges", type=Path, required=True)
    parser.add_argument("--redis", type=int, help="port of the Redis that each request waits for")
    parser.add_argument("--settings", type=Path, help="where rows are in it")
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()

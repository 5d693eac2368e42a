"""The control answers what it was told before, without any of the work."""

from __future__ import annotations

import asyncio

import pytest

from headrace.loadtest.open_loop import Exchange
from headrace.loadtest.peers.programs.control import Control, mget, prepare

PREPARED = prepare([Exchange(b'{"a":1}', b"[1]"), Exchange(b'{"b":22}', b"[2,2]")])


def request(body: bytes) -> bytes:
    return b"POST /v1/read HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def answers(*pieces: bytes) -> bytes:
    """All that comes back on one connection, the last piece being answered."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Control(PREPARED, None), "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        writer.close()
        await writer.wait_closed()
    return head.partition(b"\r\n")[0] + b" " + body


@pytest.mark.parametrize("cut", [1, 30, 45, 47])
def test_a_request_is_answered_once_it_is_whole(cut: int) -> None:
    sent = request(b'{"b":22}')
    assert asyncio.run(answers(sent[:cut], sent[cut:])) == b"HTTP/1.1 200 OK [2,2]"


def test_a_request_that_was_not_prepared_is_no_200() -> None:
    assert asyncio.run(answers(request(b"{}"))) == b"HTTP/1.1 404 Not Found "


def test_the_command_for_redis_asks_for_all_keys_at_once() -> None:
    assert mget([b"k", b"key"]) == b"*3\r\n$4\r\nMGET\r\n$1\r\nk\r\n$3\r\nkey\r\n"

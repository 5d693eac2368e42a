"""Callers who ask for another protocol are answered in this one (RFC 9110, 7.8)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio
from running_gateway import Running, get, post, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

JDK = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAEAAEAAAAIAAAAB")
"""What `java.net.http.HttpClient` sends with its first request on a connection."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncGenerator[Running]:
    async with running() as live:
        yield live


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(shared: Running) -> AsyncGenerator[Running]:
    shared.forget()
    yield shared
    for connection in shared.connections:
        connection.abort()


async def test_a_read_of_the_jdks_client_is_answered_by_the_lane(gateway: Running) -> None:
    connection = await gateway.connect()
    for n in range(3):
        answer = await connection.exchange(post(b'{"n":%d}' % n, *JDK))
        assert (answer.status, answer.json()["n"]) == (200, n)
        assert "upgrade" not in answer.headers
    assert gateway.lane.telemetry.lane_requests == 3


async def test_its_body_may_come_in_any_pieces(gateway: Running) -> None:
    connection = await gateway.connect()
    request = post(b'{"n":41}', *JDK) + post(b'{"n":42}')
    for index in range(len(request)):
        connection.send(request[index : index + 1])
        await asyncio.sleep(0)
    assert [(await connection.answer()).json()["n"] for _ in range(2)] == [41, 42]
    assert gateway.engine.bodies == [b'{"n":41}', b'{"n":42}']
    assert gateway.lane.held_bytes == 0


async def test_pipelined_requests_around_it_keep_their_order(gateway: Running) -> None:
    connection = await gateway.connect()
    requests = [post(b'{"n":%d}' % n, *(JDK if n % 3 else ())) for n in range(300)]
    connection.send(*requests, get("/livez", *JDK), post(b'{"n":300}'))
    answers = [await connection.answer() for _ in range(302)]
    assert [answer.json()["n"] for answer in answers[:300]] == list(range(300))
    assert answers[300].json() == {"alive": True}
    assert answers[301].json()["n"] == 300


async def test_a_chunked_body_behind_it_is_read_whole(gateway: Running) -> None:
    connection = await gateway.connect()
    head = post(b"", *JDK, "transfer-encoding: chunked").replace(b"content-length: 0\r\n", b"")
    connection.send(head + b'7\r\n{"n":1}\r\n0\r\n\r\n', post(b'{"n":2}'))
    assert [(await connection.answer()).json()["n"] for _ in range(2)] == [1, 2]


async def test_a_web_socket_is_answered_as_the_plain_request_it_also_is(gateway: Running) -> None:
    connection = await gateway.connect()
    answer = await connection.exchange(get("/livez", "connection: upgrade", "upgrade: websocket"))
    assert answer.json() == {"alive": True}


async def test_connection_close_beside_it_is_honoured(gateway: Running) -> None:
    connection = await gateway.connect()
    answer = await connection.exchange(post(b"{}", "connection: upgrade, close", "upgrade: h2c"))
    assert answer.headers["connection"] == "close"
    assert await connection.ended() == b""


async def test_a_tunnel_is_refused_and_what_follows_is_not_read(gateway: Running) -> None:
    connection = await gateway.connect()
    connection.send(b"CONNECT gateway:80 HTTP/1.1\r\nhost: gateway\r\n\r\n", post(b'{"n":1}'))
    answer = await connection.answer()
    assert (answer.status, answer.json()["code"]) == (400, "UPGRADE_REFUSED")
    assert await connection.ended() == b""
    assert gateway.engine.bodies == []


async def test_limits_of_the_head_hold_for_it_too(gateway: Running) -> None:
    connection = await gateway.connect()
    many = tuple(f"x-{n}: 1" for n in range(200))
    answer = await connection.exchange(post(b'{"n":1}', *JDK, *many))
    assert answer.status == 431
    assert gateway.engine.bodies == []

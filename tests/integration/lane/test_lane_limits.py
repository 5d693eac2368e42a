"""Bounds of the lane over real sockets: sizes, times, and callers that do not read."""

from __future__ import annotations

import asyncio
import socket

import pytest
from running_gateway import Connection, Running, get, limits, post, running, until

from headrace.gateway.lane_state import Lane

SWEEP_BY_HAND = 3_600.0
"""A sweep period that never ends within a test: tests sweep themselves, so no clock decides."""


def sweep(lane: Lane, times: int) -> None:
    """Let that many periods of the coarse timer pass."""
    for _ in range(times):
        lane.sweep += 1
        for connection in tuple(lane.connections):
            connection.keep_time(lane.sweep)


async def received(gateway: Running) -> None:
    """Wait until the gateway has a connection with something unfinished on it."""
    await until(lambda: any(c.receiving for c in gateway.lane.connections))


CHUNKED = (
    b"POST /v1/read HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


async def test_a_body_over_the_limit_is_413_before_it_is_sent() -> None:
    async with running() as gateway:
        connection = await gateway.connect()
        head = b"POST /v1/read HTTP/1.1\r\nhost: gateway\r\ncontent-length: 1048577\r\n\r\n"
        answer = await connection.exchange(head)
        assert (answer.status, answer.json()["code"]) == (413, "BODY_TOO_LARGE")
        assert answer.headers["content-type"] == "application/problem+json"
        assert "longer than 1048576 bytes" in str(answer.json()["detail"])
        assert gateway.engine.bodies == []


async def test_a_body_at_the_limit_is_read() -> None:
    async with running() as gateway:
        connection = await gateway.connect()
        answer = await connection.exchange(post(b"{}".ljust(1 << 20)))
        assert answer.json()["length"] == 1 << 20
        assert gateway.lane.held_bytes == 0


async def test_a_caller_that_sends_all_of_an_oversize_body_still_sees_413() -> None:
    async with running(limits(body_bytes_max=1000)) as gateway:
        connection = await gateway.connect()
        answer = await connection.exchange(post(b"x" * 3_000_000))
        assert answer.status == 413


@pytest.mark.parametrize("path", ["/v1/read", "/v1/commands"])
async def test_a_chunked_body_is_refused_once_it_exceeds_the_limit(path: str) -> None:
    async with running(limits(body_bytes_max=1000)) as gateway:
        connection = await gateway.connect()
        chunk = b"3e8\r\n" + b" " * 1000 + b"\r\n"
        connection.send(CHUNKED.replace(b"/v1/read", path.encode()), chunk, chunk)
        assert (await connection.answer()).status == 413
        assert gateway.engine.bodies == []


async def test_a_refused_expectation_ends_the_connection() -> None:
    """The caller may or may not send the body after it: what follows could be either."""
    async with running(limits(body_bytes_max=10)) as gateway:
        connection = await gateway.connect()
        head = post(b"x" * 20, "expect: 100-continue").partition(b"\r\n\r\n")[0]
        answer = await connection.exchange(head, b"\r\n\r\n")
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert await connection.ended() == b""


@pytest.mark.parametrize("in_one_piece", [True, False], ids=["one piece", "dribbled"])
async def test_headers_over_the_limit_are_431(in_one_piece: bool) -> None:
    async with running(limits(head_bytes_max=2000)) as gateway:
        connection = await gateway.connect()
        request = post(b"{}", "padding: " + "x" * 3000)
        pieces = [request] if in_one_piece else [request[i : i + 500] for i in range(0, 3000, 500)]
        for piece in pieces:
            connection.send(piece)
            await asyncio.sleep(0)
        answer = await connection.answer()
        assert (answer.status, answer.json()["code"]) == (431, "HEADERS_TOO_LARGE")
        assert await connection.ended() == b""


async def test_a_header_that_never_ends_is_refused_at_the_limit() -> None:
    async with running(limits(head_bytes_max=2000)) as gateway:
        connection = await gateway.connect()
        connection.send(b"GET /livez HTTP/1.1\r\npadding: ")
        for _ in range(8):
            connection.send(b"x" * 400)
            await asyncio.sleep(0.001)  # so that it arrives in several pieces
        assert (await connection.answer()).status == 431


async def test_pipelined_requests_larger_than_a_head_together_are_no_large_head() -> None:
    async with running(limits(head_bytes_max=400)) as gateway:
        connection = await gateway.connect()
        requests = b"".join(post(b'{"n":%d}' % n) for n in range(50))
        middle = len(requests) - 60  # within the last head
        connection.send(requests[:middle])
        await until(lambda: len(gateway.engine.bodies) == 49)
        connection.send(requests[middle:])
        answers = [await connection.answer() for _ in range(50)]
        assert {answer.status for answer in answers} == {200}


async def test_too_many_header_fields_are_431() -> None:
    async with running() as gateway:
        connection = await gateway.connect()
        answer = await connection.exchange(get("/livez", *(f"h{n}: 1" for n in range(101))))
        assert answer.status == 431


async def test_a_target_that_is_too_long_is_414() -> None:
    async with running() as gateway:
        connection = await gateway.connect()
        answer = await connection.exchange(get("/livez?" + "x" * 9000))
        assert (answer.status, answer.json()["code"]) == (414, "TARGET_TOO_LONG")


POST = b"POST /v1/read HTTP/1.1\r\nhost: g\r\n"
MALFORMED = {
    "not http": b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    "http 0.9": b"GET /livez\r\n\r\n",
    "space in header name": b"GET /livez HTTP/1.1\r\nhost: g\r\nbad name: 1\r\n\r\n",
    "space before the colon": POST + b"content-length : 2\r\n\r\n{}",
    "space before the first header": b"GET /livez HTTP/1.1\r\n host: g\r\n\r\n",
    "folded header": POST + b"x: a\r\n b\r\ncontent-length: 2\r\n\r\n{}",
    "folded length": POST + b"content-length:\r\n 2\r\n\r\n{}",
    "lines of bare line feeds": POST.replace(b"\r", b"") + b"content-length: 2\n\n{}",
    "one bare line feed": POST + b"x: a\ncontent-length: 2\r\n\r\n{}",
    "bare line feed at the end": POST + b"content-length: 2\r\n\n{}",
    "bare carriage return": POST + b"x: a\rcontent-length: 2\r\n\r\n{}",
    "zero byte": POST + b"x: \x00\r\ncontent-length: 2\r\n\r\n{}",
    "two lengths": POST + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
    "one length twice": POST + b"content-length: 2\r\ncontent-length: 2\r\n\r\n{}",
    "list of lengths": POST + b"content-length: 2, 2\r\n\r\n{}",
    "length and chunked": POST + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
    "chunked and length": CHUNKED[:-2] + b"content-length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "no length": POST + b"content-length:\r\n\r\n{}",
    "negative length": POST + b"content-length: -1\r\n\r\n",
    "length with a sign": POST + b"content-length: +2\r\n\r\n{}",
    "length in hexadecimal": POST + b"content-length: 0x2\r\n\r\n{}",
    "length with a gap": POST + b"content-length: 2 2\r\n\r\n{}",
    "huge length": POST + b"content-length: 99999999999999999999\r\n\r\n",
    "bad chunk size": CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
    "chunk size with a sign": CHUNKED + b"+2\r\n{}\r\n0\r\n\r\n",
    "chunk longer than it says": CHUNKED + b"2\r\n{}xx\r\n0\r\n\r\n",
    "chunks of bare line feeds": CHUNKED + b"2\n{}\n0\n\n",
    "chunked twice": CHUNKED[:-2] + b"transfer-encoding: chunked\r\n\r\n",
    "chunked in HTTP/1.0": CHUNKED.replace(b"1.1", b"1.0") + b"0\r\n\r\n",
    "bytes in the target": b"GET /\xff\xfe HTTP/1.1\r\nhost: g\r\n\r\n",
    "fragment in the target": b"GET /livez#a HTTP/1.1\r\nhost: g\r\n\r\n",
    "http 2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", MALFORMED.values(), ids=MALFORMED)
async def test_malformed_http_is_a_400_problem_and_the_end(request_bytes: bytes) -> None:
    """What follows on the connection is not read, so nothing can be smuggled behind it."""
    async with running() as gateway:
        connection = await gateway.connect()
        connection.send(request_bytes, post(b'{"n":1}'))
        answer = await connection.answer()
        assert answer.status in {400, 505}
        assert answer.json()["code"] in {"MALFORMED_HTTP", "HTTP_VERSION"}
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["x-request-id"]
        assert answer.headers["headrace-generation"] == "3"
        assert await connection.ended() == b""
        assert gateway.engine.bodies == []


HOSTLESS = {
    "no host": b"",
    "two hosts": b"host: a\r\nhost: a\r\n",
    "a blank in the host": b"host: a b\r\n",
    "a path in the host": b"host: a/b\r\n",
    "a name as port": b"host: a:http\r\n",
}


@pytest.mark.parametrize("fields", HOSTLESS.values(), ids=HOSTLESS)
@pytest.mark.parametrize("start", [b"POST /v1/read", b"GET /livez"], ids=["lane", "asgi"])
async def test_a_request_without_one_good_host_is_refused(start: bytes, fields: bytes) -> None:
    """RFC 9112, 3.2."""
    async with running() as gateway:
        connection = await gateway.connect()
        request = start + b" HTTP/1.1\r\n" + fields + b"content-length: 0\r\n\r\n"
        answer = await connection.exchange(request)
        assert (answer.status, answer.json()["code"]) == (400, "BAD_HOST")
        assert await connection.ended() == b""


@pytest.mark.parametrize("host", ["g", "g:6566", "[::1]:6566", "127.0.0.1", ""])
async def test_a_good_host_is_taken_whatever_it_is(host: str) -> None:
    async with running() as gateway:
        connection = await gateway.connect()
        start = f"GET /livez HTTP/1.1\r\nhost: {host}\r\n\r\n"
        assert (await connection.exchange(start.encode())).status == 200


async def test_http_1_0_needs_no_host() -> None:
    async with running() as gateway:
        connection = await gateway.connect()
        assert (await connection.exchange(b"GET /livez HTTP/1.0\r\n\r\n")).status == 200


@pytest.mark.parametrize(
    "coding", [b"gzip, chunked", b"gzip", b"identity", b"gzip\r\ntransfer-encoding: chunked"]
)
async def test_a_transfer_coding_beside_chunked_is_501(coding: bytes) -> None:
    """RFC 9112, 6.1."""
    async with running() as gateway:
        connection = await gateway.connect()
        head = POST + b"transfer-encoding: " + coding + b"\r\n\r\n"
        answer = await connection.exchange(head, b"2\r\n{}\r\n0\r\n\r\n")
        assert (answer.status, answer.json()["code"]) == (501, "UNSUPPORTED_TRANSFER_CODING")
        assert await connection.ended() == b""
        assert gateway.engine.bodies == []


async def test_a_refusal_waits_for_the_answers_before_it() -> None:
    async with running() as gateway:
        connection = await gateway.connect()
        connection.send(get("/livez"), post(b'{"n":1}'), b"nonsense\r\n\r\n")
        assert (await connection.answer()).status == 200
        assert (await connection.answer()).json()["n"] == 1
        assert (await connection.answer()).status == 400
        assert await connection.ended() == b""


@pytest.mark.parametrize(
    "beginning",
    [b"POST /v1/re", post(b"{}")[:-1], CHUNKED + b"2\r\n{"],
    ids=["head", "lane body", "asgi body"],
)
async def test_a_slow_sender_is_cut(beginning: bytes) -> None:
    async with running(limits(sweep_seconds=SWEEP_BY_HAND)) as gateway:
        connection = await gateway.connect()
        connection.send(beginning)
        await received(gateway)
        sweep(gateway.lane, 8)
        assert len(gateway.lane.connections) == 1
        sweep(gateway.lane, 1)
        ending = await connection.ended()
        assert ending == b"" or b" 408 Request Timeout\r\n" in ending
        sweep(gateway.lane, 2)
        await until(lambda: not gateway.lane.connections)
        assert gateway.lane.telemetry.connections_cut == {"slow_sender": 1}
        assert gateway.lane.held_bytes == 0


async def test_one_byte_a_second_does_not_prolong_a_request() -> None:
    async with running(limits(sweep_seconds=SWEEP_BY_HAND)) as gateway:
        connection = await gateway.connect()
        for byte in b"POST /v1/":
            connection.send(bytes([byte]))
            await received(gateway)
            sweep(gateway.lane, 1)
        assert b" 408 " in await connection.ended()


async def test_an_idle_connection_is_closed_after_the_idle_time_and_not_before() -> None:
    async with running(limits(sweep_seconds=SWEEP_BY_HAND)) as gateway:
        connection = await gateway.connect()
        await connection.exchange(post(b"{}"))
        sweep(gateway.lane, 74)
        await connection.exchange(post(b"{}"))
        sweep(gateway.lane, 74)
        assert (await connection.exchange(get("/livez"))).status == 200
        sweep(gateway.lane, 75)
        assert await connection.ended() == b""


async def test_the_coarse_timer_runs_by_itself() -> None:
    async with running(limits(sweep_seconds=0.02, receive_sweeps=2)) as gateway:
        connection = await gateway.connect()
        connection.send(b"POST /v1/read HTTP/1.1\r\n")
        assert b" 408 " in await connection.ended()


async def fill(connection: Connection, requests: int, size: int) -> None:
    """Ask for more than any buffer takes, and read nothing."""
    connection.send(*(post(b'{"n":%d,"size":%d}' % (n, size)) for n in range(requests)))


async def test_a_caller_that_does_not_read_is_not_read_from() -> None:
    async with running() as gateway:
        connection = await gateway.connect(receive_buffer_bytes=4096)
        connection.reader._limit = 1024  # type: ignore[attr-defined]  # stop reading early
        await fill(connection, 400, 200_000)
        await until(lambda: gateway.lane.held_bytes > 0)
        seen = -1
        while seen != len(gateway.engine.bodies):
            seen = len(gateway.engine.bodies)
            await asyncio.sleep(0.05)
        assert seen < 100
        # One answer over the transport's high-water mark, and one that ASGI waits to send.
        assert gateway.lane.held_bytes < 1 << 20
        answers = [await connection.answer() for _ in range(400)]
        assert [answer.json()["n"] for answer in answers] == list(range(400))
        assert gateway.lane.held_bytes == 0


async def test_a_caller_that_never_reads_is_cut_and_frees_what_it_held() -> None:
    async with running(limits(sweep_seconds=SWEEP_BY_HAND)) as gateway:
        connection = await gateway.connect(receive_buffer_bytes=4096)
        connection.reader._limit = 1024  # type: ignore[attr-defined]
        await fill(connection, 100, 500_000)
        await until(lambda: gateway.lane.held_bytes > 0)
        sweep(gateway.lane, 2)  # the first may still see progress into the socket's buffers
        sweep(gateway.lane, 10)
        await until(lambda: not gateway.lane.connections)
        assert gateway.lane.telemetry.connections_cut == {"slow_reader": 1}
        assert gateway.lane.held_bytes == 0


async def test_too_many_bytes_in_all_are_answered_503_with_a_time_to_come_back() -> None:
    async with running(limits(held_bytes_max=100_000)) as gateway:
        holder = await gateway.connect()
        holder.send(post(b" " * 200_000)[:-1])
        await until(lambda: gateway.lane.held_bytes == 200_000)
        caller = await gateway.connect()
        answer = await caller.exchange(post(b"{}"))
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["code"] == "OVERLOADED"
        for path in ("/readyz", "/v1/services", "/metrics"):
            assert (await caller.exchange(get(path))).status == 200
        holder.send(b" ")
        assert (await holder.answer()).status == 200
        assert (await caller.exchange(post(b"{}"))).status == 200


def chunked(path: str) -> bytes:
    """The head of a request whose body comes in chunks, which the lane leaves to ASGI."""
    fields = ("transfer-encoding: chunked", "content-type: application/json")
    return get(path, *fields).replace(b"GET ", b"POST ", 1)


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


@pytest.mark.parametrize("path", ["/v1/read", "/v1/commands"])
async def test_a_body_that_comes_in_chunks_is_held_until_it_is_answered(path: str) -> None:
    async with running() as gateway:
        connection = await gateway.connect()
        connection.send(chunked(path), chunk(b" " * 1_000))
        await until(lambda: gateway.lane.held_bytes == 1_000)
        connection.send(chunk(b" " * 500))
        await until(lambda: gateway.lane.held_bytes == 1_500)
        await connection.exchange(chunk(b"[]"), chunk(b""))
        assert gateway.lane.held_bytes == 0
        connection.send(chunked(path), chunk(b" " * 700))
        await until(lambda: gateway.lane.held_bytes == 700)
        assert (await connection.exchange(b"no chunk\r\n")).status == 400
        assert gateway.lane.held_bytes == 0
        leaves = await gateway.connect()
        leaves.send(chunked(path), chunk(b" " * 900))
        await until(lambda: gateway.lane.held_bytes == 900)
        leaves.abort()
        await until(lambda: gateway.lane.held_bytes == 0)


async def test_bodies_queued_behind_an_unfinished_one_are_held_each_until_its_answer() -> None:
    async with running() as gateway:
        connection = await gateway.connect()
        connection.send(get("/livez") + chunked("/v1/read") + chunk(b"{}") + chunk(b""))
        connection.send(chunked("/v1/read"), chunk(b" " * 300))
        assert [(await connection.answer()).status for _ in range(2)] == [200, 200]
        await until(lambda: gateway.lane.held_bytes == 300)
        assert (await connection.exchange(chunk(b"{}"), chunk(b""))).status == 200
        assert gateway.lane.held_bytes == 0


async def test_requests_waiting_on_one_connection_are_bounded() -> None:
    async with running(limits(queued_requests_max=20)) as gateway:
        connection = await gateway.connect()
        connection.send(get("/livez") * 100)
        answered = 0
        while True:
            try:
                assert (await connection.answer()).status == 200
            except asyncio.IncompleteReadError:
                break
            answered += 1
        assert 20 <= answered <= 23


async def test_a_caller_beside_a_thousand_idle_ones_is_answered_and_all_are_let_go() -> None:
    async with running() as gateway:
        idle = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(1000)]
        await until(lambda: len(gateway.lane.connections) == 1000)
        connection = await gateway.connect()
        connection.send(*(post(b'{"n":%d}' % n) for n in range(100)))
        assert [(await connection.answer()).json()["n"] for _ in range(100)] == list(range(100))
        for client in idle:
            client.close()
        await until(lambda: len(gateway.lane.connections) == 1)

"""The lane over real sockets: what it answers, in which order, and what it leaves to ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio
from running_gateway import NOW_MS, Running, document, get, post, publish, running, until

from headrace.gateway.lane import LaneProtocol
from headrace.registry.catalog import encode_document

HEADS_MAX = 64
"""As in the codec."""

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncGenerator[Running]:
    async with running() as live:
        yield live


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(shared: Running) -> AsyncGenerator[Running]:
    """The module's gateway, counting from zero."""
    shared.forget()
    yield shared
    for connection in shared.connections:
        connection.abort()


async def test_a_plain_read_is_answered_by_the_lane(gateway: Running) -> None:
    connection = await gateway.connect()
    answer = await connection.exchange(post(b'{"n":1}'))
    assert answer.status == 200
    assert answer.json() == {"length": 7, "n": 1, "accept": 0, "now_ms": NOW_MS}
    assert answer.headers["headrace-generation"] == "3"
    assert gateway.lane.telemetry.lane_requests == 1


async def test_a_body_in_single_bytes_reads_as_in_one_piece(gateway: Running) -> None:
    connection = await gateway.connect()
    request = post(b'{"n":77}')
    for index in range(len(request)):
        connection.send(request[index : index + 1])
        await asyncio.sleep(0)
    answer = await connection.answer()
    assert answer.json()["n"] == 77
    assert gateway.engine.bodies == [b'{"n":77}']
    assert gateway.lane.held_bytes == 0


async def test_one_connection_answers_many_requests(gateway: Running) -> None:
    connection = await gateway.connect()
    answers = [await connection.exchange(post(b'{"n":%d}' % n)) for n in range(20)]
    assert [answer.json()["n"] for answer in answers] == list(range(20))
    assert len(gateway.lane.connections) == 1


async def test_pipelined_reads_are_answered_in_order(gateway: Running) -> None:
    connection = await gateway.connect()
    connection.send(*(post(b'{"n":%d}' % n) for n in range(200)))
    answers = [await connection.answer() for _ in range(200)]
    assert [answer.json()["n"] for answer in answers] == list(range(200))
    assert gateway.lane.telemetry.lane_requests == 200


async def test_lane_and_asgi_answers_never_overtake_each_other(gateway: Running) -> None:
    """Semantics 15."""
    connection = await gateway.connect()
    requests: list[bytes] = []
    for n in range(60):
        requests += [post(b'{"n":%d}' % n), get("/livez", f"x-request-id: asgi-{n}")]
    connection.send(*requests)
    seen: list[object] = []
    for _ in requests:
        answer = await connection.answer()
        seen.append(answer.json().get("n", answer.headers["x-request-id"]))
    assert seen == [word for n in range(60) for word in (n, f"asgi-{n}")]


async def test_reads_behind_a_slow_asgi_answer_wait_for_it(gateway: Running) -> None:
    connection = await gateway.connect()
    asgi_first = b"GET /schema/openapi.json HTTP/1.1\r\nhost: gateway\r\n\r\n"
    connection.send(asgi_first, *(post(b'{"n":%d}' % n) for n in range(30)))
    assert "openapi" in (await connection.answer()).json()
    assert [(await connection.answer()).json()["n"] for _ in range(30)] == list(range(30))


async def test_the_lane_is_taken_again_after_an_asgi_answer(gateway: Running) -> None:
    connection = await gateway.connect()
    await connection.exchange(get("/livez"))
    await connection.exchange(post(b"{}"))
    assert gateway.lane.telemetry.lane_requests == 1


@pytest.mark.parametrize(
    "path",
    ["//v1/read", "/v1//read", "/v1/read/", "/%761/read", "/v1%2Fread", "/v1/./read", "/V1/read"],
)
async def test_a_path_that_is_written_otherwise_is_no_read(gateway: Running, path: str) -> None:
    """What the lane does not know for its route, the routes behind it do not know either."""
    connection = await gateway.connect()
    answer = await connection.exchange(post(b"{}", path=path))
    assert (answer.status, answer.json()["code"]) == (404, "NOT_FOUND")
    assert gateway.engine.bodies == []


@pytest.mark.parametrize("path", ["/v1/read?a=b", "http://gateway/v1/read"])
async def test_a_read_may_have_a_query_or_a_whole_url(gateway: Running, path: str) -> None:
    """RFC 9112, 3.2.2 makes servers take the latter."""
    connection = await gateway.connect()
    assert (await connection.exchange(post(b'{"n":1}', path=path))).json()["n"] == 1


async def test_the_answer_to_a_head_has_no_body(gateway: Running) -> None:
    connection = await gateway.connect()
    connection.send(b"HEAD /livez HTTP/1.1\r\nhost: gateway\r\n\r\n", post(b'{"n":1}'))
    head = await connection.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"content-length: 14\r\n" in head
    assert (await connection.answer()).json()["n"] == 1


async def test_connection_close_is_honoured(gateway: Running) -> None:
    connection = await gateway.connect()
    answer = await connection.exchange(post(b"{}", "connection: close"))
    assert answer.headers["connection"] == "close"
    assert await connection.ended() == b""


async def test_nothing_is_answered_after_a_request_that_closes(gateway: Running) -> None:
    connection = await gateway.connect()
    connection.send(post(b'{"n":1}', "connection: close"), post(b'{"n":2}'))
    assert (await connection.answer()).json()["n"] == 1
    assert await connection.ended() == b""


async def test_http_1_0_is_answered_and_closed(gateway: Running) -> None:
    connection = await gateway.connect()
    answer = await connection.exchange(post(b'{"n":1}', version="1.0"))
    assert (answer.status, answer.json()["n"]) == (200, 1)
    assert await connection.ended() == b""


async def test_a_chunked_body_is_read_whole(gateway: Running) -> None:
    connection = await gateway.connect()
    head = (
        b"POST /v1/read HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n"
        b"transfer-encoding: chunked\r\n\r\n"
    )
    answer = await connection.exchange(head, b'3\r\n{"n\r\n', b'4\r\n":9}\r\n', b"0\r\n\r\n")
    assert answer.json()["n"] == 9
    assert gateway.engine.bodies == [b'{"n":9}']


async def test_expect_100_continue_is_told_to_go_on(gateway: Running) -> None:
    connection = await gateway.connect()
    head, _, body = post(b'{"n":5}', "expect: 100-continue").partition(b"\r\n\r\n")
    interim = await connection.exchange(head, b"\r\n\r\n")
    assert interim.status == 100
    assert (await connection.exchange(body)).json()["n"] == 5


async def test_a_caller_that_ends_its_side_still_gets_its_answers(gateway: Running) -> None:
    connection = await gateway.connect()
    connection.send(get("/livez"), post(b'{"n":1}'))
    connection.writer.write_eof()
    assert (await connection.answer()).status == 200
    assert (await connection.answer()).json()["n"] == 1
    assert await connection.ended() == b""


UNUSUAL = {
    "chunked": ("transfer-encoding: chunked",),
    "avro": ("accept: application/vnd.headrace.avro",),
    "arrow": ("accept: application/vnd.apache.arrow.stream",),
    "zstd": ("accept-encoding: zstd",),
    "two lists of codings": ("accept-encoding: gzip;q=0.5", "accept-encoding: zstd"),
    "close": ("connection: close",),
    "both media types": ("accept: application/json;q=0.1, application/vnd.headrace.avro",),
    "another media type first": ("accept: text/html, */*;q=0.1",),
}


@pytest.mark.parametrize("headers", UNUSUAL.values(), ids=UNUSUAL)
async def test_the_lane_and_its_asgi_twin_make_equal_bytes(
    gateway: Running, headers: tuple[str, ...]
) -> None:
    lane, twin = await gateway.connect(), await gateway.connect()
    shared = ("x-request-id: same-for-both", *(h for h in headers if "chunked" not in h))
    first = await lane.exchange(post(b'{"n":4}', *shared))
    # An identity Content-Encoding changes nothing but the way the request takes.
    second = await twin.exchange(post(b'{"n":4}', *shared, "content-encoding: identity"))
    assert gateway.lane.telemetry.lane_requests == (0 if len(headers) > 1 else 1)
    assert len(gateway.engine.bodies) == 2
    assert first.raw == second.raw


@pytest.mark.parametrize(
    ("accept_encoding", "form"),
    [("gzip", 16), ("zstd", 32), ("gzip;q=0.5, zstd;q=0.4", 16), ("gzip, deflate", 0), ("", 0)],
)
async def test_accept_encoding_keeps_a_read_on_the_lane(
    gateway: Running, accept_encoding: str, form: int
) -> None:
    """The first request is parsed, the second is known by its head."""
    connection = await gateway.connect()
    headers = (f"accept-encoding: {accept_encoding}", "accept: application/vnd.headrace.avro")
    connection.send(post(b"{}", *headers))
    connection.send(post(b"{}", *headers), post(b"{}", "accept-encoding: zstd"), post(b"{}"))
    answers = [(await connection.answer()).json()["accept"] for _ in range(4)]
    assert answers == [form + 1, form + 1, 32, 0]
    assert gateway.lane.telemetry.lane_requests == 4


async def test_a_callers_request_id_is_kept_when_it_is_safe(gateway: Running) -> None:
    """Semantics 15."""
    connection = await gateway.connect()
    kept = await connection.exchange(post(b"{}", "x-request-id: Trace_1.a-b"))
    assert kept.headers["x-request-id"] == "Trace_1.a-b"


@pytest.mark.parametrize("inbound", ["a b", "a" * 65, "é", '"x"', ""])
async def test_an_unsafe_request_id_is_replaced(gateway: Running, inbound: str) -> None:
    connection = await gateway.connect()
    for request in (
        post(b"{}", f"x-request-id: {inbound}"),
        get("/livez", f"x-request-id: {inbound}"),
    ):
        made = (await connection.exchange(request)).headers["x-request-id"]
        assert made != inbound
        assert 1 <= len(made) <= 64


async def test_every_request_has_its_own_id(gateway: Running) -> None:
    connection = await gateway.connect()
    connection.send(*([post(b"{}"), get("/livez")] * 20))
    ids = [(await connection.answer()).headers["x-request-id"] for _ in range(40)]
    assert len(set(ids)) == 40


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (None, 200),
        ("application/json; charset=utf-8", 200),
        ("Application/JSON", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
    ],
)
async def test_the_body_must_be_json_or_say_nothing(
    gateway: Running, content_type: str | None, status: int
) -> None:
    """Semantics 15."""
    connection = await gateway.connect()
    answer = await connection.exchange(post(b"{}", content_type=content_type))
    assert answer.status == status
    if status == 415:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "UNSUPPORTED_MEDIA_TYPE"


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("*/*", 0),
        ("application/json", 0),
        ("application/*", 0),
        ("application/vnd.headrace.avro", 1),
        ("application/vnd.headrace.avro, */*;q=0.5", 1),
        ("application/vnd.apache.arrow.stream", 3),
        ("application/json;q=0, */*", 1),
        ("text/html", None),
        ("application/json;q=0", None),
    ],
)
async def test_accept_chooses_the_answers_form(
    gateway: Running, accept: str, form: int | None
) -> None:
    """Semantics 15."""
    connection = await gateway.connect()
    answer = await connection.exchange(post(b"{}", f"accept: {accept}"))
    if form is None:
        assert (answer.status, answer.json()["code"]) == (406, "NOT_ACCEPTABLE")
    else:
        assert answer.json()["accept"] == form


@pytest.mark.parametrize("name", ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host"])
async def test_a_forwarded_request_is_refused_on_every_route(gateway: Running, name: str) -> None:
    """Semantics 14."""
    connection = await gateway.connect()
    for request in (post(b"{}", f"{name}: x"), get("/livez", f"{name}: x")):
        answer = await connection.exchange(request)
        assert (answer.status, answer.json()["code"]) == (403, "LOOPBACK_ONLY")
    assert gateway.engine.bodies == []


async def test_a_row_of_a_newer_catalog_loads_it_before_the_answer() -> None:
    """Semantics 20: one look at the store, then the answer names the newer generation."""
    async with running() as gateway:
        publish(gateway.published, encode_document(document(generation=4)), 4)
        gateway.engine.stale_left = 2  # the lane meets it, and then its twin
        connection = await gateway.connect()
        answer = await connection.exchange(post(b'{"n":1}'))
        assert (answer.status, answer.json()["n"]) == (200, 1)
        assert answer.headers["headrace-generation"] == "4"
        assert gateway.lane.telemetry.stale_reads == 1


async def test_a_row_that_stays_unknown_is_answered_after_one_look() -> None:
    async with running() as gateway:
        gateway.engine.stale_left = 1_000
        connection = await gateway.connect()
        assert (await connection.exchange(post(b"{}"))).status == 200
        assert gateway.engine.stale_left == 998


async def test_a_catalog_that_cannot_be_loaded_leaves_the_old_one_in_force() -> None:
    """Semantics 23."""
    async with running() as gateway:
        publish(gateway.published, b'{"generation":4', 4)
        await gateway.watcher.refresh()
        connection = await gateway.connect()
        ready = await connection.exchange(get("/readyz"))
        assert (ready.status, ready.json()["generation"]) == (200, 3)
        assert "cannot be read" in str(ready.json()["catalog_error"])
        metrics = (await connection.exchange(get("/metrics"))).body
        assert b"headrace_catalog_rejected 1.0" in metrics
        assert (await connection.exchange(post(b"{}"))).headers["headrace-generation"] == "3"


async def test_a_failing_engine_is_a_500_with_an_id_and_nothing_of_its_cause(
    gateway: Running, caplog: pytest.LogCaptureFixture
) -> None:
    gateway.engine.fails = True
    connection = await gateway.connect()
    answer = await connection.exchange(post(b"{}", "x-request-id: find-me"))
    assert (answer.status, answer.json()["code"]) == (500, "INTERNAL")
    assert b"store is gone" not in answer.body
    assert "find-me" in caplog.text
    gateway.engine.fails = False
    assert (await connection.exchange(post(b"{}"))).status == 200


async def test_reads_are_counted_whichever_way_they_take(gateway: Running) -> None:
    connection = await gateway.connect()
    await connection.exchange(post(b"{}"))
    await connection.exchange(post(b"{}", "content-encoding: identity"))
    text = (await connection.exchange(get("/metrics"))).body.decode()
    assert 'headrace_reads_total{status="200"} 2.0' in text
    assert "headrace_lane_requests_total 1.0" in text
    assert 'headrace_http_requests_total{route="/v1/read",status="200"} 1.0' in text
    assert "headrace_read_seconds_count 2.0" in text
    assert "headrace_catalog_generation 3.0" in text
    assert 'headrace_engine_total{counter="requests"} 2.0' in text


async def test_an_answer_without_a_catalog_is_503_and_says_when_to_come_back() -> None:
    async with running(published={}) as gateway:
        connection = await gateway.connect()
        for request in (post(b"{}"), get("/v1/services")):
            answer = await connection.exchange(request)
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert answer.json()["code"] == "NO_CATALOG"
        ready = await connection.exchange(get("/readyz"))
        assert (ready.status, ready.json()["ready"]) == (503, False)


async def test_a_head_that_came_before_is_answered_without_parsing_it_again() -> None:
    async with running() as gateway:
        connection = await gateway.connect()
        answers = [await connection.exchange(post(b'{"n":%d}' % (n % 10))) for n in range(30)]
        assert [answer.json()["n"] for answer in answers] == [n % 10 for n in range(30)]
        assert gateway.lane.direct.known_heads == 1
        assert len({answer.headers["x-request-id"] for answer in answers}) == 30


async def test_a_known_head_changes_nothing_about_what_follows_it(gateway: Running) -> None:
    """Split, pipelined and mixed requests after one whose head is known."""
    connection = await gateway.connect()
    request = post(b'{"n":1}')
    await connection.exchange(request)
    assert gateway.lane.direct.known_heads
    connection.send(request[:60])
    await until(lambda: any(c.receiving for c in gateway.lane.connections))
    connection.send(request[60:])
    assert (await connection.answer()).json()["n"] == 1
    connection.send(request, get("/livez"), request, post(b'{"n":2}', "connection: close"))
    answers = [await connection.answer() for _ in range(4)]
    assert [answer.json().get("n") for answer in answers] == [1, None, 1, 2]
    assert await connection.ended() == b""


async def test_heads_that_differ_in_their_request_id_only_are_one_known_head() -> None:
    """Each answer has the id of its own request (semantics 15)."""
    async with running() as gateway:
        connection = await gateway.connect()
        ids = [f"r-{number}" for number in range(5)] + ["i" * 64]
        for request_id in ids:
            answer = await connection.exchange(post(b"{}", f"x-request-id: {request_id}"))
            assert answer.headers["x-request-id"] == request_id
        assert gateway.lane.direct.known_heads == 1
        (protocol,) = gateway.lane.connections
        assert isinstance(protocol, LaneProtocol)
        assert (b"x-request-id", b"r-0") in protocol.headers  # none after it was parsed
        connection.send(*(post(b"{}", f"x-request-id: {request_id}") for request_id in ids))
        assert [(await connection.answer()).headers["x-request-id"] for _ in ids] == ids


@pytest.mark.parametrize("inbound", ["a b", "a" * 65, "é", '"x"', ""])
async def test_a_request_id_that_may_not_be_repeated_is_replaced_under_a_known_head(
    inbound: str,
) -> None:
    async with running() as gateway:
        connection = await gateway.connect()
        await connection.exchange(post(b"{}", "x-request-id: known"))
        answer = await connection.exchange(post(b"{}", f"x-request-id: {inbound}"))
        assert answer.status == 200
        assert answer.headers["x-request-id"] not in {inbound, "known"}
        assert gateway.lane.direct.known_heads == 1


async def test_the_memory_of_heads_is_bounded() -> None:
    async with running() as gateway:
        connection = await gateway.connect()
        for number in range(HEADS_MAX + 10):
            await connection.exchange(post(b"{}", f"padding: {number}"))
        assert gateway.lane.direct.known_heads == HEADS_MAX
    async with running() as gateway:
        connection = await gateway.connect()
        await connection.exchange(post(b"{}", "padding: " + "x" * 1_024))
        assert gateway.lane.direct.known_heads == 0


async def test_a_known_head_does_not_outlive_the_drain() -> None:
    async with running() as gateway:
        connection = await gateway.connect()
        await connection.exchange(post(b"{}"))
        gateway.lane.draining = True
        answer = await connection.exchange(post(b"{}"))
        assert answer.headers["connection"] == "close"
        assert await connection.ended() == b""


async def test_a_known_head_finds_a_row_of_a_newer_catalog_like_any_other() -> None:
    """Semantics 20."""
    async with running() as gateway:
        connection = await gateway.connect()
        await connection.exchange(post(b'{"n":1}'))
        gateway.engine.stale_left = 2  # as known head, and once parsed; the twin reads anew
        assert (await connection.exchange(post(b'{"n":2}'))).json()["n"] == 2


@pytest.mark.parametrize("name", ["accept", "content-type"])
async def test_a_header_that_stands_twice_is_left_to_the_twin(gateway: Running, name: str) -> None:
    connection = await gateway.connect()
    twice = (f"{name}: application/json", f"{name}: application/json")
    answer = await connection.exchange(post(b"{}", *twice, content_type=None))
    assert answer.status == (200 if name == "accept" else 415)
    assert gateway.lane.telemetry.lane_requests == 0

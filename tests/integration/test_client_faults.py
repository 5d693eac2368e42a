"""Both clients against servers that fail: nothing hangs, nothing is confused, nothing is hidden."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from client_callers import (
    CUT,
    KINDS,
    READ_BODY,
    SENT_BODY,
    caller_of,
    http,
    scripted,
)
from gateway_over_lmdb import served, store_gateway
from running_gateway import until

from headrace.client import (
    AsyncClient,
    Client,
    ConnectionFailed,
    DeadlineExceeded,
    GatewayUnavailable,
    MalformedAnswer,
    ReadOptions,
)
from headrace.loadtest import feature_data
from headrace.loadtest.fault_proxy import BlackHole, FaultProxy, Pass, Refuse, SlowDrip

GROUP = "live::host-stat-v1"
KEYS = {"user_id": [1]}
GOOD = [http(200, READ_BODY)]
UNAVAILABLE = b'{"code":"UNAVAILABLE","detail":"no row could be served"}'


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


def body_of(request: bytes) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(request.partition(b"\r\n\r\n")[2])
    return body


@pytest.fixture
async def proxy(tmp_path: Path) -> AsyncGenerator[FaultProxy]:
    """In front of a real gateway."""
    gateway = await store_gateway(tmp_path / "online")
    async with served(gateway.app) as port, FaultProxy("127.0.0.1", port) as made:
        yield made
    gateway.store.close()


async def test_a_read_cut_in_the_middle_of_its_answer_is_tried_once_more(kind: str) -> None:
    async with (
        scripted([GOOD[0][:90], CUT], GOOD) as server,
        caller_of(kind, server.port) as caller,
    ):
        read = await caller.read_group(GROUP, KEYS)
    assert read.result.rows == [[7]]
    assert (len(server.requests), server.connections) == (2, 2)
    first, second = (body_of(request) for request in server.requests)
    assert 0 < second.pop("deadline_ms") <= first.pop("deadline_ms") <= 9_000
    assert first == second


async def test_a_read_that_is_cut_twice_fails(kind: str) -> None:
    async with scripted([CUT]) as server, caller_of(kind, server.port) as caller:
        with pytest.raises(ConnectionFailed, match="ended early") as caught:
            await caller.read_group(GROUP, KEYS)
    assert caught.value.sent
    assert len(server.requests) == 2


async def test_commands_that_may_have_been_taken_are_never_sent_again(kind: str) -> None:
    async with scripted([CUT]) as server, caller_of(kind, server.port) as caller:
        with pytest.raises(ConnectionFailed) as caught:
            await caller.send([])
    assert caught.value.sent
    assert len(server.requests) == 1


async def test_commands_go_out_on_a_new_connection_when_the_kept_one_has_ended(kind: str) -> None:
    sent = http(202, SENT_BODY)
    async with scripted([sent, CUT], [sent]) as server, caller_of(kind, server.port) as caller:
        await caller.send([])
        await until(lambda: server.ended)
        for _ in range(5):  # turns of the loop in which the client sees the end, too
            await asyncio.sleep(0)
        assert (await caller.send([])).generation == 3
    assert (len(server.requests), server.connections) == (2, 2)


async def test_no_connection_is_told_from_one_that_ended(kind: str) -> None:
    async with scripted(GOOD) as server:
        port = server.port
    async with caller_of(kind, port) as caller:
        with pytest.raises(ConnectionFailed, match="no connection to `127") as caught:
            await caller.send([])
    assert not caught.value.sent


async def test_no_answer_in_time_is_an_error_and_its_connection_is_not_used_again(
    kind: str,
) -> None:
    half = GOOD[0][:60]
    async with scripted([half], GOOD) as server, caller_of(kind, server.port) as caller:
        with pytest.raises(DeadlineExceeded):
            await caller.read_group(GROUP, KEYS, deadline_ms=30)
        assert (await caller.read_group(GROUP, KEYS)).result.rows == [[7]]
    assert server.connections == 2


async def test_an_answer_that_drips_does_not_stretch_the_deadline(kind: str) -> None:
    async with scripted(GOOD) as server, FaultProxy("127.0.0.1", server.port) as slow:
        slow.fault = SlowDrip(bytes_per_second=200)
        async with caller_of(kind, slow.port) as caller:
            started = asyncio.get_running_loop().time()
            with pytest.raises(DeadlineExceeded):
                await caller.read_group(GROUP, KEYS, deadline_ms=50)
            # The drip alone would take as many seconds as its hundreds of bytes.
            assert asyncio.get_running_loop().time() - started < len(GOOD[0]) / 200


async def test_a_busy_gateway_is_asked_again_when_it_says_when(kind: str) -> None:
    busy = [http(503, UNAVAILABLE, "retry-after: 0")]
    async with scripted(busy, GOOD) as server, caller_of(kind, server.port) as caller:
        assert (await caller.read_group(GROUP, KEYS)).result.rows == [[7]]
    assert (len(server.requests), server.connections) == (2, 1)


async def test_the_wait_before_a_second_try_is_taken_off_the_deadline_it_is_sent_with(
    kind: str,
) -> None:
    """Else the gateway's partial answer would come when nobody waits any more."""
    busy = [http(503, UNAVAILABLE, "retry-after: 1")]
    async with scripted(busy, GOOD) as server, caller_of(kind, server.port) as caller:
        await caller.read_group(GROUP, KEYS, deadline_ms=60_000)
    first, second = (body_of(request)["deadline_ms"] for request in server.requests)
    assert second <= first - 900  # nine tenths of the second it waited
    assert second > 0


async def test_a_wait_longer_than_the_deadline_is_left_to_the_caller(kind: str) -> None:
    busy = [http(503, UNAVAILABLE, "retry-after: 60")]
    async with scripted(busy) as server, caller_of(kind, server.port) as caller:
        with pytest.raises(GatewayUnavailable, match="no row could be served") as caught:
            await caller.read_group(GROUP, KEYS)
    assert (caught.value.retry_after_seconds, len(server.requests)) == (60, 1)


@pytest.mark.parametrize(
    "answer",
    [b"SSH-2.0-OpenSSH\r\n", http(200, b"<html>"), http(200, READ_BODY) * 2],
    ids=["not-http", "not-ours", "twice"],
)
async def test_what_is_no_answer_is_refused_and_its_connection_dropped(
    kind: str, answer: bytes
) -> None:
    async with scripted([answer], GOOD) as server, caller_of(kind, server.port) as caller:
        with pytest.raises(MalformedAnswer):
            await caller.read_group(GROUP, KEYS)
        assert (await caller.read_group(GROUP, KEYS)).result.rows == [[7]]


async def test_a_connection_that_the_gateway_ends_is_not_used_again(kind: str) -> None:
    ending = [http(200, READ_BODY, "connection: close")]
    async with scripted(ending) as server, caller_of(kind, server.port) as caller:
        for _ in range(2):
            await caller.read_group(GROUP, KEYS)
    assert server.connections == 2


async def test_a_gateway_that_went_away_and_came_back_is_read_again(
    kind: str, proxy: FaultProxy
) -> None:
    async with caller_of(kind, proxy.port) as caller:
        before = await caller.read_group(feature_data.OBJECT, KEYS)
        proxy.fault = Refuse()
        with pytest.raises(ConnectionFailed):
            await caller.read_group(feature_data.OBJECT, KEYS)
        proxy.fault = Pass()
        after = await caller.read_group(feature_data.OBJECT, KEYS)
    assert before.result == after.result


async def test_a_gateway_that_says_nothing_costs_no_more_than_the_deadline(
    kind: str, proxy: FaultProxy
) -> None:
    async with caller_of(kind, proxy.port) as caller:
        await caller.read_group(feature_data.OBJECT, KEYS)
        proxy.fault = BlackHole()
        with pytest.raises(DeadlineExceeded):
            await caller.read_group(feature_data.OBJECT, KEYS, deadline_ms=30)


async def test_waiting_for_a_connection_counts_against_the_deadline(kind: str) -> None:
    async with scripted([]) as server:
        server.scripts = [[]]
        async with caller_of(kind, server.port, connections_max=1) as caller:
            slow = asyncio.create_task(caller.read_group(GROUP, KEYS, deadline_ms=500))
            await until(lambda: server.requests)
            with pytest.raises(DeadlineExceeded, match="every connection is in use"):
                await caller.read_group(GROUP, KEYS, deadline_ms=30)
            with pytest.raises(DeadlineExceeded):
                await slow


async def test_an_answer_to_a_cancelled_call_meets_no_other() -> None:
    late, other = http(200, READ_BODY.replace(b"[[7]]", b"[[6]]")), GOOD
    async with scripted([], other) as server:
        server.scripts = [[], other]
        async with AsyncClient(f"http://127.0.0.1:{server.port}", deadline_ms=9_000) as client:
            call = asyncio.create_task(client.read_group(GROUP, KEYS))
            await until(lambda: server.requests)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert (await client.read_group(GROUP, KEYS)).result.rows == [[7]]
    assert server.connections == 2
    assert late != other[0]


async def test_a_closed_client_says_so(kind: str) -> None:
    async with scripted(GOOD) as server:
        async with caller_of(kind, server.port) as caller:
            await caller.read_group(GROUP, KEYS)
        with pytest.raises(ConnectionFailed, match="closed"):
            await caller.read_group(GROUP, KEYS)
    assert server.connections == 1


@pytest.mark.parametrize("deadline_ms", [0, -1, 60_001])
async def test_a_deadline_that_no_gateway_takes_is_refused_here(
    kind: str, deadline_ms: int
) -> None:
    async with scripted(GOOD) as server, caller_of(kind, server.port) as caller:
        with pytest.raises(ValueError, match="deadline_ms"):
            await caller.read_group(GROUP, KEYS, deadline_ms=deadline_ms, options=ReadOptions())
    assert server.requests == []


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """Its queue is full: further connections are neither taken nor refused."""
    with ExitStack() as stack:
        listening = stack.enter_context(closing(socket.socket()))
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(closing(socket.socket()))
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


def resolve_to(places: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: object, **__: object) -> list[Any]:
        return places

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def test_several_addresses_share_one_deadline(
    deaf_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name of 40 addresses that all say nothing, which no test can put into the DNS."""
    places = socket.getaddrinfo("127.0.0.1", deaf_port, type=socket.SOCK_STREAM)
    resolve_to(places * 40, monkeypatch)
    with Client(f"http://127.0.0.1:{deaf_port}", deadline_ms=200) as client:
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="no connection"):
            client.read_group(GROUP, KEYS)
        assert time.monotonic() - started < 0.2 * 40 / 2


async def test_the_next_address_is_tried_when_one_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(socket.socket()) as bound:  # and not listening
        bound.bind(("127.0.0.1", 0))
        refusing = socket.getaddrinfo("127.0.0.1", bound.getsockname()[1], type=socket.SOCK_STREAM)
        async with scripted(GOOD) as server:
            good = socket.getaddrinfo("127.0.0.1", server.port, type=socket.SOCK_STREAM)
            resolve_to(refusing + good, monkeypatch)
            async with caller_of("blocking", server.port) as caller:
                assert (await caller.read_group(GROUP, KEYS)).result.rows == [[7]]


def test_a_resolver_that_is_late_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    resolve = socket.getaddrinfo

    def late(host: str, *more: Any, **options: Any) -> Any:
        if not options.get("flags"):
            over.wait(60)
            host = "127.0.0.1"
        return resolve(host, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", late)
    with Client("http://gateway.invalid:6566", deadline_ms=50) as client:
        started = time.monotonic()
        try:
            with pytest.raises(DeadlineExceeded, match=r"no connection to `gateway\.invalid:6566`"):
                client.read_group(GROUP, KEYS)
        finally:
            over.set()
        assert time.monotonic() - started < 30


def test_a_name_that_stands_for_nothing_is_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with (
        Client("http://gateway.invalid:6566", deadline_ms=60_000) as client,
        pytest.raises(ConnectionFailed, match="Name or service not known") as caught,
    ):
        client.read_group(GROUP, KEYS)
    assert not caught.value.sent

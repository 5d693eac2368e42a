"""The fault proxy does what its faults say: the fault tests rest on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator

import pytest

from headrace.loadtest.fault_proxy import (
    BlackHole,
    CutMidReply,
    Delay,
    DuplicateReply,
    FaultProxy,
    Garble,
    Refuse,
    SlowDrip,
    SwapReplies,
    resp_reply_end,
)
from headrace.loadtest.servers import Server, start_valkey

ECHO_A = b"*2\r\n$4\r\nECHO\r\n$1\r\na\r\n"
ECHO_B = b"*2\r\n$4\r\nECHO\r\n$1\r\nb\r\n"
REPLY_A, REPLY_B = b"$1\r\na\r\n", b"$1\r\nb\r\n"


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    server = start_valkey(tmp_path_factory.mktemp("valkey"))
    yield server
    server.stop()


@pytest.fixture
async def proxy(valkey: Server) -> AsyncGenerator[FaultProxy]:
    async with FaultProxy(valkey.host, valkey.port, framing=resp_reply_end) as started:
        yield started


async def answers(proxy: FaultProxy, question: bytes, *, wait_s: float = 0.3) -> bytes:
    """What comes back within `wait_s`, or until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(question)
    received = b""
    try:
        async with asyncio.timeout(wait_s):
            while part := await reader.read(1000):
                received += part
    except (TimeoutError, ConnectionError):
        pass
    writer.transport.abort()
    return received


async def test_without_a_fault_bytes_pass_unchanged(proxy: FaultProxy) -> None:
    assert await answers(proxy, ECHO_A + ECHO_B) == REPLY_A + REPLY_B


async def test_refused_connections_bring_nothing(proxy: FaultProxy) -> None:
    proxy.fault = Refuse()
    assert await answers(proxy, ECHO_A) == b""


async def test_a_black_hole_takes_bytes_and_never_answers(proxy: FaultProxy) -> None:
    proxy.fault = BlackHole()
    assert await answers(proxy, ECHO_A) == b""


async def test_a_delay_keeps_the_order_of_answers(proxy: FaultProxy) -> None:
    proxy.fault = Delay(ms=60)
    assert await answers(proxy, ECHO_A, wait_s=0.03) == b""
    assert await answers(proxy, ECHO_A + ECHO_B) == REPLY_A + REPLY_B


async def test_a_cut_reply_is_half_a_reply(proxy: FaultProxy) -> None:
    proxy.fault = CutMidReply()
    assert await answers(proxy, ECHO_A) == REPLY_A[: len(REPLY_A) // 2]


async def test_garbled_answers_differ_in_one_bit_a_hundred_bytes(proxy: FaultProxy) -> None:
    long = b"x" * 1000
    proxy.fault = Garble()
    question = b"*2\r\n$4\r\nECHO\r\n$1000\r\n" + long + b"\r\n"
    expected = b"$1000\r\n" + long + b"\r\n"
    received = await answers(proxy, question)
    changed = [a ^ b for a, b in zip(received, expected, strict=True) if a != b]
    assert len(changed) in (10, 11)
    assert all(bits.bit_count() == 1 for bits in changed)


async def test_duplicated_replies_come_twice(proxy: FaultProxy) -> None:
    proxy.fault = DuplicateReply()
    assert await answers(proxy, ECHO_A) == REPLY_A * 2


async def test_swapped_replies_come_in_the_other_order(proxy: FaultProxy) -> None:
    proxy.fault = SwapReplies()
    assert await answers(proxy, ECHO_A + ECHO_B) == REPLY_B + REPLY_A


async def test_a_slow_drip_comes_byte_by_byte(proxy: FaultProxy) -> None:
    proxy.fault = SlowDrip(bytes_per_second=50)
    assert await answers(proxy, ECHO_A, wait_s=0.05) in (REPLY_A[:1], REPLY_A[:2], REPLY_A[:3])

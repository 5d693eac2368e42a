"""Callers that leave: at no stage does it break, hold or leak anything."""

from __future__ import annotations

import asyncio
import logging

import pytest
from running_gateway import Running, get, post, running, until

WHOLE = post(b'{"n":1}')
CHUNKED = b"POST /v1/read HTTP/1.1\r\nhost: g\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n"
STAGES = {
    "before a byte": b"",
    "in the request line": WHOLE[:8],
    "in the headers": WHOLE[:40],
    "before the body": WHOLE[:-7],
    "in the lane's body": WHOLE[:-2],
    "in a large lane body": post(b" " * 900_000)[:-1],
    "in an ASGI body": CHUNKED,
    "while expected to go on": post(b"{}", "expect: 100-continue")[:-2],
    "before reading a lane answer": WHOLE,
    "before reading an ASGI answer": get("/v1/feature-groups"),
    "with much unread": post(b'{"size":900000}') * 20,
    "with a queue": (get("/v1/services") + WHOLE) * 30,
    "with a queue and half a request": (get("/v1/services") + WHOLE) * 3 + WHOLE[:-3],
    "after nonsense": b"\x00\x01\x02",
}


async def still_serves(gateway: Running) -> bool:
    connection = await gateway.connect()
    answers = [await connection.exchange(request) for request in (post(b"{}"), get("/livez"))]
    connection.abort()
    return [answer.status for answer in answers] == [200, 200]


@pytest.mark.parametrize("how", ["reset", "end"])
@pytest.mark.parametrize("sent", STAGES.values(), ids=STAGES)
async def test_a_caller_may_leave_at_any_stage(
    sent: bytes, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    async with running() as gateway:
        callers = [await gateway.connect() for _ in range(3)]
        for caller in callers:
            caller.send(sent)
            await caller.writer.drain()
        await asyncio.sleep(0.01)
        for caller in callers:
            if how == "reset":
                caller.abort()
            else:
                caller.close()
        await until(lambda: not gateway.lane.connections)
        assert gateway.lane.held_bytes == 0
        assert await still_serves(gateway)
        assert not gateway.server.server_state.tasks
    assert caplog.records == []


async def test_an_answer_to_nobody_is_not_counted_as_a_failure() -> None:
    async with running() as gateway:
        caller = await gateway.connect()
        caller.send(CHUNKED)
        await until(lambda: gateway.server.server_state.tasks)
        caller.abort()
        await until(lambda: not gateway.server.server_state.tasks)
        assert {status for _, status in gateway.lane.telemetry.requests()} <= {200}

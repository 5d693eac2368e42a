"""Lane answers that come later, as from a cache or a networked store: order, drain, departures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest
from running_gateway import NOW_MS, Running, TinyEngine, get, limits, post, running, until

BODIES_OF_DUE_MAX = 8


class HeldReads:
    """Answers when told to, in any order; bodies with `now` in them at once."""

    def __init__(self, engine: TinyEngine) -> None:
        self._engine = engine
        self.waiting: list[tuple[bytes, Callable[[bytes], None]]] = []
        self.observe: Callable[[int, bytes], None] = lambda elapsed_ns, status: None

    def start(
        self,
        body: bytes,
        accept: int,
        request_id: bytes,
        *,
        keep_alive: bool,
        deliver: Callable[[bytes], None],
    ) -> bytes | None:
        response = self._engine.read(
            body, accept=accept, now_ms=NOW_MS, request_id=request_id, keep_alive=keep_alive
        )
        if b"now" in body:
            return response
        self.waiting.append((response, deliver))
        return None

    def counters(self) -> dict[str, int]:
        return {"waiting": len(self.waiting)}

    def release(self, position: int = 0) -> None:
        """Deliver one waiting answer."""
        response, deliver = self.waiting.pop(position)
        deliver(response)

    def release_all_backwards(self) -> None:
        while self.waiting:
            self.release(-1)


class Held:
    """A running gateway and the reads it waits for."""

    def __init__(self) -> None:
        self.gateway: Running
        self.reads: HeldReads

    def make(self, engine: TinyEngine) -> HeldReads:
        self.reads = HeldReads(engine)
        return self.reads

    async def wait_for(self, count: int) -> None:
        await until(lambda: len(self.reads.waiting) == count)


@pytest.fixture
async def held() -> AsyncGenerator[Held]:
    made = Held()
    bounds = limits(due_answers_max=BODIES_OF_DUE_MAX)
    async with running(bounds, late=made.make) as gateway:
        made.gateway = gateway
        yield made
        made.reads.release_all_backwards()


async def test_a_late_answer_is_delivered_without_asgi(held: Held) -> None:
    connection = await held.gateway.connect()
    connection.send(post(b'{"n":1}'))
    await held.wait_for(1)
    held.reads.release()
    assert (await connection.answer()).json()["n"] == 1
    assert held.gateway.lane.telemetry.lane_requests == 1


async def test_pipelined_answers_keep_their_order_whatever_comes_first(held: Held) -> None:
    connection = await held.gateway.connect()
    connection.send(*(post(b'{"n":%d}' % n) for n in range(5)), post(b'{"n":5,"now":1}'))
    await held.wait_for(5)
    held.reads.release_all_backwards()
    assert [(await connection.answer()).json()["n"] for _ in range(6)] == list(range(6))


@pytest.mark.parametrize("at_once", [True, False], ids=["one chunk", "chunk by chunk"])
async def test_no_more_answers_fall_due_than_may_and_none_is_lost(
    held: Held, at_once: bool
) -> None:
    connection = await held.gateway.connect()
    asked = BODIES_OF_DUE_MAX * 4 + 3
    requests = [post(b'{"n":%d}' % n) for n in range(asked)]
    for chunk in [b"".join(requests)] if at_once else requests:
        connection.send(chunk)
        await asyncio.sleep(0)
    await held.wait_for(BODIES_OF_DUE_MAX)
    for answered in range(asked):
        await until(lambda: held.reads.waiting)
        assert len(held.reads.waiting) <= BODIES_OF_DUE_MAX
        held.reads.release()
        assert (await connection.answer()).json()["n"] == answered
    assert held.gateway.lane.held_bytes == 0


async def test_what_is_left_for_later_keeps_its_order_whoever_answers_it(held: Held) -> None:
    """Of one chunk: more reads than may be due, one for ASGI among them, and an unfinished one."""
    connection = await held.gateway.connect()
    before, after = BODIES_OF_DUE_MAX + 3, 5
    reads = [post(b'{"n":%d}' % n) for n in range(before + after)]
    last = post(b'{"n":99}')
    livez = get("/livez", "x-request-id: asgi")
    connection.send(*reads[:before], livez, *reads[before:], last[:30])
    for n in range(before):
        await until(lambda: held.reads.waiting)
        held.reads.release()
        assert (await connection.answer()).json()["n"] == n
    assert (await connection.answer()).headers["x-request-id"] == "asgi"
    connection.send(last[30:])
    for n in [*range(before, before + after), 99]:
        await until(lambda: held.reads.waiting)
        held.reads.release()
        assert (await connection.answer()).json()["n"] == n
    assert held.gateway.lane.held_bytes == 0


async def test_a_caller_that_leaves_lets_go_of_what_was_left_for_later(held: Held) -> None:
    connection = await held.gateway.connect()
    connection.send(post(b'{"n":1}') * BODIES_OF_DUE_MAX * 3)
    await held.wait_for(BODIES_OF_DUE_MAX)
    assert held.gateway.lane.held_bytes > len(post(b'{"n":1}')) * BODIES_OF_DUE_MAX * 2
    connection.abort()
    held.reads.release_all_backwards()
    await until(lambda: not held.gateway.lane.connections)
    assert held.gateway.lane.held_bytes == 0
    assert held.reads.waiting == []


async def test_asgi_does_not_overtake_a_late_answer(held: Held) -> None:
    """Semantics 15."""
    connection = await held.gateway.connect()
    connection.send(post(b'{"n":1}'), get("/livez", "x-request-id: asgi"), post(b'{"n":2}'))
    await held.wait_for(1)
    held.reads.release()
    assert (await connection.answer()).json()["n"] == 1
    assert (await connection.answer()).headers["x-request-id"] == "asgi"
    await held.wait_for(1)  # The second read was behind an ASGI answer: it goes through ASGI.
    held.reads.release()
    assert (await connection.answer()).json()["n"] == 2


async def test_a_caller_that_leaves_costs_nothing_and_breaks_nothing(held: Held) -> None:
    gone, stays = await held.gateway.connect(), await held.gateway.connect()
    gone.send(*(post(b'{"n":%d}' % n) for n in range(3)))
    await held.wait_for(3)
    stays.send(post(b'{"n":9}'))
    await held.wait_for(4)
    gone.abort()
    held.reads.release_all_backwards()
    assert (await stays.answer()).json()["n"] == 9
    await until(lambda: len(held.gateway.lane.connections) == 1)
    assert held.gateway.lane.held_bytes == 0


async def test_connection_close_ends_the_connection_after_its_late_answer(held: Held) -> None:
    connection = await held.gateway.connect()
    connection.send(post(b'{"n":1}', "connection: close"))
    await held.wait_for(1)
    held.reads.release()
    assert (await connection.answer()).json()["n"] == 1
    assert await connection.ended() == b""


async def test_a_caller_that_only_ended_its_side_gets_its_late_answers(held: Held) -> None:
    connection = await held.gateway.connect()
    connection.send(post(b'{"n":1}'), post(b'{"n":2}'))
    connection.writer.write_eof()
    await held.wait_for(2)
    held.reads.release_all_backwards()
    assert [(await connection.answer()).json()["n"] for _ in range(2)] == [1, 2]
    assert await connection.ended() == b""


async def test_what_is_malformed_is_refused_after_the_answers_that_are_due(held: Held) -> None:
    connection = await held.gateway.connect()
    connection.send(post(b'{"n":1}'))
    await held.wait_for(1)
    connection.send(b"\x00\x01 nonsense\r\n\r\n")
    await asyncio.sleep(0)
    held.reads.release()
    assert (await connection.answer()).json()["n"] == 1
    refusal = await connection.answer()
    assert (refusal.status, refusal.json()["code"]) == (400, "MALFORMED_HTTP")
    assert await connection.ended() == b""


async def test_late_answers_are_waited_for_when_the_server_stops() -> None:
    made = Held()
    async with running(late=made.make) as gateway:
        made.gateway = gateway
        connection = await gateway.connect()
        connection.send(post(b'{"n":1}'))
        await made.wait_for(1)
        gateway.server.stop()
        await until(lambda: gateway.lane.draining)
        made.reads.release()
        assert (await connection.answer()).json()["n"] == 1
        assert await connection.ended() == b""
        connection.close()
        await connection.writer.wait_closed()


async def test_the_asgi_twin_waits_for_a_late_answer(held: Held) -> None:
    connection = await held.gateway.connect()
    connection.send(post(b'{"n":3}', "trailer: x"))
    await held.wait_for(1)
    held.reads.release()
    assert (await connection.answer()).json()["n"] == 3
    assert held.gateway.lane.telemetry.lane_requests == 0

"""Statements in flight follow what the server bears, and no failure becomes a storm of retries."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from acsylla.errors import (
    CassErrorLibRequestTimedOut,
    CassErrorServerInvalidQuery,
    CassErrorServerOverloaded,
)
from room_commands import OBJECT, START_MS, Command, document

from headrace.codec import Catalog, CommandBatch, encode_commands
from headrace.registry.catalog import encode_document
from headrace.registry.watch import compile_document
from headrace.sync.errors import StoreUnavailable
from headrace.sync.stores.scylla import (
    ATTEMPTS_MAX,
    BACKOFF_START_S,
    CONCURRENCY_MAX,
    CONCURRENCY_MIN,
    CONCURRENCY_START,
    TRANSIENT,
    ScyllaOnlineWriter,
)

Answer = Callable[[int], Exception | None]
"""From how many statements are in flight, with this one: the server's error, None for done."""


class Statement:
    """A bound statement, which tells whether the driver may send it twice."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.idempotent = False

    def bind(self, parameters: list[object]) -> Statement:
        return Statement(self.text)

    def set_is_idempotent(self, idempotent: bool) -> None:
        self.idempotent = idempotent


class Server:
    """A driver's session: counts what it is asked, and answers a turn of the event loop later."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests = self.in_flight = self.most_in_flight = self.taken = 0
        self.sent: list[Statement] = []

    async def create_prepared(self, text: str) -> Statement:
        return Statement(text)

    async def execute(self, statement: Statement) -> None:
        self.requests += 1
        self.sent.append(statement)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(0)
        error = self.answer(self.in_flight)
        self.in_flight -= 1
        if error is not None:
            raise error
        self.taken += 1

    def begin(self) -> None:
        """Count from here."""
        self.requests = self.most_in_flight = self.taken = 0


class Waits:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.slept_s: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)


def takes_all(_: int) -> None:
    return None


overloaded: type[Exception] = CassErrorServerOverloaded


def failing(error: type[Exception]) -> Answer:
    return lambda _: error("no")


class Scene:
    """A writer over a server of the test."""

    def __init__(self, answer: Answer) -> None:
        self.server = Server(answer)
        self.waits = Waits()
        session: Any = self.server
        self.writer = ScyllaOnlineWriter(session, "k", chance=lambda: 0.5, sleep=self.waits.sleep)
        self.catalog: Catalog = compile_document(encode_document(document()))[0]

    async def store(self, rows: int) -> None:
        """Write one command for each of so many rows."""
        commands = [
            Command(OBJECT, "UPDATE", room, START_MS, {"viewers": room}).payload
            for room in range(rows)
        ]
        batch: CommandBatch = encode_commands(self.catalog, commands, now_ms=START_MS)
        await self.writer.store(batch, self.catalog, now_ms=START_MS)


@pytest.mark.parametrize("error", TRANSIENT)
async def test_a_server_that_is_too_slow_gets_half_as_much_at_once(
    error: type[Exception],
) -> None:
    refusals: Iterator[Exception] = iter([error("no")])
    scene = Scene(lambda _: next(refusals, None))
    await scene.store(600)
    assert scene.server.taken == 600
    halved = CONCURRENCY_START // 2
    assert scene.writer.concurrency == halved + CONCURRENCY_MIN, "half, and a step for the success"
    scene.server.begin()
    await scene.store(600)
    assert scene.server.most_in_flight == halved + CONCURRENCY_MIN


async def test_the_number_in_flight_grows_again_slowly_and_never_above_its_bound() -> None:
    scene = Scene(failing(CassErrorServerOverloaded))
    with pytest.raises(StoreUnavailable):
        await scene.store(200)
    assert scene.writer.concurrency == CONCURRENCY_MIN
    scene.server.answer = takes_all
    seen: list[int] = []
    for _ in range(CONCURRENCY_MAX // CONCURRENCY_MIN + 5):
        scene.server.begin()
        await scene.store(CONCURRENCY_MAX + 100)
        seen.append(scene.server.most_in_flight)
    steps = {after - before for before, after in itertools.pairwise(seen)}
    assert (seen[0], seen[-1], steps) == (CONCURRENCY_MIN, CONCURRENCY_MAX, {CONCURRENCY_MIN, 0})


async def test_a_server_that_bears_forty_is_soon_refused_by_few() -> None:
    """Additive increase, multiplicative decrease: most of what is sent is taken."""
    bears = 40
    scene = Scene(lambda in_flight: overloaded("no") if in_flight > bears else None)
    for _ in range(20):
        await scene.store(200)
    scene.server.begin()
    for _ in range(30):
        await scene.store(200)
    assert scene.server.taken == 30 * 200
    assert scene.server.requests <= 1.05 * scene.server.taken
    assert scene.server.most_in_flight <= bears + CONCURRENCY_MIN


@pytest.mark.parametrize("rows", [1, 4, 1_000])
async def test_a_server_that_fails_always_is_asked_a_bounded_number_of_times(rows: int) -> None:
    scene = Scene(failing(CassErrorLibRequestTimedOut))
    with pytest.raises(StoreUnavailable, match=f"did not take {rows} writes in {ATTEMPTS_MAX}"):
        await scene.store(rows)
    lanes = [max(CONCURRENCY_MIN, CONCURRENCY_START >> attempt) for attempt in range(ATTEMPTS_MAX)]
    assert scene.server.requests == sum(min(rows, lane) for lane in lanes)
    assert scene.server.requests <= ATTEMPTS_MAX * rows


async def test_each_wait_between_attempts_is_twice_the_one_before() -> None:
    scene = Scene(failing(CassErrorServerOverloaded))
    with pytest.raises(StoreUnavailable):
        await scene.store(3)
    waits = ATTEMPTS_MAX - 1
    assert scene.waits.slept_s == [BACKOFF_START_S * 2**turn for turn in range(waits)]


async def test_only_what_failed_is_written_again() -> None:
    refusals: Iterator[Exception] = iter([CassErrorServerOverloaded("no")] * 3)
    scene = Scene(lambda _: next(refusals, None))
    await scene.store(50)
    assert (scene.server.taken, scene.server.requests) == (50, 53)
    assert scene.waits.slept_s == [BACKOFF_START_S]


async def test_an_error_that_waiting_cannot_mend_is_not_tried_again() -> None:
    scene = Scene(failing(CassErrorServerInvalidQuery))
    with pytest.raises(StoreUnavailable, match="no"):
        await scene.store(5)
    assert (scene.server.requests, scene.waits.slept_s) == (5, [])
    assert scene.writer.concurrency == CONCURRENCY_START


async def test_every_write_may_be_sent_twice() -> None:
    """Each carries its own timestamp, so the driver may send it again (semantics 1)."""
    scene = Scene(takes_all)
    await scene.store(3)
    assert [statement.idempotent for statement in scene.server.sent] == [True] * 3
    assert all(" USING TIMESTAMP ? " in statement.text for statement in scene.server.sent)

"""Calls under way without a task each: bounded, in turn, and with their own results."""

from __future__ import annotations

import asyncio

import pytest

from headrace.gateway.stores.in_flight import InFlight, result_of


async def call(answer: asyncio.Future[str]) -> str:
    """What the driver's calls are: one future is waited for."""
    return f"got {await answer}"


def begin(in_flight: InFlight, count: int) -> list[asyncio.Future[str]]:
    """So many calls under way; resolving a future ends its call."""
    answers: list[asyncio.Future[str]] = []
    for _ in range(count):
        answer = asyncio.get_running_loop().create_future()
        assert in_flight.begin(call(answer)) is answer
        answers.append(answer)
    return answers


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_call_gives_its_result_once_its_future_is_done() -> None:
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    one = call(answer)
    ended = InFlight(1).begin(one)
    asyncio.get_running_loop().call_soon(answer.set_result, "it")
    await ended
    assert result_of(one) == "got it"


async def test_a_call_that_fails_raises_where_its_result_is_taken() -> None:
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    one = call(answer)
    InFlight(1).begin(one)
    answer.set_exception(OSError("gone"))
    with pytest.raises(OSError, match="gone"):
        result_of(one)


async def test_a_call_that_fails_at_once_is_not_under_way() -> None:
    async def refused() -> None:
        raise OSError("not connected")

    in_flight = InFlight(1)
    with pytest.raises(OSError, match="not connected"):
        in_flight.begin(refused())
    assert in_flight.under_way == 0


async def test_calls_that_ended_make_room_without_being_looked_at() -> None:
    in_flight = InFlight(3)
    answers = begin(in_flight, 3)
    assert in_flight.room_now(1) == 0
    answers[1].set_result("x")
    assert in_flight.room_now(1) == 1
    assert in_flight.under_way == 2


async def test_who_finds_no_room_waits_for_the_first_end_whichever_it_is() -> None:
    in_flight = InFlight(3)
    answers = begin(in_flight, 3)
    waiting = asyncio.create_task(in_flight.room(5))
    await turns()
    assert not waiting.done()
    answers[2].set_result("x")
    assert await asyncio.wait_for(waiting, 1) == 1
    assert in_flight.under_way == 2


async def test_room_is_given_in_the_order_of_asking_and_not_to_who_comes_later() -> None:
    in_flight = InFlight(1)
    answers = begin(in_flight, 1)
    order: list[str] = []

    async def ask(name: str) -> None:
        await in_flight.room(1)
        order.append(name)
        answers.extend(begin(in_flight, 1))

    asking = [asyncio.create_task(ask(name)) for name in ("first", "second")]
    await turns()
    answers[0].set_result("x")
    assert in_flight.room_now(1) == 0, "those who wait come first"
    await turns()
    assert order == ["first"]
    answers[1].set_result("x")
    await asyncio.gather(*asking)
    assert order == ["first", "second"]
    assert in_flight.under_way == 1


async def test_who_gives_up_waiting_leaves_his_turn_to_the_next() -> None:
    in_flight = InFlight(1)
    (answer,) = begin(in_flight, 1)
    impatient, patient = (asyncio.create_task(in_flight.room(1)) for _ in range(2))
    await turns()
    impatient.cancel()
    await turns()
    answer.set_result("x")
    await asyncio.wait_for(patient, 1)
    assert in_flight.room_now(1) == 1


async def test_who_wants_many_is_woken_for_many_and_who_wants_few_for_few() -> None:
    in_flight = InFlight(32)
    answers = begin(in_flight, 32)
    waiting = asyncio.create_task(in_flight.room(100))
    await turns()
    for answer in answers[:3]:
        answer.set_result("x")
    await turns()
    assert not waiting.done(), "an eighth of all is four"
    answers[3].set_result("x")
    assert await asyncio.wait_for(waiting, 1) == 4
    begin(in_flight, 4)
    waiting = asyncio.create_task(in_flight.room(1))
    await turns()
    answers[4].set_result("x")
    assert await asyncio.wait_for(waiting, 1) == 1


async def test_never_more_calls_are_under_way_than_allowed() -> None:
    """Many callers with many calls each, ended in another order than begun."""
    in_flight = InFlight(7)
    answers: list[asyncio.Future[str]] = []
    most = 0

    async def caller(calls: int) -> None:
        nonlocal most
        while calls > 0:
            room = in_flight.room_now(calls) or await in_flight.room(calls)
            begun = min(room, calls)
            calls -= begun
            answers.extend(begin(in_flight, begun))
            most = max(most, in_flight.under_way)

    callers = asyncio.gather(*(caller(calls) for calls in (20, 5, 13, 40, 1, 9)))
    while not callers.done():
        await turns(3)
        if answers:
            answers.pop(len(answers) * 7 // 11).set_result("x")
    await turns()
    assert most == 7
    assert in_flight.under_way == len(answers)

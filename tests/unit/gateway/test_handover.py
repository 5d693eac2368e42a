"""Handing connections to workers: always to the ready one with the fewest, and none is lost."""

from __future__ import annotations

import asyncio
import socket

import pytest

from headrace.gateway.handover import (
    UNTAKEN_MAX,
    Board,
    Inbox,
    WorkerSeat,
    hand_to_least_busy,
)


class Workers:
    """Seats and inboxes in one process; nothing is taken before `take`."""

    def __init__(self, count: int) -> None:
        board = Board(count)
        self.seats = [WorkerSeat(board, slot) for slot in range(count)]
        self.inboxes = [
            Inbox(seat.open(), board, seat.slot, ("127.0.0.1", 1)) for seat in self.seats
        ]
        self.served: list[list[socket.socket]] = [[] for _ in range(count)]
        self.callers: list[socket.socket] = []

    def open(self, *slots: int) -> None:
        for slot in slots or range(len(self.seats)):
            self.inboxes[slot].open(self.served[slot].append)
            self.seats[slot].listen()

    def call(self) -> bool:
        """One caller comes; whether a worker was given it."""
        caller, accepted = socket.socketpair()
        self.callers.append(caller)
        with accepted:
            return hand_to_least_busy(self.seats, accepted)

    async def take(self) -> list[int]:
        """Let every worker take what it was given; connections served a worker."""
        for _ in range(2 * len(self.callers)):
            await asyncio.sleep(0)
        return [len(served) for served in self.served]

    def close(self) -> None:
        for inbox in self.inboxes:
            inbox.close()
        for seat in self.seats:
            seat.close()
        for connection in (*self.callers, *(one for each in self.served for one in each)):
            connection.close()


@pytest.mark.parametrize("count", [2, 4])
async def test_64_connections_are_spread_evenly(count: int) -> None:
    workers = Workers(count)
    workers.open()
    for _ in range(64):
        assert workers.call()
    assert await workers.take() == [64 // count] * count
    workers.close()


async def test_the_worker_whose_connections_ended_gets_the_next_ones() -> None:
    workers = Workers(2)
    workers.open()
    for _ in range(8):
        workers.call()
    assert await workers.take() == [4, 4]
    for _ in range(4):
        workers.inboxes[1].end()
    for _ in range(4):
        workers.call()
    assert await workers.take() == [4, 8]
    assert [seat.connections for seat in workers.seats] == [4, 4]
    workers.close()


async def test_a_worker_that_is_not_ready_gets_none() -> None:
    workers = Workers(2)
    assert not workers.call()
    workers.open(1)
    assert workers.call()
    assert await workers.take() == [0, 1]
    workers.open(0)
    workers.close()


async def test_a_worker_that_takes_nothing_is_spared_once_it_has_a_handful_waiting() -> None:
    workers = Workers(2)
    workers.open()
    asyncio.get_running_loop().remove_reader(workers.inboxes[0].fileno())
    for _ in range(4 * UNTAKEN_MAX):
        workers.call()
        await workers.take()
    assert await workers.take() == [0, 3 * UNTAKEN_MAX]
    workers.close()


async def test_what_was_handed_over_before_the_end_is_still_served() -> None:
    workers = Workers(1)
    workers.open()
    for _ in range(3):
        workers.call()
    workers.inboxes[0].close()
    assert len(workers.served[0]) == 3
    workers.callers[0].sendall(b"still there")
    assert workers.served[0][0].recv(20) == b"still there"
    assert not workers.call()
    workers.close()


async def test_a_new_worker_in_the_seat_of_a_dead_one_starts_from_nothing() -> None:
    workers = Workers(2)
    workers.open()
    for _ in range(4):
        workers.call()
    await workers.take()
    workers.inboxes[0].close()
    seat = workers.seats[0]
    workers.inboxes[0] = Inbox(seat.open(), seat.board, 0, ("127.0.0.1", 1))
    assert (seat.connections, seat.ready) == (0, False)
    workers.open(0)
    assert workers.call()
    assert await workers.take() == [3, 2]
    workers.close()

"""The open-loop generator: what falls due while a server stands still counts."""

from __future__ import annotations

import json
import math
import select
import socket
import threading
from collections.abc import Callable
from collections.abc import Generator as Yields
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from headrace.loadtest.open_loop import (
    Exchange,
    Fate,
    Generator,
    Outcomes,
    Target,
    evenly,
    poisson,
    read_exchanges,
    write_exchanges,
)

GOOD = b'{"results":[]}'


FileT = TypeVar("FileT", int, socket.socket)


def readable(files: list[FileT], wait_ms: int) -> list[FileT]:
    """Those with something to read; unlike `select`, however many files the process has open."""
    poll = select.poll()
    by_fd = {each if isinstance(each, int) else each.fileno(): each for each in files}
    for fd in by_fd:
        poll.register(fd, select.POLLIN)
    return [by_fd[fd] for fd, _ in poll.poll(wait_ms)]


class Server:
    """Answers one request at a time over any number of connections, as `answer` says."""

    def __init__(self, answer: Callable[[int], bytes]) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._stop_read, self._stop_write = socket.socketpair()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def stop(self) -> None:
        self._stop_write.close()
        self._thread.join(10)

    def _serve(self) -> None:
        answered, sockets = 0, [self._listener, self._stop_read]
        while True:
            ready = readable(sockets, 60_000)
            if self._stop_read in ready:
                break
            for each in ready:
                if each is self._listener:
                    sockets.append(self._listener.accept()[0])
                elif each.recv(65_536):
                    each.sendall(self._answer(answered))
                    answered += 1
                else:
                    sockets.remove(each)
                    each.close()
        for each in sockets:
            each.close()


@contextmanager
def serving(answer: Callable[[int], bytes]) -> Yields[int]:
    server = Server(answer)
    try:
        yield server.port
    finally:
        server.stop()


def response(body: bytes = GOOD, status: str = "200 OK", more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


class StandingTime:
    """Time goes by only while nothing is under way, or when a server says how long it took."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.under_way: Callable[[], int] = lambda: 0

    def clock(self) -> float:
        return self.now_s

    def wait(self, poll_fd: int, wait_s: float) -> None:
        if self.under_way():
            assert readable([poll_fd], 10_000), "no answer came"
        else:
            self.now_s += wait_s


def drive(
    port: int, time: StandingTime, due_s: list[float], *, connections: int, waiting: int
) -> Outcomes:
    generator = Generator(
        Target(port),
        [Exchange(b"{}", b"")],
        connections,
        waiting_max=waiting,
        clock=time.clock,
        wait=time.wait,
    )
    time.under_way = lambda: generator.under_way
    with closing(generator):
        generator.run(due_s)
    return generator.outcomes


@pytest.mark.parametrize(("connections", "waiting"), [(1, 100), (100, 0)])
def test_requests_due_during_a_stall_are_recorded_with_the_time_they_waited(
    connections: int, waiting: int
) -> None:
    """A closed loop would see one slow answer out of 100; 50 requests were due meanwhile."""
    time = StandingTime()

    def answer(number: int) -> bytes:
        if number == 10:
            time.now_s += 0.5
        return response()

    with serving(answer) as port:
        outcomes = drive(port, time, evenly(100, 1.0), connections=connections, waiting=waiting)
    slow = sorted((s for s in outcomes.latency_s if s > 0.001), reverse=True)
    assert len(outcomes) == 100
    assert slow == pytest.approx([0.5 - number / 100 for number in range(50)], abs=1e-4)


def test_a_request_that_finds_every_connection_busy_and_may_not_wait_is_told_as_unsent() -> None:
    time = StandingTime()

    def answer(number: int) -> bytes:
        if number == 0:
            time.now_s += 0.1
        return response()

    with serving(answer) as port:
        outcomes = drive(port, time, [0.0, 0.0, 0.0], connections=1, waiting=1)
    assert sorted(outcomes.fates) == [Fate.OK, Fate.OK, Fate.UNSENT]


@pytest.mark.parametrize(
    ("sent", "fate"),
    [
        (response(b'{"results":[{"rows":[[1]],"statuses":[]}]}'), Fate.OK),
        (response(b'{"results":[{"rows":[[2]],"statuses":[]}]}'), Fate.WRONG),
        (
            response(
                b'{"results":[{"rows":[[null]],"statuses":[{"row":0,"status":"UNAVAILABLE"}]}]}'
            ),
            Fate.PARTIAL,
        ),
        (response(b"{}"), Fate.WRONG),
        (response(b"{}", "503 Service Unavailable", "Retry-After: 1\r\n"), Fate.REFUSED),
        (response(b"{}", "503 Service Unavailable"), Fate.FAILED),
        (response(b"{}", "404 Not Found"), Fate.FAILED),
    ],
    ids=["as expected", "another value", "partial", "no results", "shed", "503", "404"],
)
def test_an_answer_is_judged_by_the_one_that_was_expected(sent: bytes, fate: Fate) -> None:
    expected = b'{"results":[{"rows":[[1]],"statuses":[]}]}'
    with serving(lambda _: sent) as port:
        generator = Generator(Target(port), [Exchange(b"{}", expected)], 1)
        with closing(generator):
            generator.run([0.0])
    assert list(generator.outcomes.fates) == [fate]


def test_failures_do_not_improve_a_percentile() -> None:
    outcomes = Outcomes()
    for number in range(98):
        outcomes.note(number, 0.001, Fate.OK)
    for number in range(98, 100):
        outcomes.note(number, 0.0001, Fate.FAILED)
    summary = outcomes.summary()
    assert summary["p50_ms"] == pytest.approx(1.0)
    assert summary["p99_ms"] == math.inf
    assert (summary["ok"], summary["failed"]) == (98, 2)


def test_warming_up_is_no_part_of_a_summary() -> None:
    outcomes = Outcomes()
    outcomes.note(0.1, 9.0, Fate.OK)
    outcomes.note(1.1, 0.002, Fate.OK)
    assert outcomes.summary(since_s=1.0)["max_ms"] == pytest.approx(2.0)


def test_poisson_arrivals_have_the_rate_asked_for_and_are_the_same_each_time() -> None:
    due_s = poisson(1_000, 10)
    assert due_s == poisson(1_000, 10)
    assert len(due_s) == pytest.approx(10_000, rel=0.05)
    assert due_s == sorted(due_s)


def test_outcomes_and_exchanges_come_back_from_their_files(tmp_path: Path) -> None:
    outcomes = Outcomes()
    outcomes.note(1.5, 0.25, Fate.PARTIAL)
    outcomes.write(tmp_path / "outcomes")
    read = Outcomes.read(tmp_path / "outcomes")
    assert (read.due_s, read.latency_s, read.fates) == (
        outcomes.due_s,
        outcomes.latency_s,
        outcomes.fates,
    )
    exchanges = [Exchange(json.dumps({"a": 1}).encode(), b""), Exchange(b"{}", b"[]")]
    write_exchanges(tmp_path / "exchanges", exchanges)
    assert read_exchanges(tmp_path / "exchanges") == exchanges

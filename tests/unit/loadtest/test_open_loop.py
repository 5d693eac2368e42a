"""The open-loop generator: what falls due while a server stands still counts."""

from __future__ import annotations

import json
import math
import select
import socket
import threading
from collections.abc import Callable
from collections.abc import Generator as Yields
from contextlib import contextmanager
from pathlib import Path

import pytest

from headrace.loadtest import open_loop
from headrace.loadtest.open_loop import (
    Exchange,
    Fate,
    Outcomes,
    Target,
    evenly,
    poisson,
    read_exchanges,
    write_exchanges,
)

GOOD = b'{"results":[]}'


def readable(sockets: list[socket.socket], wait_ms: int) -> list[socket.socket]:
    """Those with something to read; unlike `select`, however many files the process has open."""
    poll = select.poll()
    by_fd = {each.fileno(): each for each in sockets}
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


def drive(
    port: int, due_s: list[float], *, connections: int, waiting: int, expected: bytes = b""
) -> Outcomes:
    load = open_loop.Load(Target(port), connections, waiting)
    return open_loop.drive(load, [Exchange(b"{}", expected)], due_s).outcomes


def stalling(at: int, stall_s: float) -> Callable[[int], bytes]:
    """A server that stands still before one of its answers."""
    never = threading.Event()

    def answer(number: int) -> bytes:
        if number == at:
            never.wait(stall_s)
        return response()

    return answer


@pytest.mark.parametrize(("connections", "waiting"), [(1, 100), (100, 0)])
def test_requests_due_during_a_stall_are_recorded_with_the_time_they_waited(
    connections: int, waiting: int
) -> None:
    """A closed loop would see one slow answer out of 100; 50 requests were due meanwhile."""
    with serving(stalling(10, 0.5)) as port:
        outcomes = drive(port, evenly(100, 1.0), connections=connections, waiting=waiting)
    assert len(outcomes) == 100
    assert set(outcomes.fates) == {Fate.OK}
    slowest = sorted(outcomes.latency_s, reverse=True)
    # No sooner than the stall ends, which begins when the 11th is due or later.
    for number in range(50):
        assert slowest[number] >= 0.5 - number / 100 - 1e-4


def test_a_request_that_finds_every_connection_busy_and_may_not_wait_is_told_as_unsent() -> None:
    with serving(stalling(0, 0.1)) as port:
        outcomes = drive(port, [0.0, 0.0, 0.0], connections=1, waiting=1)
    assert sorted(outcomes.fates) == [Fate.OK, Fate.OK, Fate.UNSENT]


def test_a_request_without_an_answer_has_failed_and_took_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(open_loop, "SETTLE_S", 0.05)
    with serving(lambda _: b"HTTP/1.1 200 OK\r\n") as port:
        outcomes = drive(port, [0.0, 0.0], connections=1, waiting=1)
    assert list(outcomes.fates) == [Fate.FAILED, Fate.FAILED]
    assert list(outcomes.latency_s) == [math.inf, math.inf]


def test_how_late_the_generator_itself_was_is_told_of_each_request_that_was_sent() -> None:
    with serving(stalling(0, 0.1)) as port:
        load = open_loop.Load(Target(port), 1, 1)
        driven = open_loop.drive(load, [Exchange(b"{}", b"")], [0.0, 0.01, 0.02])
    late_s = dict(zip(driven.outcomes.due_s, driven.outcomes.late_s, strict=True))
    assert late_s[0.01] >= 0.09 - 1e-4
    assert math.isnan(late_s[0.02])  # The third found no place to wait.


def test_an_answer_that_comes_in_pieces_is_judged_when_it_is_whole() -> None:
    body = b'{"results":[' + b" " * 600_000 + b"]}"  # More than is read at once.
    with serving(lambda _: response(body)) as port:
        outcomes = drive(port, [0.0, 0.01], connections=1, waiting=1, expected=body)
    assert list(outcomes.fates) == [Fate.OK, Fate.OK]


def test_a_missing_program_is_told_with_the_way_to_make_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CARGO_TARGET_DIR", str(tmp_path))
    with pytest.raises(SystemExit, match="run `make generator`"):
        open_loop.generator_path()


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
        outcomes = drive(port, [0.0], connections=1, waiting=0, expected=expected)
    assert list(outcomes.fates) == [fate]


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

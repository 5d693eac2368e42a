"""Open-loop load on one server: requests fall due by a clock and not by the answers before them.

    python -m headrace.loadtest.open_loop --port 6566 --rate 2000 --seconds 5 \
        --bodies FILE --out FILE

Due times are fixed before the start (a Poisson process, or evenly spaced), and latency counts from
the due time, so that a server that stands still is not spared the requests it would have got
("coordinated omission", Tene). A caller has a bounded pool of connections, one request at a time on
each; when all are busy a request that falls due waits for one if it may (`--waiting`), else it is
not sent, and counted as such. `Retry-After` is ignored: each request stands for another user.

Every answer is compared with the one that was expected for its body, which the bodies file holds;
an empty one stands for any answer of status 200.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import random
import select
import socket
import sys
import time
from array import array
from collections import deque
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

RECEIVED_BYTES = 1 << 18
SETTLE_S = 2.0
"""How long answers are waited for after the last request."""
HEAD_END = b"\r\n\r\n"
OK_START = b"HTTP/1.1 200 "
UNAVAILABLE_START = b"HTTP/1.1 503 "
SUMMARY_SHARES = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "p999_ms": 0.999, "max_ms": 1.0}


class Fate(IntEnum):
    """What became of a request."""

    OK = 0
    PARTIAL = 1
    """200, and rows that could not be read say so."""
    REFUSED = 2
    """503 with Retry-After."""
    FAILED = 3
    """Any other answer, none at all, or a broken connection."""
    UNSENT = 4
    """All connections were busy when it fell due, and no more requests may wait."""
    WRONG = 5
    """200, and a row is neither as expected nor said to be unavailable."""


class Exchange(NamedTuple):
    """A request's body and the body of its answer when nothing is wrong."""

    request: bytes
    answer: bytes


class Target(NamedTuple):
    """Where requests go, on this machine."""

    port: int
    path: str = "/v1/read"
    accept: str = "application/json"


class Outcomes:
    """Column by column: when a request fell due (s after the start), its latency (s), its fate."""

    def __init__(self) -> None:
        self.due_s = array("d")
        self.latency_s = array("f")
        self.fates = array("B")

    def __len__(self) -> int:
        return len(self.fates)

    def note(self, due_s: float, latency_s: float, fate: Fate) -> None:
        """Add one request."""
        self.due_s.append(due_s)
        self.latency_s.append(latency_s)
        self.fates.append(fate)

    def write(self, path: Path) -> None:
        """The count, then the three columns, in native byte order."""
        with path.open("wb") as file:
            array("Q", [len(self)]).tofile(file)
            for column in (self.due_s, self.latency_s, self.fates):
                column.tofile(file)

    @classmethod
    def read(cls, path: Path) -> Outcomes:
        """What `write` wrote."""
        outcomes = cls()
        with path.open("rb") as file:
            count = array("Q")
            count.fromfile(file, 1)
            for column in (outcomes.due_s, outcomes.latency_s, outcomes.fates):
                column.fromfile(file, count[0])
        return outcomes

    def summary(self, *, since_s: float = 0.0) -> dict[str, float]:
        """Counts by fate and percentiles in ms, of what fell due after `since_s`.

        Percentiles are of OK answers by nearest rank; a request that was due and never answered
        counts as endless, so that failures cannot improve a percentile.
        """
        counted = dict.fromkeys(Fate, 0)
        latencies: list[float] = []
        for due_s, latency_s, fate in zip(self.due_s, self.latency_s, self.fates, strict=True):
            if due_s >= since_s:
                counted[Fate(fate)] += 1
                latencies.append(latency_s if fate == Fate.OK else math.inf)
        latencies.sort()
        made: dict[str, float] = {fate.name.lower(): counted[fate] for fate in Fate}
        for name, share in SUMMARY_SHARES.items():
            rank = max(1, math.ceil(share * len(latencies)))
            made[name] = latencies[rank - 1] * 1_000 if latencies else math.nan
        return made


class Connection:
    """One socket with at most one request under way."""

    __slots__ = ("busy", "due_s", "exchange", "fd", "received", "socket", "unsent")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.socket.settimeout(0)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.fd = self.socket.fileno()
        self.busy = False
        self.due_s = 0.0
        self.exchange = 0
        self.received = b""
        self.unsent = b""


SELECTABLE_FDS = 1024
"""`select` takes no file descriptor from here on (FD_SETSIZE of the C library)."""


def wait_for_answers(poll_fd: int, wait_s: float) -> None:
    """Return when an answer comes or the time is up.

    `select` waits by microseconds; `poll`, for a process with very many open files, by
    milliseconds, rounded up.
    """
    if poll_fd < SELECTABLE_FDS:
        select.select([poll_fd], [], [], wait_s)
        return
    poll = select.poll()
    poll.register(poll_fd, select.POLLIN)
    poll.poll(wait_s * 1000)


class Generator:
    """Sends what falls due and hears the answers, in one thread on one epoll.

    `waiting_max` requests may wait for a connection; the clock and the wait are arguments so that
    a test can decide how time goes by.
    """

    def __init__(
        self,
        target: Target,
        exchanges: list[Exchange],
        connections: int,
        *,
        waiting_max: int = 0,
        clock: Callable[[], float] = time.perf_counter,
        wait: Callable[[int, float], None] = wait_for_answers,
    ) -> None:
        self._port = target.port
        self._requests = [_request(target, each.request) for each in exchanges]
        self._exchanges = exchanges
        self._waiting_max = waiting_max
        self._clock, self._wait = clock, wait
        self._start_s = 0.0
        self._poll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._idle: deque[Connection] = deque()
        self._waiting: deque[tuple[int, float]] = deque()
        self.outcomes = Outcomes()
        self.sent_late_s = array("f")
        for _ in range(connections):
            self._connect()

    @property
    def started_s(self) -> float:
        """The clock at the start of the run."""
        return self._start_s

    @property
    def under_way(self) -> int:
        """Requests sent and not yet answered."""
        return len(self._connections) - len(self._idle)

    def run(self, due_s: list[float]) -> None:
        """Send a request at each due time, in seconds from now, and wait for the answers."""
        choose = random.Random(3)
        numbers = [choose.randrange(len(self._requests)) for _ in due_s]
        position, end_s = 0, (due_s[-1] if due_s else 0.0) + SETTLE_S
        self._start_s = self._clock()
        while (now_s := self._now_s()) < end_s:
            while position < len(due_s) and due_s[position] <= now_s:
                self._send(numbers[position], due_s[position])
                position += 1
            if position == len(due_s) and not self.under_way:
                break
            self._listen((end_s if position == len(due_s) else due_s[position]) - self._now_s())
        for connection in self._connections.values():
            if connection.busy:
                self.outcomes.note(connection.due_s, math.inf, Fate.FAILED)
        for _, waiting_due_s in self._waiting:
            self.outcomes.note(waiting_due_s, math.inf, Fate.FAILED)

    def close(self) -> None:
        """Close every connection."""
        for connection in self._connections.values():
            connection.socket.close()
        self._poll.close()

    def _listen(self, wait_s: float) -> None:
        """Hear what has come; when nothing has, wait for it no longer than until the next send."""
        heard = self._poll.poll(0)
        if not heard and wait_s > 0:
            self._wait(self._poll.fileno(), wait_s)
            heard = self._poll.poll(0)
        for fd, events in heard:
            self._hear(fd, events)

    def _now_s(self) -> float:
        return self._clock() - self._start_s

    def _connect(self) -> None:
        connection = Connection(self._port)
        self._connections[connection.fd] = connection
        self._poll.register(connection.fd, select.EPOLLIN)
        self._free(connection)

    def _free(self, connection: Connection) -> None:
        """A connection can take a request: the one that has waited longest, if there is any."""
        connection.busy = False
        self._idle.append(connection)
        if self._waiting:
            self._send(*self._waiting.popleft())

    def _send(self, number: int, due_s: float) -> None:
        if not self._idle:
            if len(self._waiting) < self._waiting_max:
                self._waiting.append((number, due_s))
            else:
                self.outcomes.note(due_s, math.nan, Fate.UNSENT)
            return
        connection = self._idle.popleft()
        connection.busy, connection.received = True, b""
        connection.due_s, connection.exchange = due_s, number
        self.sent_late_s.append(self._now_s() - due_s)
        connection.unsent = self._requests[number]
        self._push(connection)

    def _push(self, connection: Connection) -> None:
        """Send what the socket takes, and wait for room for the rest."""
        try:
            sent = connection.socket.send(connection.unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._broken(connection)
            return
        had_room = sent == len(connection.unsent)
        connection.unsent = b"" if had_room else connection.unsent[sent:]
        if not had_room:
            self._poll.modify(connection.fd, select.EPOLLIN | select.EPOLLOUT)

    def _hear(self, fd: int, events: int) -> None:
        connection = self._connections[fd]
        if events & select.EPOLLOUT:
            self._poll.modify(fd, select.EPOLLIN)
            self._push(connection)
            return
        try:
            data = connection.socket.recv(RECEIVED_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or not connection.busy:
            self._broken(connection)
            return
        connection.received = data = connection.received + data if connection.received else data
        fate = self._fate(connection.exchange, data)
        if fate is not None:
            self.outcomes.note(connection.due_s, self._now_s() - connection.due_s, fate)
            self._free(connection)

    def _fate(self, number: int, data: bytes) -> Fate | None:
        """What an answer is; None while it is not whole."""
        expected = self._exchanges[number].answer
        if expected and data.startswith(OK_START) and data.endswith(expected):
            return Fate.OK
        head, end, body = data.partition(HEAD_END)
        head = head.lower()
        if not end or len(body) < _content_length(head):
            return None
        if head.startswith(UNAVAILABLE_START.lower()) and b"\r\nretry-after:" in head:
            return Fate.REFUSED
        if not head.startswith(OK_START.lower()):
            return Fate.FAILED
        return _compare(body, expected) if expected else Fate.OK

    def _broken(self, connection: Connection) -> None:
        """A connection that ended: its request, if it had one, failed; another takes its place."""
        if connection.busy:
            self.outcomes.note(connection.due_s, math.inf, Fate.FAILED)
        else:
            self._idle.remove(connection)
        del self._connections[connection.fd]
        self._poll.unregister(connection.fd)
        connection.socket.close()
        self._connect()


def poisson(rate: float, seconds: float, *, seed: int = 5) -> list[float]:
    """Due times of `rate` requests a second that come independently of each other."""
    chance, at_s, due_s = random.Random(seed), 0.0, list[float]()
    while (at_s := at_s + chance.expovariate(rate)) < seconds:
        due_s.append(at_s)
    return due_s


def evenly(rate: float, seconds: float) -> list[float]:
    """Due times of `rate` requests a second, one as long after the other."""
    return [number / rate for number in range(int(rate * seconds))]


def in_steps(
    arrivals: Callable[[float, float], list[float]], steps: list[tuple[float, float]]
) -> list[float]:
    """Due times of (requests a second, seconds) one after the other."""
    due_s, start_s = list[float](), 0.0
    for rate, seconds in steps:
        due_s += [start_s + at_s for at_s in arrivals(rate, seconds)]
        start_s += seconds
    return due_s


def write_exchanges(path: Path, exchanges: list[Exchange]) -> None:
    """Two lines an exchange: neither JSON text holds a line end."""
    path.write_bytes(b"".join(b"%b\n%b\n" % each for each in exchanges))


def read_exchanges(path: Path) -> list[Exchange]:
    """What `write_exchanges` wrote."""
    lines = path.read_bytes().split(b"\n")
    return [Exchange(*pair) for pair in zip(lines[::2], lines[1::2], strict=False)]


def _request(target: Target, body: bytes) -> bytes:
    head = (
        f"POST {target.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Accept: {target.accept}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _content_length(head: bytes) -> int:
    _, found, after = head.partition(b"\r\ncontent-length:")
    if not found:
        raise ValueError(f"an answer without Content-Length cannot be timed: {head[:200]!r}")
    return int(after.partition(b"\r\n")[0])


def _compare(body: bytes, wanted_body: bytes) -> Fate:
    """Rows that are said to be unavailable are excused; all others must be as expected."""
    answer, expected = _results(body), _results(wanted_body)
    if answer is None or expected is None or len(answer) != len(expected):
        return Fate.WRONG
    for found, wanted in zip(answer, expected, strict=True):
        excused: set[int] = set()
        for status in found["statuses"]:
            if status["status"] != "UNAVAILABLE" and status not in wanted["statuses"]:
                return Fate.WRONG
            excused.add(status["row"])
        rows = zip(found["rows"], wanted["rows"], strict=True)
        if any(row != other and at not in excused for at, (row, other) in enumerate(rows)):
            return Fate.WRONG
    return Fate.PARTIAL


def _results(body: bytes) -> list[dict[str, Any]] | None:
    """The results of an answer of ours in rows; None for any other."""
    try:
        results: list[dict[str, Any]] = json.loads(body)["results"]
        return results if all("statuses" in each for each in results) else None
    except (ValueError, KeyError, TypeError):
        return None


def _step(text: str) -> tuple[float, float]:
    rate, _, seconds = text.partition(":")
    return float(rate), float(seconds)


def main() -> int:
    """Drive the server, keep the outcomes, print their summary as one JSON line."""
    parser = argparse.ArgumentParser(prog="open_loop", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/v1/read")
    parser.add_argument("--accept", default="application/json")
    parser.add_argument("--rate", type=float, required=True, help="requests a second")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument(
        "--then", type=_step, action="append", default=[], help="RATE:SECONDS: a further step"
    )
    parser.add_argument("--arrivals", choices=("poisson", "evenly"), default="poisson")
    parser.add_argument("--connections", type=int, default=1024)
    parser.add_argument("--waiting", type=int, default=0, help="requests that may wait for one")
    parser.add_argument("--warm-up", type=float, default=0.0, help="seconds not in the summary")
    parser.add_argument("--bodies", type=Path, required=True, help="two lines each: body, answer")
    parser.add_argument("--out", type=Path, help="file for every single outcome")
    asked = parser.parse_args()
    generator = Generator(
        Target(asked.port, asked.path, asked.accept),
        read_exchanges(asked.bodies),
        asked.connections,
        waiting_max=asked.waiting,
    )
    arrivals = poisson if asked.arrivals == "poisson" else evenly
    steps: list[tuple[float, float]] = [(asked.rate, asked.warm_up + asked.seconds), *asked.then]
    due_s = in_steps(arrivals, steps)
    gc.freeze()
    gc.disable()  # A collection here would be told as the server's latency.
    generator.run(due_s)
    gc.enable()
    generator.close()
    if asked.out is not None:
        generator.outcomes.write(asked.out)
    late_s = sorted(generator.sent_late_s)
    summary = generator.outcomes.summary(since_s=asked.warm_up)
    late_p99_ms = late_s[int(len(late_s) * 0.99)] * 1_000 if late_s else math.nan
    told = summary | {"sent_late_p99_ms": late_p99_ms, "started_s": generator.started_s}
    print(json.dumps({name: told[name] if math.isfinite(told[name]) else None for name in told}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

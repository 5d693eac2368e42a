"""A gateway process under callgrind, and callers whose requests it finds all at once.

How many requests one turn of the event loop finds decides what each of them costs. So the process
is stopped while the requests of a turn are sent, and they wait in its sockets when it goes on.
Start-up runs uncounted. Only the thread of the event loop counts: the others are the store driver's
own, which do nothing for a read that the cache answers.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self

from headrace.loadtest.servers import Server
from headrace.loadtest.servers.process import ask, free_port
from headrace.loadtest.valgrind import ENVIRONMENT, Refused, calls_in, find_valgrind

ANSWER_LIMIT_S = 60.0
COMMAND_LIMIT_S = 60
READY = b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
LOOP_THREAD = 1
TIMERS = "uv__run_timers"
"""libuv's, which calls what is due by the clock."""
TASK_STEP = "task_step"
"""asyncio's, which continues a coroutine, such as the one that polls for a new catalog."""
KEPT_VARIABLES = ("PATH", "HOME", "PYTHONPATH")
"""Nothing else of the caller's environment: its size would move the stack."""


class Urls(NamedTuple):
    """What a gateway reads from and appends to."""

    online: str
    cache: str
    commands: str


class Taken(NamedTuple):
    """What a process did in some time."""

    instructions: int
    """Without those of timers and tasks, of which there are more when a busy machine is slow."""
    task_steps: int


class CountedGateway:
    """Counts what its process executes, from `zero` to `taken`."""

    def __init__(self, server: Server, vgdb: Sequence[str], profile: Path) -> None:
        self.server = server
        self._vgdb = vgdb
        self._profile = profile
        self._dumps = 0
        self._order("instrumentation", "on")

    def zero(self) -> None:
        """Count from nothing."""
        self._order("zero")

    def taken(self) -> Taken:
        """What the loop's thread did since `zero` or the last call."""
        self._order("dump")
        self._dumps += 1
        dumped = Path(f"{self._profile}.{self._dumps}-{LOOP_THREAD:02}")
        return taken_of(dumped.read_text().splitlines())

    def _order(self, *words: str) -> None:
        """Have callgrind do something; the process may wait in a system call meanwhile."""
        command = [*self._vgdb, f"--pid={self.server.pid}", *words]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=COMMAND_LIMIT_S
        )
        if done.returncode != 0:
            raise Refused(f"callgrind does not heed `{' '.join(words)}`:\n{done.stderr[-2000:]}")


def taken_of(profile: Sequence[str]) -> Taken:
    """Reads callgrind's dump of the loop's thread.

    Format: valgrind manual, "Callgrind Format Specification".
    """
    header = dict(line.split(": ", 1) for line in profile if re.match(r"(thread|totals): ", line))
    if header.get("thread") != str(LOOP_THREAD) or "totals" not in header:
        raise Refused(f"callgrind's dump has no total of thread {LOOP_THREAD}: {header}")
    steps, apart = 0, 0
    for calls in calls_in(profile):
        if calls.called in (TIMERS, TASK_STEP):
            apart += calls.instructions
        if calls.called == TASK_STEP:
            steps += calls.times
    return Taken(int(header["totals"]) - apart, steps)


@contextmanager
def counted_gateway(urls: Urls, folder: Path) -> Generator[CountedGateway]:
    """Starts `headrace serve` under callgrind; ready when its catalog is in force."""
    folder.mkdir(parents=True, exist_ok=True)
    valgrind, variables = find_valgrind(folder.parent / "valgrind")
    port, profile, pipes = free_port(), folder / "profile", f"--vgdb-prefix={folder / 'pipe'}"
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    variables |= {**kept, **ENVIRONMENT, "PYTHONHASHSEED": "0"}
    argv = ["env", "-i", *(f"{name}={value}" for name, value in variables.items())]
    argv += [valgrind, "--tool=callgrind", "--instr-atstart=no", "--separate-threads=yes", pipes]
    argv += [f"--callgrind-out-file={profile}", sys.executable, "-m", "headrace.cli", "serve"]
    argv += ["--port", str(port), "--online", urls.online, "--cache", urls.cache]
    argv += ["--commands", urls.commands]

    def ready() -> bool:
        answer = ask(port, READY, answer_bytes=12, timeout_s=5.0)
        return answer.startswith(b"HTTP/1.1 200")

    server = Server("headrace serve", argv, folder=folder, port=port, ready=ready).start()
    try:
        yield CountedGateway(server, [str(Path(valgrind).with_name("vgdb")), pipes], profile)
    finally:
        server.stop()


class Callers:
    """Connections kept alive, each with one request in flight at most."""

    def __init__(self, server: Server, count: int) -> None:
        self._server = server
        self._links = [
            socket.create_connection((server.host, server.port), timeout=ANSWER_LIMIT_S)
            for _ in range(count)
        ]
        self._replies = [link.makefile("rb") for link in self._links]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.ExitStack() as stack:
            for link, replies in zip(self._links, self._replies, strict=True):
                stack.callback(link.close)
                stack.callback(replies.close)

    def ask(self, requests: Sequence[bytes]) -> list[bytes]:
        """Send one request a connection, all to be found at once; their bodies, in order.

        Raises `Refused` for an answer that is no 200.
        """
        with self._stopped() if len(requests) > 1 else contextlib.nullcontext():
            for link, request in zip(self._links, requests, strict=False):
                link.sendall(request)
        return [self._answer(place) for place in range(len(requests))]

    @contextmanager
    def _stopped(self) -> Generator[None]:
        self._server.freeze()
        try:
            yield
        finally:
            self._server.resume()

    def _answer(self, place: int) -> bytes:
        replies = self._replies[place]
        status, length = replies.readline(), 0
        while (field := replies.readline()) not in (b"\r\n", b""):
            name, _, value = field.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        body = replies.read(length)
        if not status.startswith(b"HTTP/1.1 200 ") or len(body) != length:
            raise Refused(f"the gateway answers {status!r} {body[:300]!r}:\n{self._server.tail()}")
        return body

"""The worker processes of `serve --workers`: forked, given connections, told to stop, replaced."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Generator

import click

from headrace.cli.stopping import die_of
from headrace.gateway.handover import Board, Inbox, WorkerSeat, hand_to_least_busy

FAILED = 1
YOUNG_S = 10.0
YOUNG_DEATHS_MAX = 5
REPLACED_AFTER_S = 1.0
BACKLOG = 2048
"""Connections that wait while every worker begins, dies or is replaced."""
OTHERS_READY_WITHIN_S = 2.0
"""How long the first worker that is ready at the start waits for the others."""
NO_DESCRIPTORS_S = 0.05
"""Pause when this process can open no more files."""

Serve = Callable[[Inbox, int], int]
"""(connections, a pipe's end that stays open as long as the parent lives) -> exit code."""


class Workers:
    """The worker processes of this one: told together when to stop, replaced when they die.

    This process accepts every connection and hands it to the worker that has the fewest. A
    replacement waits `REPLACED_AFTER_S` where its predecessor died young, and after
    `YOUNG_DEATHS_MAX` of those in a row all are stopped: whoever supervises this process must see
    that something is wrong for good. Every worker holds the reading end of a pipe whose writing end
    only this process keeps: the kernel closes it whatever this process dies of, so no worker
    outlives it.
    """

    def __init__(self, serve: Serve, listener: socket.socket, count: int) -> None:
        self._serve = serve
        self._listener = listener
        self._address: tuple[str, int] = listener.getsockname()[:2]
        self._lifeline = os.pipe()
        self._board = Board(count)
        self._seats = [WorkerSeat(self._board, slot) for slot in range(count)]
        self._told: int | None = None
        self._killed = False
        self._born: dict[int, tuple[WorkerSeat, float]] = {}
        self._vacant: list[tuple[float, WorkerSeat]] = []
        self._opens_s: float | None = None
        self._young_deaths = 0
        self._outcome = 0
        self._woken, wake = socket.socketpair()
        for end in (self._woken, wake):
            end.setblocking(False)
        self._wake = wake

    def run(self) -> int:
        """Keep them running until told to stop; 0 when each drained, or had not begun.

        Told twice, they are gone at once, and this process dies of the signal.
        """
        self._listener.listen(BACKLOG)
        self._listener.setblocking(False)
        for seat in self._seats:
            self._start(seat)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._tell)
        signal.signal(signal.SIGCHLD, _only_wake)
        self._bury()  # whoever died before we would have been told
        while self._born or self._vacant:
            self._turn()
        if self._killed and self._told is not None:
            die_of(self._told)
        return self._outcome

    def _turn(self) -> None:
        """Wait for something to happen, and deal with it."""
        links = {seat.link: seat for seat in self._seats if seat.link is not None}
        wanted: list[socket.socket] = [self._woken, *links]
        dues_s = [due_s for due_s, _ in self._vacant]
        if self._is_open():
            wanted.append(self._listener)
        elif self._opens_s is not None:
            dues_s.append(self._opens_s)
        wait_s = max(0.0, min(dues_s) - time.monotonic()) if dues_s else None
        for one in select.select(wanted, [], [], wait_s)[0]:
            if one is self._listener:
                self._accept()
            elif one is self._woken:
                with contextlib.suppress(BlockingIOError):
                    self._woken.recv(4096)
                self._bury()
            else:
                links[one].listen()
        self._fill_vacant()

    def _is_open(self) -> bool:
        """Whether to accept: some worker is ready, and at the start the others had time to be.

        The first one ready would otherwise get all who wait.
        """
        ready = sum(seat.ready for seat in self._seats)
        if ready and self._opens_s is None:
            self._opens_s = time.monotonic() + OTHERS_READY_WITHIN_S
        if ready == len(self._seats) or self._told is not None:
            self._opens_s = 0.0
        return ready > 0 and self._opens_s is not None and time.monotonic() >= self._opens_s

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            click.echo(f"cannot accept connections: {error.strerror}", err=True)
            time.sleep(NO_DESCRIPTORS_S)
            return
        with connection:
            hand_to_least_busy(self._seats, connection)

    def _bury(self) -> None:
        """Learn of every worker that ended."""
        while self._born:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if pid in self._born:
                self._ended(pid, os.waitstatus_to_exitcode(status))

    def _ended(self, pid: int, code: int) -> None:
        seat, born_s = self._born.pop(pid)
        seat.close()
        lived_s = time.monotonic() - born_s
        if self._told is None:
            self._young_deaths = self._young_deaths + 1 if lived_s < YOUNG_S else 0
        if self._told is None and self._young_deaths < YOUNG_DEATHS_MAX:
            click.echo(f"worker {pid} ended with {code} and is replaced", err=True)
            wait_s = REPLACED_AFTER_S if lived_s < YOUNG_S else 0
            self._vacant.append((time.monotonic() + wait_s, seat))
        elif self._told is None:
            self._outcome = FAILED
            click.echo("workers end as soon as they begin; all are stopped", err=True)
            self._tell(signal.SIGTERM)
        elif code not in (0, -signal.SIGTERM) and not self._killed:
            self._outcome = FAILED
            click.echo(f"worker {pid} ended with {code}", err=True)

    def _fill_vacant(self) -> None:
        now_s = time.monotonic()
        due = [vacancy for vacancy in self._vacant if self._told is not None or vacancy[0] <= now_s]
        for vacancy in due:
            self._vacant.remove(vacancy)
            # A signal between the look and the fork is told to the new worker too: it is passed on.
            with _held_back(signal.SIGTERM, signal.SIGINT):
                if self._told is None:
                    self._start(vacancy[1])

    def _start(self, seat: WorkerSeat) -> None:
        link = seat.open()
        pid = self._fork(link, seat.slot)
        link.close()
        self._born[pid] = seat, time.monotonic()

    def _tell(self, number: int, _: object = None) -> None:
        # A second signal of the same kind would be lost on a worker that has not met the first.
        self._killed = self._told is not None
        self._told = number
        for pid in self._born:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if self._killed else signal.SIGTERM)

    def _fork(self, link: socket.socket, slot: int) -> int:
        from headrace.cli.main import sentence

        # Before any thread, loop or store handle exists: nothing of them is shared across the fork.
        worker = os.fork()
        if worker == 0:
            code = FAILED
            try:
                self._become_worker()
                inbox = Inbox(link, self._board, slot, self._address)
                code = self._serve(inbox, self._lifeline[0])
            except Exception as error:  # noqa: BLE001 - the last frame of this process
                click.echo(sentence(error), err=True)
            finally:
                os._exit(code)
        return worker

    def _become_worker(self) -> None:
        """Let go of what is the parent's alone."""
        signal.set_wakeup_fd(-1)
        os.close(self._lifeline[1])
        for seat in self._seats:
            seat.close()
        for end in (self._listener, self._woken, self._wake):
            end.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # A terminal sends Ctrl-C to this process too; the parent alone passes it on, once.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))


def _only_wake(_number: int, _frame: object) -> None:
    """A signal without a handler wakes nobody."""


@contextlib.contextmanager
def _held_back(*numbers: signal.Signals) -> Generator[None]:
    """Signals that come within are handled after it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

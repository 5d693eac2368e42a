"""`headrace serve`: the gateway role alone, one or several processes on one address."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

import click

from headrace.cli.options import with_settings
from headrace.cli.stopping import die_of
from headrace.registry.settings import Settings

if TYPE_CHECKING:
    from headrace.cli.engines import CommandEngine

FAILED = 1
YOUNG_S = 10.0
YOUNG_DEATHS_MAX = 5
REPLACED_AFTER_S = 1.0
LOOK_S = 0.05


@click.command()
@with_settings("online", "cache", "commands", "gateway.host", "gateway.port", "gateway.workers")
def command(settings: Settings) -> int:
    """Serve features over HTTP until SIGTERM or Ctrl-C, then drain; a second one ends at once.

    The online store is only read. `POST /v1/commands` appends to the command log.
    """
    from headrace.cli.engines import cache_of
    from headrace.gateway.serve import listen

    cache_of(settings)
    listener = listen(settings.gateway.host, settings.gateway.port)
    if settings.gateway.workers == 1:
        return serve_one(settings, listener)
    return serve_many(settings, listener)


def serve_one(settings: Settings, listener: socket.socket, parent: int | None = None) -> int:
    """Run one gateway in this process, no longer than `parent`, a pipe's end, stays open."""
    import uvloop

    from headrace.cli.logs import log_json_lines, log_settings

    log_json_lines()
    log_settings(settings)
    uvloop.run(_serve(settings, listener, parent))
    return 0


async def _serve(settings: Settings, listener: socket.socket, parent: int | None) -> None:
    from headrace.cli.engines import cache_of, open_commands, open_online_when_up
    from headrace.cli.gateway_role import GatewayRole
    from headrace.cli.stopping import STOPPING_SIGNALS, StopSignals, stop_with_parent

    online = open_online_when_up(settings.online, read_only=True)
    commands: CommandEngine = open_commands(settings.commands)
    try:
        role = GatewayRole(settings.gateway, online, commands.producer(), cache=cache_of(settings))
        told_by = STOPPING_SIGNALS if parent is None else (signal.SIGTERM,)
        with StopSignals(role.stop, told_by), stop_with_parent(parent, role.stop):
            await role.run(listener)
    finally:
        await commands.close()
        await online.close()


def serve_many(settings: Settings, listener: socket.socket) -> int:
    """Fork one gateway per worker on one listening socket; one that dies is replaced.

    Every worker holds the reading end of a pipe whose writing end only this process keeps: the
    kernel closes it whatever this process dies of, so no worker outlives it.
    """
    lifeline = os.pipe()
    workers = Workers(lambda: _fork(settings, listener, lifeline), settings.gateway.workers)
    return workers.run()


class Workers:
    """The worker processes of this one: told together when to stop, replaced when they die.

    `fork` starts one and returns its process id. A replacement waits `REPLACED_AFTER_S` where its
    predecessor died young, and after `YOUNG_DEATHS_MAX` of those in a row all are stopped: whoever
    supervises this process must see that something is wrong for good.
    """

    def __init__(self, fork: Callable[[], int], count: int) -> None:
        self._fork = fork
        self._told: int | None = None
        self._killed = False
        self._born_s: dict[int, float] = {}
        self._young_deaths = 0
        for _ in range(count):
            self._start()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._tell)

    def run(self) -> int:
        """Keep them running until told to stop; 0 when each drained, or had not begun.

        Told twice, they are gone at once, and this process dies of the signal.
        """
        outcome = self._run()
        if self._killed and self._told is not None:
            die_of(self._told)
        return outcome

    def _run(self) -> int:
        outcome = 0
        while self._born_s:
            pid, status = os.wait()
            lived_s = time.monotonic() - self._born_s.pop(pid)
            code = os.waitstatus_to_exitcode(status)
            if self._told is None:
                self._young_deaths = self._young_deaths + 1 if lived_s < YOUNG_S else 0
            if self._told is None and self._young_deaths < YOUNG_DEATHS_MAX:
                click.echo(f"worker {pid} ended with {code} and is replaced", err=True)
                self._replace(REPLACED_AFTER_S if lived_s < YOUNG_S else 0)
            elif self._told is None:
                outcome = FAILED
                click.echo("workers end as soon as they begin; all are stopped", err=True)
                self._tell(signal.SIGTERM)
            elif code not in (0, -signal.SIGTERM) and not self._killed:
                outcome = FAILED
                click.echo(f"worker {pid} ended with {code}", err=True)
        return outcome

    def _replace(self, wait_s: float) -> None:
        due_s = time.monotonic() + wait_s
        while self._told is None and (left_s := due_s - time.monotonic()) > 0:
            time.sleep(min(left_s, LOOK_S))
        # A signal between the look and the fork is told to the new worker too: it is passed on.
        with _held_back(signal.SIGTERM, signal.SIGINT):
            if self._told is None:
                self._start()

    def _start(self) -> None:
        self._born_s[self._fork()] = time.monotonic()

    def _tell(self, number: int, _: object = None) -> None:
        # A second signal of the same kind would be lost on a worker that has not met the first.
        self._killed = self._told is not None
        self._told = number
        for pid in self._born_s:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if self._killed else signal.SIGTERM)


@contextlib.contextmanager
def _held_back(*numbers: signal.Signals) -> Generator[None]:
    """Signals that come within are handled after it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _fork(settings: Settings, listener: socket.socket, lifeline: tuple[int, int]) -> int:
    from headrace.cli.main import sentence

    reading, writing = lifeline

    # Before any thread, loop or store handle exists: nothing of them is shared across the fork.
    worker = os.fork()
    if worker == 0:
        code = FAILED
        try:
            os.close(writing)
            # A terminal sends Ctrl-C to this process too; the parent alone passes it on, once.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
            code = serve_one(settings, listener, reading)
        except Exception as error:  # noqa: BLE001 - the last frame of this process
            click.echo(sentence(error), err=True)
        finally:
            os._exit(code)
    return worker

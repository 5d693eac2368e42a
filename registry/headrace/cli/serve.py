"""`headrace serve`: the gateway role alone, one or several processes on one address."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from typing import TYPE_CHECKING

import click

from headrace.cli.options import with_settings
from headrace.registry.settings import Settings

if TYPE_CHECKING:
    from headrace.cli.engines import CommandEngine

FAILED = 1


@click.command()
@with_settings("online", "cache", "commands", "gateway.host", "gateway.port", "gateway.workers")
def command(settings: Settings) -> int:
    """Serve features over HTTP until SIGTERM or Ctrl-C, then drain.

    The online store is only read. `POST /v1/commands` appends to the command log.
    """
    from headrace.cli.engines import cache_of
    from headrace.gateway.serve import listen

    cache_of(settings)
    listener = listen(settings.gateway.host, settings.gateway.port)
    if settings.gateway.workers == 1:
        return serve_one(settings, listener)
    return serve_many(settings, listener)


def serve_one(settings: Settings, listener: socket.socket) -> int:
    """Run one gateway in this process."""
    import uvloop

    from headrace.cli.logs import log_json_lines, log_settings

    log_json_lines()
    log_settings(settings)
    uvloop.run(_serve(settings, listener))
    return 0


async def _serve(settings: Settings, listener: socket.socket) -> None:
    from headrace.cli.engines import cache_of, open_commands, open_online_when_up
    from headrace.cli.gateway_role import GatewayRole
    from headrace.cli.stopping import StopSignals

    online = open_online_when_up(settings.online, read_only=True)
    commands: CommandEngine = open_commands(settings.commands)
    try:
        role = GatewayRole(settings.gateway, online, commands.producer(), cache=cache_of(settings))
        with StopSignals(role.stop):
            await role.run(listener)
    finally:
        await commands.close()
        await online.close()


def serve_many(settings: Settings, listener: socket.socket) -> int:
    """Fork one gateway per worker on one listening socket; one that dies ends all of them.

    Whoever supervises this process then starts it again, with all workers.
    """
    workers = Workers([_fork(settings, listener) for _ in range(settings.gateway.workers)])
    listener.close()
    return workers.wait()


class Workers:
    """The worker processes of this one, told together when to stop."""

    def __init__(self, pids: list[int]) -> None:
        self._pids = pids
        self._told: int | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._tell)

    def wait(self) -> int:
        """Wait for all; 0 when each drained, or was told to stop before it had begun."""
        outcome = 0
        while self._pids:
            pid, status = os.wait()
            self._pids.remove(pid)
            code = os.waitstatus_to_exitcode(status)
            if code != 0 and (self._told is None or code != -self._told):
                outcome = FAILED
                click.echo(f"worker {pid} ended with {code}; the others are stopped", err=True)
                self._tell(signal.SIGTERM)
        return outcome

    def _tell(self, number: int, _: object = None) -> None:
        self._told = number
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def _fork(settings: Settings, listener: socket.socket) -> int:
    # Before any thread, loop or store handle exists: nothing of them is shared across the fork.
    worker = os.fork()
    if worker == 0:
        code = FAILED
        try:
            code = serve_one(settings, listener)
        finally:
            os._exit(code)
    return worker

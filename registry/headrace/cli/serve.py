"""`headrace serve`: the gateway role alone, one or several processes on one address."""

from __future__ import annotations

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
    from headrace.cli.engines import check_cache
    from headrace.gateway.serve import listen

    check_cache(settings.cache)
    listener = listen(settings.gateway.host, settings.gateway.port)
    if settings.gateway.workers == 1:
        return serve_one(settings, listener)
    return serve_many(settings, listener)


def serve_one(settings: Settings, listener: socket.socket) -> int:
    """Run one gateway in this process."""
    import uvloop

    from headrace.cli.processes import log_to_stderr

    log_to_stderr()
    uvloop.run(_serve(settings, listener))
    return 0


async def _serve(settings: Settings, listener: socket.socket) -> None:
    from headrace.cli.engines import open_commands, open_online
    from headrace.cli.gateway_role import GatewayRole
    from headrace.gateway.serve import StopSignals

    online = open_online(settings.online, read_only=True)
    commands: CommandEngine = open_commands(settings.commands)
    try:
        role = GatewayRole(settings.gateway, online, commands.producer())
        with StopSignals(role.stop):
            await role.run(listener)
    finally:
        await commands.close()
        online.close()


def serve_many(settings: Settings, listener: socket.socket) -> int:
    """Fork one gateway per worker on one listening socket; one that dies ends all of them.

    Whoever supervises this process then starts it again, with all workers.
    """
    workers = [_fork(settings, listener) for _ in range(settings.gateway.workers)]
    listener.close()

    def tell_workers(number: int, _: object) -> None:
        for worker in workers:
            _tell(worker, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, tell_workers)
    outcome = 0
    for _ in range(len(workers)):
        _, status = os.wait()
        code = os.waitstatus_to_exitcode(status)
        if code != 0 and outcome == 0:
            click.echo(f"a worker ended with {code}; the others are stopped", err=True)
            outcome = FAILED
            tell_workers(signal.SIGTERM, None)
    return outcome


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


def _tell(worker: int, number: int) -> None:
    try:
        os.kill(worker, number)
    except ProcessLookupError:
        return

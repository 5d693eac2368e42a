"""`headrace serve`: the gateway role alone, one or several processes on one address."""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING

import click

from headrace.cli.options import with_settings
from headrace.registry.settings import Settings

if TYPE_CHECKING:
    from headrace.cli.engines import CommandEngine
    from headrace.gateway.handover import Inbox


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


def serve_one(settings: Settings, callers: socket.socket | Inbox, parent: int | None = None) -> int:
    """Run one gateway in this process, no longer than `parent`, a pipe's end, stays open."""
    import uvloop

    from headrace.cli.logs import log_json_lines, log_settings

    log_json_lines()
    log_settings(settings)
    uvloop.run(_serve(settings, callers, parent))
    return 0


async def _serve(settings: Settings, callers: socket.socket | Inbox, parent: int | None) -> None:
    from headrace.cli.engines import cache_of, open_commands, open_online_when_up
    from headrace.cli.gateway_role import GatewayRole
    from headrace.cli.stopping import STOPPING_SIGNALS, StopSignals, stop_with_parent

    online = open_online_when_up(settings.online, read_only=True)
    commands: CommandEngine = open_commands(settings.commands)
    try:
        role = GatewayRole(settings.gateway, online, commands.producer(), cache=cache_of(settings))
        told_by = STOPPING_SIGNALS if parent is None else (signal.SIGTERM,)
        with StopSignals(role.stop, told_by), stop_with_parent(parent, role.stop):
            await role.run(callers)
    finally:
        await commands.close()
        await online.close()


def serve_many(settings: Settings, listener: socket.socket) -> int:
    """Fork one gateway per worker and hand it its connections; one that dies is replaced."""
    from headrace.cli.workers import Workers

    def serve(inbox: Inbox, lifeline: int) -> int:
        return serve_one(settings, inbox, lifeline)

    return Workers(serve, listener, settings.gateway.workers).run()

"""The gateway as a running server: uvicorn with the lane, drained before it stops.

Signals belong to whoever composes the process, because it may hold other parts that must stop in
their own order.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from collections.abc import Generator
from ipaddress import ip_address
from typing import cast

import uvicorn
from litestar import Litestar

from headrace.gateway.errors import GatewayError
from headrace.gateway.handover import Inbox
from headrace.gateway.lane import LaneProtocol
from headrace.gateway.lane_state import Lane

QUIET_POLL_SECONDS = 0.05


class RefusedBind(GatewayError):
    """The address would be reachable by callers that nothing authenticates (semantics 14)."""

    code = "REFUSED_BIND"


class AddressInUse(GatewayError):
    code = "ADDRESS_IN_USE"


def check_bind(host: str) -> None:
    """Raise `RefusedBind` unless every address of `host` is a loopback one."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise RefusedBind(f"gateway.host `{host}` cannot be resolved: {error.strerror}") from None
    addresses = {str(entry[4][0]).partition("%")[0] for entry in found}
    if not all(ip_address(address).is_loopback for address in addresses):
        raise RefusedBind(
            f"gateway.host `{host}` is not a loopback address, and there is no `access.yaml` "
            "to say who may call; bind 127.0.0.1, or declare principals first"
        )


def listen(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """A bound socket, so that a taken port is one sentence before anything else starts."""
    check_bind(host)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise AddressInUse(
            f"cannot listen on `{host}:{port}`: {error.strerror}; set `gateway.port`"
        ) from None
    listener.set_inheritable(True)
    return listener


class GatewayServer(uvicorn.Server):
    """uvicorn's server with our drain; leaves signals to the composition."""

    def __init__(self, app: Litestar) -> None:
        self._inbox: Inbox | None = None
        self._arriving: set[asyncio.Task[None]] = set()
        self.lane = cast("Lane", app.state.lane)
        limits = self.lane.limits
        config = uvicorn.Config(
            app,
            http=LaneProtocol,
            loop="none",  # whoever runs us chose the loop
            ws="none",
            lifespan="on",
            access_log=False,
            log_config=None,
            log_level="warning",
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=int(limits.idle_sweeps * limits.sweep_seconds) or 1,
            timeout_graceful_shutdown=limits.drain_finish_seconds,
        )
        super().__init__(config)

    def stop(self) -> None:
        """Unready at once; the drain starts within 0.1 s."""
        self.lane.draining = True
        self.should_exit = True

    async def serve_on(self, listener: socket.socket) -> None:
        """Serve until `stop`, then drain. The listener is closed on return."""
        await self.serve(sockets=[listener])

    async def serve_from(self, inbox: Inbox) -> None:
        """Serve the connections that another process accepts, until `stop`, then drain."""
        self._inbox = inbox
        self.lane.ended = inbox.end
        await self.serve(sockets=[])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then take what was built so far out of the collector's sight."""
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        if self._inbox is not None:
            self._inbox.open(self._arrive)

    def _arrive(self, connection: socket.socket) -> None:
        task = asyncio.get_running_loop().create_task(self._serve_one(connection))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    async def _serve_one(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(self._protocol, connection)
        except OSError:  # The caller left before we looked.
            connection.close()
            if self._inbox is not None:
                self._inbox.end()

    def _protocol(self) -> asyncio.Protocol:
        state = self.lifespan.state
        return LaneProtocol(config=self.config, server_state=self.server_state, app_state=state)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept a little longer, ending each connection with its answer; then finish and close."""
        self.lane.draining = True
        limits, loop = self.lane.limits, asyncio.get_running_loop()
        await asyncio.sleep(limits.drain_notice_seconds)
        deadline = loop.time() + limits.drain_quiet_seconds
        while loop.time() < deadline and not self.lane.quiet:  # noqa: ASYNC110 - nothing signals quiet
            await asyncio.sleep(QUIET_POLL_SECONDS)
        if self._inbox is not None:
            self._inbox.close()
            if self._arriving:
                await asyncio.wait(self._arriving)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Nothing: uvicorn's own would raise the signal again after the drain."""
        yield

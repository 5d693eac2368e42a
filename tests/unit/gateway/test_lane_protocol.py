"""The lane's protocol class: what it needs of uvicorn, and callers from elsewhere."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from typing import Any

import pytest
from running_gateway import TinyEngine, limits, post, running
from uvicorn.protocols.http import flow_control, httptools_impl

from headrace.gateway.lane import LaneProtocol, uvicorn_members


async def test_the_installed_uvicorn_has_every_member_the_lane_relies_on() -> None:
    async with running() as gateway:
        connection = await gateway.connect()
        await connection.exchange(b"GET /livez HTTP/1.1\r\nhost: g\r\n\r\n")
        protocol = next(iter(gateway.lane.connections))
        assert isinstance(protocol, LaneProtocol)
        owners: dict[str, object] = {
            "HttpToolsProtocol": httptools_impl.HttpToolsProtocol,
            "HttpToolsProtocol()": protocol,
            "RequestResponseCycle()": protocol.cycle,
            "FlowControl()": protocol.flow,
        }
        members = uvicorn_members()
        assert set(members) == set(owners)
        missing = [
            f"{owner}.{name}"
            for owner, names in members.items()
            for name in names
            if not hasattr(owners[owner], name)
        ]
        assert missing == []
        assert isinstance(protocol.flow, flow_control.FlowControl)


class RecordingTransport(asyncio.Transport):
    """A connection from any address that keeps what is written."""

    def __init__(self, peer: str) -> None:
        super().__init__()
        self._peer = peer
        self.written = bytearray()
        self.unread_bytes = 0
        self.aborted = False

    def get_write_buffer_size(self) -> int:
        return self.unread_bytes

    def abort(self) -> None:
        self.aborted = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return [self._peer, 4711] if name == "peername" else default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False

    def close(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


@pytest.mark.parametrize(
    ("peer", "lane_requests", "status"),
    [
        ("127.0.0.1", 1, b"200"),
        ("127.9.9.9", 1, b"200"),
        ("::1", 1, b"200"),
        ("192.0.2.7", 0, b"403"),
    ],
)
async def test_the_lane_answers_loopback_callers_only(
    peer: str, lane_requests: int, status: bytes
) -> None:
    """Semantics 14: a caller from elsewhere falls through to the edge, which refuses it."""
    async with running() as gateway:
        server, transport = gateway.server, RecordingTransport(peer)
        protocol = LaneProtocol(server.config, server.server_state, {})
        protocol.connection_made(transport)
        protocol.data_received(post(b"{}"))
        async with asyncio.timeout(5):
            while not transport.written:  # noqa: ASYNC110 - a transport without a loop
                await asyncio.sleep(0)
        assert transport.written[9:12] == status
        assert gateway.lane.telemetry.lane_requests == lane_requests
        protocol.connection_lost(None)


SWEEP_BY_HAND = 3_600.0
SEND_SWEEPS = 10


async def test_a_caller_that_reads_what_came_late_is_not_cut_until_it_stops() -> None:
    """Late answers grow what is unread far beyond what it was when writing was paused."""
    bounds = limits(sweep_seconds=SWEEP_BY_HAND, send_sweeps=SEND_SWEEPS)
    async with running(bounds) as gateway:
        lane, server, transport = gateway.lane, gateway.server, RecordingTransport("127.0.0.1")
        protocol = LaneProtocol(server.config, server.server_state, {})
        protocol.connection_made(transport)

        def sweep_once() -> None:
            lane.sweep += 1
            protocol.keep_time(lane.sweep)

        transport.unread_bytes = 70_000
        protocol.pause_writing()
        assert lane.held_bytes == 70_000
        transport.unread_bytes = 5_000_000
        sweep_once()
        assert lane.held_bytes == 5_000_000
        for _ in range(SEND_SWEEPS + 2):
            transport.unread_bytes -= 400_000
            sweep_once()
            assert lane.held_bytes == transport.unread_bytes
        assert not transport.aborted
        for _ in range(SEND_SWEEPS - 1):
            sweep_once()
        assert not transport.aborted
        sweep_once()
        assert transport.aborted
        assert lane.telemetry.connections_cut == {"slow_reader": 1}
        protocol.connection_lost(None)
        assert lane.held_bytes == 0


async def test_a_request_leaves_no_object_behind() -> None:
    async with running() as gateway:
        server, transport = gateway.server, RecordingTransport("127.0.0.1")
        protocol = LaneProtocol(server.config, server.server_state, {})
        protocol.connection_made(transport)
        blocks = []
        for _ in range(3):
            for number in range(300):
                protocol.data_received(post(b'{"n":%d}' % (number % 10)))
            gateway.engine.bodies.clear()
            transport.written.clear()
            blocks.append(sys.getallocatedblocks())
        protocol.connection_lost(None)
    assert blocks[2] - blocks[1] < 30


async def test_a_connection_is_freed_at_its_end_without_the_collector() -> None:
    """After start the collector runs rarely: a cycle would hold its buffers until then."""
    async with running() as gateway:
        server = gateway.server
        protocol = LaneProtocol(server.config, server.server_state, {})
        protocol.connection_made(RecordingTransport("127.0.0.1"))
        protocol.data_received(post(b"{}"))
        gone = weakref.ref(protocol)
        gc.disable()
        try:
            protocol.connection_lost(None)
            del protocol
            assert gone() is None
        finally:
            gc.enable()


def test_the_tests_engine_answers_in_the_engines_shape() -> None:
    """Its head has the fields of the real one, in the same order."""
    response = TinyEngine().read(b"{}", accept=0, now_ms=1, request_id=b"r", keep_alive=False)
    head = response.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert [line.partition(b":")[0] for line in head[1:]] == [
        b"content-type",
        b"content-length",
        b"x-request-id",
        b"headrace-generation",
        b"connection",
    ]

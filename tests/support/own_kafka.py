"""A broker that tests may freeze and kill, unlike the one that all others share."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path

from headrace.loadtest.servers import Server, start_kafka

RESTARTS_SOON = {"broker.session.timeout.ms": "1000", "broker.heartbeat.interval.ms": "200"}
"""A controller takes a broker back once the one that was killed is known to be gone."""


def start_own_kafka(folder: Path) -> Server:
    return start_kafka(folder, properties=RESTARTS_SOON)


@contextlib.contextmanager
def frozen(broker: Server) -> Generator[None]:
    """SIGSTOP, and SIGCONT at the end: its sockets stay open and answer nothing."""
    broker.freeze()
    try:
        yield
    finally:
        broker.resume()


@contextlib.contextmanager
def killed(broker: Server) -> Generator[None]:
    """SIGKILL, and a restart on the same port and data at the end."""
    broker.stop()
    try:
        yield
    finally:
        broker.start()

"""Real servers for every test that asks for one: started together, once a session."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from headrace.loadtest.servers import Server, start_cassandra, start_kafka, start_valkey

STARTERS: dict[str, Callable[[Path], Server]] = {
    "cassandra": start_cassandra,
    "kafka": start_kafka,
    "valkey": start_valkey,
}


def pytest_configure() -> None:
    """Let SIGTERM end the run as Ctrl-C does, through every teardown: no server stays behind."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


class Servers:
    """Starts all of them in threads at the first ask; a server that fails fails its tests."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._threads = ThreadPoolExecutor(len(STARTERS))
        self._started: dict[str, Future[Server]] = {}

    def get(self, name: str) -> Server:
        """The running server of that name."""
        if not self._started:
            for each, start in STARTERS.items():
                self._started[each] = self._threads.submit(start, self._folder / each)
        return self._started[name].result()

    def stop(self) -> None:
        """End every server that was started, and wait for those still starting."""
        for starting in self._started.values():
            if starting.exception() is None:
                starting.result().stop()
        self._threads.shutdown()


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Generator[Servers]:
    started = Servers(tmp_path_factory.mktemp("servers"))
    yield started
    started.stop()


@pytest.fixture(scope="session")
def cassandra_server(servers: Servers) -> Server:
    """A shared Cassandra: one keyspace a module, never killed by a test."""
    return servers.get("cassandra")


@pytest.fixture(scope="session")
def kafka_server(servers: Servers) -> Server:
    """A shared Kafka: one topic prefix a test, never killed by a test."""
    return servers.get("kafka")


@pytest.fixture(scope="session")
def valkey_server(servers: Servers) -> Server:
    """A shared Valkey: one key prefix or database a test, never killed by a test."""
    return servers.get("valkey")

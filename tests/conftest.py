"""Real servers for every test that asks for one: started together, once a session."""

from __future__ import annotations

import signal
from collections.abc import Generator

import pytest
from shared_servers import STARTED, SharedServers, Starter

from headrace.loadtest.servers import Server, start_cassandra, start_kafka, start_valkey

STARTERS: dict[str, Starter] = {
    "cassandra": start_cassandra,
    "kafka": start_kafka,
    "valkey": start_valkey,
}


def pytest_configure() -> None:
    """Let SIGTERM end the run as Ctrl-C does, through every teardown: no server stays behind."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """How long the servers took to start, of which no test says anything."""
    for started in config.stash.get(STARTED, []):
        if (summary := started.summary()) is not None:
            terminalreporter.write_line(summary)


@pytest.fixture(scope="session")
def servers(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Generator[SharedServers]:
    started = SharedServers(STARTERS, tmp_path_factory.mktemp("servers"))
    pytestconfig.stash.setdefault(STARTED, []).append(started)
    yield started
    started.stop()


@pytest.fixture(scope="session")
def cassandra_server(servers: SharedServers) -> Server:
    """A shared Cassandra: one keyspace a module, never killed by a test."""
    return servers.get("cassandra")


@pytest.fixture(scope="session")
def kafka_server(servers: SharedServers) -> Server:
    """A shared Kafka: one topic prefix a test, never killed by a test."""
    return servers.get("kafka")


@pytest.fixture(scope="session")
def valkey_server(servers: SharedServers) -> Server:
    """A shared Valkey: one key prefix or database a test, never killed by a test."""
    return servers.get("valkey")

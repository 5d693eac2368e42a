"""Servers of the fault tests alone."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from own_kafka import start_own_kafka

from headrace.loadtest.servers import Server


@pytest.fixture(scope="session")
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """A Kafka that tests freeze and kill; each leaves it running."""
    server = start_own_kafka(tmp_path_factory.mktemp("own-kafka"))
    yield server
    server.stop()

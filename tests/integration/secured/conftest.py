"""The servers that want logins and TLS: started together, once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial

import pytest
from certificate import Certificate, make_certificate
from guarded_servers import (
    GuardedServers,
    guarded_kafka_ports,
    start_guarded_cassandra,
    start_guarded_kafka,
    start_guarded_valkey,
)
from shared_servers import STARTED, SharedServers


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """An authority that signed nothing here."""
    return make_certificate(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="session")
def guarded(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config, certificate: Certificate
) -> Generator[GuardedServers]:
    key_store = certificate.key.with_name("store.pem")
    key_store.write_text(certificate.key.read_text() + certificate.authority.read_text())
    ports = guarded_kafka_ports()
    started = SharedServers(
        {
            "guarded cassandra": partial(start_guarded_cassandra, key_store=key_store),
            "guarded kafka": partial(start_guarded_kafka, key_store=key_store, guarded=ports),
            "guarded valkey": start_guarded_valkey,
        },
        tmp_path_factory.mktemp("guarded"),
    )
    pytestconfig.stash.setdefault(STARTED, []).append(started)
    yield GuardedServers(
        certificate, started.get("guarded cassandra"), ports, started.get("guarded valkey")
    )
    started.stop()

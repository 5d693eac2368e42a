"""Kafka behind SASL and TLS, reached by what the URL says and by nothing else."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from certificate import Certificate, make_certificate

from headrace.cli.doctor_log import examine_kafka
from headrace.loadtest.servers import start_kafka
from headrace.loadtest.servers.process import free_port
from headrace.sync.errors import LogUnavailable
from headrace.sync.logs.kafka import KafkaCommandLog
from headrace.sync.logs.kafka_topics import create_topics
from headrace.sync.logs.kafka_url import KafkaUrl
from headrace.sync.ports import Coordinates, DeadLetter

PASSWORD = "p%41&:/@ ?+"
"""Every character that a URL could take for its own."""


@dataclass
class Broker:
    """Where the guarded listener is, and whose certificates its clients may trust."""

    port: int
    certificate: Certificate
    stranger: Certificate

    def url(
        self, *, password: str = PASSWORD, authority: Path | None = None, **options: object
    ) -> KafkaUrl:
        more = "".join(f"&{name}={value}" for name, value in options.items())
        return KafkaUrl.parse(
            f"kafka://127.0.0.1:{self.port}?user=gateway&password={quote(password, safe='')}"
            f"&tls=true&ca={authority or self.certificate.authority}&partitions=1{more}"
        )


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Generator[Broker]:
    """A broker with a second listener that wants TLS and a password."""
    certificate = make_certificate(tmp_path_factory.mktemp("certificate"))
    store = certificate.key.with_name("store.pem")
    store.write_text(certificate.key.read_text() + certificate.authority.read_text())
    port = free_port()
    module = "org.apache.kafka.common.security.plain.PlainLoginModule"
    guarded = f"PLAINTEXT://127.0.0.1:@BROKER@,GUARDED://127.0.0.1:{port}"
    server = start_kafka(
        tmp_path_factory.mktemp("guarded-kafka"),
        properties={
            "listeners": f"{guarded},CONTROLLER://127.0.0.1:@CONTROLLER@",
            "advertised.listeners": guarded,
            "listener.security.protocol.map": (
                "PLAINTEXT:PLAINTEXT,GUARDED:SASL_SSL,CONTROLLER:PLAINTEXT"
            ),
            "inter.broker.listener.name": "PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.guarded.plain.sasl.jaas.config": (
                f'{module} required user_gateway="{PASSWORD}";'
            ),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(store),
        },
    )
    yield Broker(port, certificate, make_certificate(tmp_path_factory.mktemp("stranger")))
    server.stop()


@pytest.fixture
async def log(broker: Broker) -> AsyncGenerator[KafkaCommandLog]:
    await create_topics(broker.url())
    opened = KafkaCommandLog(broker.url())
    yield opened
    await opened.close()


async def test_every_client_of_the_log_gets_through_tls_and_password(
    broker: Broker, log: KafkaCommandLog
) -> None:
    (place,) = await log.producer().append("realtime", [(b"key", b"value")])
    consumer = log.consumer("realtime", "readers")
    (record,) = await consumer.poll(rows_max=1, wait_ms=20_000)
    assert (record.coordinates, record.value) == (place, b"value")
    await consumer.commit({(place.topic, place.partition): place.offset + 1})
    assert await log.behind("realtime", "readers") == 0
    letter = DeadLetter(Coordinates("t", 0, 0), "CODE", "why", b"key", b"value", 1)
    await log.dead_letters().append([letter])
    assert [each async for _, each in log.dead_letters().read()] == [letter]
    assert all(finding.ok is not False for finding in await examine_kafka(broker.url()))


async def test_a_wrong_password_is_told(broker: Broker) -> None:
    log = KafkaCommandLog(broker.url(password="wrong"))
    with pytest.raises(LogUnavailable, match="Invalid username or password"):
        await log.producer().append("realtime", [(b"key", b"value")])
    with pytest.raises(LogUnavailable, match="Invalid username or password"):
        await log.consumer("realtime", "readers").heartbeat()
    await log.close()


async def test_a_mechanism_that_the_broker_does_not_take_is_told(broker: Broker) -> None:
    log = KafkaCommandLog(broker.url(mechanism="SCRAM-SHA-256"))
    with pytest.raises(LogUnavailable, match="UnsupportedSaslMechanism"):
        await log.producer().append("realtime", [(b"key", b"value")])
    await log.close()


async def test_a_broker_whose_certificate_nobody_vouches_for_is_not_spoken_to(
    broker: Broker,
) -> None:
    log = KafkaCommandLog(broker.url(authority=broker.stranger.authority))
    with pytest.raises(LogUnavailable, match="certificate verify failed"):
        await log.producer().append("realtime", [(b"key", b"value")])
    await log.close()

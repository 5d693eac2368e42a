"""Kafka behind SASL and TLS, reached by what the URL says and by nothing else."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest
from certificate import Certificate
from deployment import Deployment, update
from guarded_servers import ESCAPED, READER, GuardedServers

from headrace.cli.doctor_log import examine_kafka
from headrace.sync.errors import LogUnavailable
from headrace.sync.logs.kafka import KafkaCommandLog
from headrace.sync.logs.kafka_topics import create_topics
from headrace.sync.logs.kafka_url import MECHANISMS, KafkaUrl
from headrace.sync.ports import Coordinates, DeadLetter


@pytest.fixture(params=[*((name, True) for name in MECHANISMS), ("SCRAM-SHA-512", False)], ids=str)
def url(guarded: GuardedServers, request: pytest.FixtureRequest) -> KafkaUrl:
    mechanism, tls = request.param
    commands = guarded.commands_over_tls if tls else guarded.commands
    prefix = f"secured-{uuid.uuid4().hex[:12]}"
    return KafkaUrl.parse(commands(prefix=prefix, mechanism=mechanism))


@pytest.fixture
async def log(url: KafkaUrl) -> AsyncGenerator[KafkaCommandLog]:
    await create_topics(url)
    opened = KafkaCommandLog(url)
    yield opened
    await opened.close()


async def test_every_client_of_the_log_gets_through_by_each_mechanism_with_and_without_tls(
    url: KafkaUrl, log: KafkaCommandLog
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
    assert all(finding.ok is not False for finding in await examine_kafka(url))


TOPIC, GROUP = 2, 3
"""Kafka's `ResourceType`."""
PREFIXED, ALLOWED = 4, 3
READ, WRITE, DESCRIBE, DESCRIBE_CONFIGS = 3, 4, 8, 10
"""Kafka's `AclOperation`."""
TOPIC_GRANTS = [(TOPIC, READ), (TOPIC, WRITE), (TOPIC, DESCRIBE_CONFIGS)]


async def grant(url: KafkaUrl, user: str, grants: list[tuple[int, int]]) -> None:
    """Let a user do such operations on all topics or groups of the URL's prefix."""
    admin: Any = AIOKafkaAdminClient(**url.client_options())
    await admin.start()
    for resource, operation in grants:
        request = CreateAclsRequest(
            resource, url.prefix, PREFIXED, f"User:{user}", "*", operation, ALLOWED
        )
        answer = await admin._send_request(request)
        assert all(code == 0 for code, _ in answer.creation_responses)
    await admin.close()


@pytest.mark.parametrize(
    ("grants", "lacking"),
    [
        ([], ["Describe on topic", "Read on group"]),
        ([(TOPIC, READ), (GROUP, READ)], ["Write on topic"]),
        ([(TOPIC, WRITE), (GROUP, READ)], ["Read on topic"]),
        ([(TOPIC, READ), (TOPIC, WRITE)], ["Read on group"]),
        ([(TOPIC, READ), (TOPIC, WRITE), (GROUP, DESCRIBE)], ["Read on group"]),
        ([*TOPIC_GRANTS, (GROUP, READ)], []),
    ],
    ids=["nothing", "no write", "no read", "no group", "a group only seen", "all"],
)
async def test_doctor_tells_what_a_user_may_not_do_and_how_to_grant_it(
    guarded: GuardedServers, grants: list[tuple[int, int]], lacking: list[str]
) -> None:
    prefix = f"granted-{uuid.uuid4().hex[:12]}"
    owner = KafkaUrl.parse(guarded.commands(prefix=prefix))
    await create_topics(owner)
    await grant(owner, READER, grants)
    url = KafkaUrl.parse(guarded.commands(prefix=prefix, user=READER))
    findings = {finding.check: finding for finding in await examine_kafka(url)}
    permission = findings["permission"]
    assert permission.ok is (not lacking)
    assert {told.split(" `")[0] for told in permission.detail.split("no ")[1:]} == set(lacking)
    if lacking:
        assert f"--allow-principal User:{READER} " in str(permission.fix)
        assert "run `headrace apply`" not in str(findings.values()), "the topics are there"


async def tells_whoever_asks(url: KafkaUrl, told: str) -> None:
    """Producer, consumer and `apply` each say why there is no log."""
    log = KafkaCommandLog(url)
    with pytest.raises(LogUnavailable, match=told):
        await log.producer().append("realtime", [(b"key", b"value")])
    with pytest.raises(LogUnavailable, match=told):
        await log.consumer("realtime", "readers").heartbeat()
    with pytest.raises(LogUnavailable, match=told):
        await create_topics(url)
    await log.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"password": "wrong", "mechanism": "PLAIN"},
        {"password": "wrong", "mechanism": "SCRAM-SHA-512"},
        {"user": "nobody", "mechanism": "SCRAM-SHA-256"},
    ],
    ids=str,
)
async def test_a_wrong_login_is_told_with_the_next_step(
    guarded: GuardedServers, wrong: dict[str, str]
) -> None:
    url = KafkaUrl.parse(guarded.commands(**wrong))
    told = (
        rf"127.0.0.1:{guarded.kafka.login_port} .*SaslAuthenticationFailed: .*"
        "; mend `user`, `password` or `mechanism` in the URL of `commands`"
    )
    await tells_whoever_asks(url, told)


async def test_a_broker_whose_certificate_nobody_vouches_for_is_not_spoken_to(
    guarded: GuardedServers, stranger: Certificate
) -> None:
    log = KafkaCommandLog(KafkaUrl.parse(guarded.commands_over_tls(ca=stranger.authority)))
    told = "certificate verify failed.*; mend `tls` and `ca` in the URL of `commands`"
    with pytest.raises(LogUnavailable, match=told):
        await log.producer().append("realtime", [(b"key", b"value")])
    await log.close()


async def test_an_authority_that_is_not_there_is_told_with_its_place(
    guarded: GuardedServers, tmp_path: Path
) -> None:
    url = KafkaUrl.parse(guarded.commands_over_tls(ca=tmp_path / "none.pem"))
    told = r"`ca` .*none\.pem cannot be read: .*; mend it in the URL of `commands`"
    await tells_whoever_asks(url, told)


def test_apply_and_a_worker_tell_a_wrong_password_and_neither_hangs(
    guarded: GuardedServers, tmp_path: Path
) -> None:
    urls = {
        "online": f"lmdb:{tmp_path}/online",
        "commands": guarded.commands(password="wrong", mechanism="SCRAM-SHA-256"),
    }
    deployment = Deployment(tmp_path, urls)
    told = "mend `user`, `password` or `mechanism` in the URL of `commands`"
    status, _, err = deployment.run("apply")
    assert status == 1
    assert err.splitlines()[-1].startswith("error: could not create topics at `127.0.0.1:")
    assert err.rstrip().endswith(told)
    assert "Unable connect" not in err, "a client's own words are noise"
    try:
        for role in (("worker", "write"), ("serve",)):
            name = role[-1]
            deployment.start(name, *role)
            deployment.until_said(name, told)
            assert deployment.stop(name) == 0, deployment.said(name)
            assert "Traceback" not in deployment.said(name)
            assert "wrong" not in deployment.said(name), "a password was told"
    finally:
        deployment.kill_all()


def test_roles_that_log_in_by_scram_carry_a_command_to_its_row(
    guarded: GuardedServers, tmp_path: Path
) -> None:
    urls = {
        "online": guarded.online(tls="true", ca=guarded.certificate.authority),
        "cache": guarded.cache(login=f"gateway:{ESCAPED}@"),
        "commands": guarded.commands_over_tls(mechanism="SCRAM-SHA-512", prefix="roles"),
    }
    deployment = Deployment(tmp_path, urls)
    status, _, err = deployment.run("apply")
    assert status == 0, err
    try:
        deployment.start("serve", "serve")
        deployment.start("write", "worker", "write")
        deployment.until(deployment.is_ready)
        status, _, err = deployment.run("send", "-", text=update(1, 7))
        assert status == 0, err
        deployment.until(lambda: deployment.rows(1) == [[7, ""]])
        for name in ("serve", "write"):
            assert ESCAPED not in deployment.said(name), "a password was told"
    finally:
        deployment.kill_all()

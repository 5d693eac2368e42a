"""`headrace doctor` over engines that are down, empty or set up wrong: what fails, and its fix."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from click.testing import CliRunner

from headrace.cli.doctor_cache import examine_cache
from headrace.cli.doctor_finding import Finding, clock_finding
from headrace.cli.doctor_log import examine_kafka
from headrace.cli.doctor_log_grants import TopicGrantsStruct
from headrace.cli.doctor_online import examine_scylla
from headrace.cli.main import main
from headrace.cli.scylla import ScyllaEngine
from headrace.loadtest.servers import Server, start_valkey
from headrace.loadtest.servers.process import free_port
from headrace.registry.cache_url import CacheUrl
from headrace.registry.catalog import (
    CatalogDocument,
    Group,
    KeyField,
    Schema,
    ValueField,
)
from headrace.sync.clock import wall_clock_ms
from headrace.sync.logs.kafka_url import KafkaUrl


def failed(findings: list[Finding], check: str) -> Finding:
    """The one finding of that check, which failed and says its fix."""
    [found] = [finding for finding in findings if finding.check == check]
    assert found.ok is False, found
    assert found.fix
    return found


async def test_engines_that_are_down_are_one_finding_each() -> None:
    port = free_port()
    [online] = await examine_scylla(f"scylla://127.0.0.1:{port}/nowhere")
    [cache] = await examine_cache(CacheUrl.parse(f"redis://127.0.0.1:{port}/0"))
    [log] = await examine_kafka(KafkaUrl.parse(f"kafka://127.0.0.1:{port}"))
    for finding in (online, cache, log):
        assert (finding.check, finding.ok) == ("reachable", False)
        assert "start the" in str(finding.fix)


@pytest.fixture
async def keyspace(cassandra_server: Server) -> AsyncGenerator[tuple[str, ScyllaEngine]]:
    place = f"{cassandra_server.host}:{cassandra_server.port}"
    url = f"scylla://{place}/doctor_{uuid.uuid4().hex[:8]}?replication=1"
    engine = await ScyllaEngine.open(url, create=True)
    yield url, engine
    await engine.close()


async def test_an_empty_keyspace_wants_apply(keyspace: tuple[str, ScyllaEngine]) -> None:
    assert failed(await examine_scylla(keyspace[0]), "catalog").fix == "run `headrace apply`"


async def test_tables_that_differ_are_told(keyspace: tuple[str, ScyllaEngine]) -> None:
    url, engine = keyspace
    groups = tuple(
        Group(
            id=number,
            name=name,
            feature_type="Object",
            owner="o",
            keys=(KeyField(name="user_id", type="Long"),),
            schemas=(
                Schema(ordinal=1, fields=(ValueField(id=1, name="a", type="Long", default=0),)),
            ),
        )
        for number, name in ((1, "live::short"), (2, "live::gone"))
    )
    await engine.table_admin().create(groups[:1])
    name = engine.url.keyspace
    await engine.session.query(f"ALTER TABLE {name}.live__short WITH gc_grace_seconds = 60")
    document = CatalogDocument(generation=1, published_at_ms=0, groups=groups)
    assert await engine.catalog_writer().publish(document)
    findings = await examine_scylla(url)
    grace, gone = [finding for finding in findings if finding.check == "table"]
    assert (grace.ok, gone.ok) == (False, False)
    assert str(grace.fix).startswith(f"ALTER TABLE {name}.live__short WITH gc_grace_seconds")
    assert "has columns none" in gone.detail
    await engine.session.query(str(grace.fix))
    assert next(f for f in await examine_scylla(url) if f.check == "table").ok


async def test_a_cache_that_keeps_or_refuses_data_is_told(tmp_path: Path) -> None:
    """Semantics 19."""
    options = ["--save", "3600 1", "--maxmemory-policy", "noeviction"]
    server = await asyncio.to_thread(start_valkey, tmp_path / "valkey", options=options)
    try:
        findings = await examine_cache(CacheUrl.parse(f"redis://{server.host}:{server.port}/0"))
    finally:
        server.stop()
    assert "3600 1" in failed(findings, "persistence").detail
    assert "noeviction" in failed(findings, "eviction").detail


async def test_each_command_that_a_cache_user_may_not_run_is_told(tmp_path: Path) -> None:
    needed = ("get", "mget", "set", "del", "eval", "evalsha", "script|load")
    users = {name.replace("|", "_"): name for name in needed}
    rules = [f"user {user} on >p ~* +@all -{name}" for user, name in users.items()]
    (tmp_path / "users.acl").write_text(
        "\n".join(["user default on nopass ~* &* +@all", "user whole on >p ~* +@all", *rules, ""])
    )
    options = ("--aclfile", str(tmp_path / "users.acl"))
    server = await asyncio.to_thread(start_valkey, tmp_path / "valkey", options=options)
    try:
        found: dict[str, list[Finding]] = {}
        for user in ("whole", *users):
            url = f"redis://{user}:p@{server.host}:{server.port}/0"
            found[user] = await examine_cache(CacheUrl.parse(url))
    finally:
        server.stop()
    [whole] = [finding for finding in found["whole"] if finding.check == "permission"]
    assert whole.ok is True
    for user, name in users.items():
        refused = failed(found[user], "permission")
        assert "EVALSHA and SCRIPT LOAD" in str(refused.fix)
        assert f"'{name}'" in refused.detail


async def test_topics_that_are_missing_or_compacted_are_told(kafka_server: Server) -> None:
    """Semantics 27."""
    prefix = f"doctor-{uuid.uuid4().hex}"
    url = KafkaUrl.parse(f"kafka://{kafka_server.host}:{kafka_server.port}?prefix={prefix}")
    admin = AIOKafkaAdminClient(**url.client_options())
    await admin.start()
    compacted = {"cleanup.policy": "compact"}
    await admin.create_topics([NewTopic(url.topic("bulk"), 1, 1, topic_configs=compacted)])
    await admin.close()
    findings = [finding for finding in await examine_kafka(url) if finding.check == "topic"]
    assert [finding.ok for finding in findings] == [False] * 3
    assert [finding.fix for finding in findings[:2]] == ["run `headrace apply`"] * 2
    assert "cleanup.policy compact" in findings[2].detail


@pytest.mark.parametrize(("server_ms", "ok"), [(499, True), (1_620, True), (1_521, True)])
def test_a_clock_counts_from_the_nearer_end(server_ms: int, ok: bool) -> None:
    """The server may have looked at its clock at any time between asking and answer."""
    assert clock_finding("p", server_ms, asked_ms=900, answered_ms=1_120).ok is ok


@pytest.mark.parametrize("ahead_ms", [-2_000, 2_000])
async def test_a_server_whose_clock_is_not_ours_is_told(
    keyspace: tuple[str, ScyllaEngine],
    valkey_server: Server,
    monkeypatch: pytest.MonkeyPatch,
    ahead_ms: int,
) -> None:
    for module in ("doctor_online", "doctor_cache"):
        name = f"headrace.cli.{module}.wall_clock_ms"
        monkeypatch.setattr(name, lambda: wall_clock_ms() + ahead_ms)
    assert "NTP" in str(failed(await examine_scylla(keyspace[0]), "clock").fix)
    cache = CacheUrl.parse(f"redis://{valkey_server.host}:{valkey_server.port}/0")
    assert "NTP" in str(failed(await examine_cache(cache), "clock").fix)


async def test_a_kafka_too_old_to_tell_grants_is_told_as_old(
    kafka_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker before 2.3 offers no such version of the request."""
    monkeypatch.setattr(TopicGrantsStruct, "API_VERSION", 1_000)
    place = f"kafka://{kafka_server.host}:{kafka_server.port}"
    version = failed(await examine_kafka(KafkaUrl.parse(place)), "version")
    assert "older than 2.3" in version.detail


def test_a_clock_that_is_off_names_ntp() -> None:
    found = clock_finding("p", 3_000, asked_ms=1_000, answered_ms=1_010)
    assert (found.ok, "NTP" in str(found.fix)) == (False, True)


def test_the_embedded_engines_are_checked_as_files(tmp_path: Path) -> None:
    urls = [
        *("--online", f"lmdb:{tmp_path}/online", "--commands", f"sqlite:{tmp_path}/log.db"),
        *("--offline", f"duckdb:{tmp_path}/offline"),
    ]
    result = CliRunner().invoke(main, ["doctor", "--json", *urls])
    assert result.exit_code == 1
    findings = {(each["part"], each["check"]): each for each in json.loads(result.stdout)}
    assert findings["online", "catalog"]["fix"] == "run `headrace apply`"
    assert findings["commands", "permission"]["ok"] is True

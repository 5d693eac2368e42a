"""The production roles as processes over Cassandra, Valkey and Kafka: only URLs are changed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest
from aiokafka import AIOKafkaProducer
from deployment import Deployment, children, update

from headrace.loadtest.bench import free_port
from headrace.loadtest.servers import Server
from headrace.sync.logs.kafka import KafkaCommandLog
from headrace.sync.logs.kafka_url import KafkaUrl
from headrace.sync.upsync import CHUNK_ROWS
from headrace.sync.writer import WRITER_GROUP

USERS = 2 * CHUNK_ROWS + 2_000
NOBODY = "nobody"
"""A consumer group without members."""
LATE_GROUP = """\
live::late-v1:
  feature_type: Object
  owner: "tests"
  description: "A group whose commands came before it"
  schema:
    room_id: {type: Long, is_key_field: true}
    viewers: {type: Long, description: "People watching", default_value: 0}
"""

WORKER_PORTS = {"write": free_port(), "downsync": free_port()}
"""Where the workers serve their metrics."""


@pytest.fixture(scope="module")
def urls(cassandra_server: Server, valkey_server: Server, kafka_server: Server) -> dict[str, str]:
    mark = f"roles_{os.getpid()}"
    return {
        "online": f"scylla://127.0.0.1:{cassandra_server.port}/{mark}?replication=1",
        "cache": f"redis://127.0.0.1:{valkey_server.port}/0?epoch={os.getpid()}",
        "commands": f"kafka://127.0.0.1:{kafka_server.port}?prefix={mark}&partitions=2",
    }


@pytest.fixture(scope="module")
def deployment(
    tmp_path_factory: pytest.TempPathFactory, urls: dict[str, str]
) -> Iterator[Deployment]:
    """All roles running; the writer and downsync were started before `apply` made anything."""
    made = Deployment(tmp_path_factory.mktemp("roles"), urls)
    transforms = made.folder / "registry" / "transforms"
    transforms.mkdir()
    (transforms / "user-v1.sql").write_text(
        "SELECT range AS user_id, range * 2 AS level, TIMESTAMP '2025-01-01' AS seen_at "
        f"FROM range({USERS})"
    )
    try:
        made.start("serve", "serve", "--workers", "2")
        made.start("write", "worker", "write", "--metrics-port", str(WORKER_PORTS["write"]))
        made.start(
            "downsync", "worker", "downsync", "--metrics-port", str(WORKER_PORTS["downsync"])
        )
        made.until(lambda: "the online store is missing" in made.said("write"))
        made.until(lambda: made.said("serve").count("serving on") == 2)
        made.until(made.asks_for_apply)
        made.apply()
        made.until(made.is_ready)
        yield made
    finally:
        made.kill_all()


def test_before_apply_the_gateway_says_what_is_missing(deployment: Deployment) -> None:
    """Semantics 23."""
    status, body = deployment.before_apply
    assert (status, body["ready"]) == (503, False)
    missing = {part["part"]: part["reason"] for part in body["missing"]}
    assert "`headrace apply` makes it" in missing["online store"]
    assert "catalog" in missing


def test_nothing_is_left_to_apply(deployment: Deployment) -> None:
    assert deployment.run("plan")[0] == 0
    assert deployment.run("apply")[1].startswith("nothing to do: generation 1 is live")


def test_commands_are_readable_through_cache_and_store(deployment: Deployment) -> None:
    lines = [update(room, room * 10, title=f"room {room}") for room in range(50)]
    status, _, err = deployment.run("send", "-", text="\n".join(lines))
    assert status == 0, err
    deployment.until(lambda: deployment.rows(49) == [[490, "room 49"]])
    rooms = range(50)
    expected = [[room * 10, f"room {room}"] for room in rooms]
    assert deployment.rows(*rooms) == expected
    assert deployment.rows(*rooms) == expected


def test_a_cached_row_is_emptied_by_the_writer(deployment: Deployment) -> None:
    """Semantics 18: the block stands 10 minutes unless the write deletes it."""
    status, answer = deployment.request("/v1/commands", [json.loads(update(900, 1))])
    assert status == 202, answer
    deployment.until(lambda: deployment.rows(900) == [[1, ""]])
    assert deployment.rows(900) == [[1, ""]]
    deployment.request("/v1/commands", [json.loads(update(900, 2))])
    deployment.until(lambda: deployment.rows(900) == [[2, ""]])


def test_get_and_explain_read_the_same_row(deployment: Deployment) -> None:
    deployment.run("send", "-", text=update(901, 7))
    deployment.until(lambda: deployment.rows(901) == [[7, ""]])
    status, out, err = deployment.run("get", "live::room-v1", "room_id=901", "--json")
    assert status == 0, err
    assert json.loads(out)["values"] == {"viewers": 7, "title": ""}
    status, out, err = deployment.run("explain", "live::room-v1", "room_id=901", "--json")
    assert status == 0, err
    explained = json.loads(out)
    assert (explained["tier"], explained["decision"]) == ("scylla", "DEFAULTED")
    [cache] = explained["tiers"]
    assert (cache["tier"], cache["holds"], cache["equals_store"]) == ("cache", "row", True)
    assert "in cache" in deployment.run("explain", "live::room-v1", "room_id=901")[1]
    assert deployment.run("get", "live::room-v1", "room_id=902")[0] == 1


def test_a_history_comes_back_newest_first(deployment: Deployment) -> None:
    now_ms = time.time_ns() // 1_000_000
    visits = [
        {
            "feature_name": "live::room-visits",
            "method": "APPEND",
            "keys": {"room_id": 5},
            "values": {"visitor": f"v{number}", "_last_updated_at_ms": now_ms - number},
        }
        for number in (2, 0, 1)
    ]
    deployment.run("send", "-", text="\n".join(map(json.dumps, visits)))

    def visitors() -> list[str]:
        out = deployment.run("get", "live::room-visits", "room_id=5", "--json")[1]
        return [event["values"]["visitor"] for event in json.loads(out)["events"]]

    deployment.until(lambda: visitors() == ["v0", "v1", "v2"])


def test_downsync_writes_one_row_a_command(deployment: Deployment) -> None:
    """Semantics 25, with no interval and no sampling: each real-time command of the group."""
    commands = [json.loads(update(room % 5, room)) for room in range(1_000, 1_100)]
    status, answer = deployment.request("/v1/commands", commands)
    assert status == 202, answer
    sent = {(place["partition"], place["offset"]) for place in answer["appended"]}

    def written() -> list[tuple[int, int]]:
        folder = deployment.folder / "offline" / "live__room_v1"
        if not any(folder.glob("**/*.parquet")):
            return []
        with duckdb.connect() as connection:
            rows = connection.execute(
                "SELECT _command_partition, _command_offset FROM read_parquet(?)",
                [str(folder / "**" / "*.parquet")],
            )
            return [place for place in rows.fetchall() if place in sent]

    deployment.until(lambda: len(written()) >= len(sent))
    assert sorted(written()) == sorted(sent)


def test_a_transform_that_runs_again_appends_nothing(deployment: Deployment) -> None:
    appended = [
        json.loads(deployment.run("transform", "--json")[1])[0]["appended"] for _ in range(2)
    ]
    assert appended == [USERS, 0]


def test_an_upsync_that_was_killed_goes_on_and_a_full_replay_changes_nothing(
    deployment: Deployment,
) -> None:
    """Semantics 24: what is sent again is what was sent before, byte for byte."""
    killed = deployment.start("upsync", "upsync", "live::user-v1", "--rate", "3000")
    del deployment.started["upsync"]  # It is to die; all others are to live.
    deployment.until(lambda: bulk_left(deployment, NOBODY) > CHUNK_ROWS)
    killed.kill()
    killed.wait()
    assert len(bulk_commands(deployment)) < USERS
    assert deployment.run("upsync", "live::user-v1")[0] == 0
    sent = Counter(bulk_commands(deployment))
    assert len(sent) == USERS, "a command was lost, or repeated with other bytes"
    assert sent.total() <= USERS + CHUNK_ROWS
    deployment.until(lambda: level(deployment, USERS - 1) == 2 * (USERS - 1))

    assert deployment.run("upsync", "live::user-v1")[0] == 0
    assert len(bulk_commands(deployment)) == sent.total()
    explain = ("explain", "live::user-v1", "user_id=7", "--json")
    before = json.loads(deployment.run(*explain)[1])
    assert deployment.run("upsync", "live::user-v1", "--full")[0] == 0
    again = Counter(bulk_commands(deployment))
    assert again.keys() == sent.keys()
    assert again.total() == sent.total() + USERS
    deployment.until(lambda: bulk_left(deployment, WRITER_GROUP) == 0)
    after = json.loads(deployment.run(*explain)[1])
    assert (level(deployment, 7), newest(after)) == (14, newest(before))


def level(deployment: Deployment, user_id: int) -> object:
    status, out, _ = deployment.run("get", "live::user-v1", f"user_id={user_id}", "--json")
    return json.loads(out)["values"]["level"] if status == 0 else None


def newest(explained: dict[str, Any]) -> object:
    return explained["newest_event_time_ms"]


def bulk_commands(deployment: Deployment) -> list[bytes]:
    """Every command of the bulk topic, read by a group that commits nothing."""

    async def read() -> list[bytes]:
        log = KafkaCommandLog(KafkaUrl.parse(deployment.url("commands")))
        left = await log.behind("bulk", NOBODY)
        consumer = log.consumer("bulk", f"test-reader-{uuid.uuid4().hex}")
        found: list[bytes] = []
        while len(found) < left:
            records = await consumer.poll(rows_max=50_000, wait_ms=100)
            found += [record.value for record in records]
        await log.close()
        return found

    return asyncio.run(read())


def bulk_left(deployment: Deployment, group: str) -> int:
    """Bulk commands that a group has yet to commit: for `NOBODY`, all of them."""

    async def look() -> int:
        log = KafkaCommandLog(KafkaUrl.parse(deployment.url("commands")))
        return await log.behind("bulk", group)

    return asyncio.run(look())


def send_past_the_checks(deployment: Deployment, command: bytes) -> None:
    """Straight to the topic: `headrace send` and the gateway would refuse it."""
    url = KafkaUrl.parse(deployment.url("commands"))

    async def send() -> None:
        async with AIOKafkaProducer(bootstrap_servers=url.servers) as producer:
            await producer.send_and_wait(url.topic("realtime"), command, key=b"k")

    asyncio.run(send())


def letters(deployment: Deployment) -> list[Any]:
    listed: list[Any] = json.loads(deployment.run("dead-letters", "list", "--json")[1])
    return listed


def test_a_command_that_cannot_be_applied_is_a_dead_letter(deployment: Deployment) -> None:
    send_past_the_checks(deployment, b"{not json")
    deployment.until(lambda: len(letters(deployment)) == 1)
    assert letters(deployment)[0]["code"] == "MALFORMED_JSON"


def test_the_doctor_finds_nothing_to_mend(deployment: Deployment) -> None:
    status, out, err = deployment.run("doctor", "--json")
    findings = json.loads(out)
    assert status == 0, (findings, err)
    made = {(finding["part"].partition(" ")[0], finding["check"]) for finding in findings}
    assert made >= {
        *(("online", check) for check in ("reachable", "version", "clock", "schema", "permission")),
        *(("cache", check) for check in ("reachable", "version", "clock", "persistence")),
        *(("cache", check) for check in ("permission", "eviction")),
        *(("commands", check) for check in ("reachable", "topic")),
        ("online", "table"),
        ("offline", "permission"),
    }
    assert sum(finding["check"] == "topic" for finding in findings) == 3
    assert sum(finding["check"] == "table" for finding in findings) == 3


def test_metrics_name_every_part(deployment: Deployment) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{deployment.port}/metrics") as response:
        text = response.read().decode()
    assert 'headrace_part_up{part="online store"} 1.0' in text
    assert 'headrace_part_up{part="cache node 127.0.0.1:' in text
    assert 'headrace_engine_total{counter="store_reads"}' in text
    assert re.search(r"^headrace_store_driver_connections [1-9]", text, re.MULTILINE)


@pytest.mark.parametrize("role", WORKER_PORTS)
def test_a_workers_metrics_tell_of_its_driver(deployment: Deployment, role: str) -> None:
    address = f"http://127.0.0.1:{WORKER_PORTS[role]}/metrics"
    with urllib.request.urlopen(address, timeout=10) as response:
        text = response.read().decode()
    assert re.search(r"^headrace_store_driver_connections [1-9]", text, re.MULTILINE)


def test_a_gateway_worker_that_dies_is_replaced(deployment: Deployment) -> None:
    parent = deployment.started["serve"].pid
    first = children(parent)
    assert len(first) == 2
    os.kill(first[0], signal.SIGKILL)
    deployment.until(lambda: len(set(children(parent)) - set(first)) == 1)
    deployment.until(lambda: deployment.said("serve").count("serving on") == 3)
    for _ in range(20):
        assert deployment.rows(49) == [[490, "room 49"]]


def test_dead_letters_are_replayed_once_their_cause_is_mended(deployment: Deployment) -> None:
    hostile = letters(deployment)  # They come back as new letters each time.
    before = len(hostile)
    send_past_the_checks(
        deployment,
        b'{"feature_name":"live::late-v1","method":"UPDATE","keys":{"room_id":1},'
        b'"values":{"viewers":5,"_last_updated_at_ms":1700000000000}}',
    )
    deployment.until(lambda: len(letters(deployment)) == before + 1)
    assert letters(deployment)[-1]["code"] == "UNKNOWN_GROUP"
    (deployment.folder / "registry" / "features" / "late.yaml").write_text(LATE_GROUP)
    deployment.apply()
    assert replayed(deployment) == before + 1
    read = ("get", "live::late-v1", "room_id=1", "--json")
    deployment.until(lambda: deployment.run(*read)[0] == 0)
    assert json.loads(deployment.run(*read)[1])["values"] == {"viewers": 5}
    deployment.until(lambda: len(letters(deployment)) == before + 1 + len(hostile))
    assert replayed(deployment) == len(hostile), "what was mended is not replayed again"


def replayed(deployment: Deployment) -> int:
    count: int = json.loads(deployment.run("dead-letters", "replay", "--json")[1])["replayed"]
    return count


def test_every_role_drains_when_it_is_told(deployment: Deployment) -> None:
    for name in ("serve", "write", "downsync"):
        assert deployment.stop(name) == 0, deployment.said(name)[-3_000:]
        assert "Traceback" not in deployment.said(name)

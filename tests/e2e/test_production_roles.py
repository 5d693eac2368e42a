"""The production roles as processes over Cassandra, Valkey and Kafka: only URLs are changed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from deployment import Deployment, children, update

from headrace.loadtest.bench import free_port
from headrace.loadtest.servers import Server

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
    try:
        made.start("serve", "serve", "--workers", "2")
        made.start("write", "worker", "write", "--metrics-port", str(WORKER_PORTS["write"]))
        made.start(
            "downsync", "worker", "downsync", "--metrics-port", str(WORKER_PORTS["downsync"])
        )
        made.until(lambda: "the online store is missing" in made.said("write"))
        made.until(lambda: made.said("serve").count("serving on") == 2)
        made.until(made.asks_for_apply)
        status, _, err = made.run("apply")
        assert status == 0, err
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


def test_downsync_writes_what_the_writer_committed(deployment: Deployment) -> None:
    deployment.until(lambda: any((deployment.folder / "offline").rglob("*.parquet")))


def test_a_command_that_cannot_be_applied_is_a_dead_letter(deployment: Deployment) -> None:
    """Sent past `headrace send`, which would refuse it."""
    url = json.loads((deployment.folder / "headrace.yaml").read_text())["commands"]
    servers, prefix = url.removeprefix("kafka://").split("?prefix=")
    prefix = prefix.partition("&")[0]

    async def send() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=servers)
        await producer.start()
        await producer.send_and_wait(f"{prefix}.realtime", b"{not json", key=b"k")
        await producer.stop()

    asyncio.run(send())

    def letters() -> list[Any]:
        listed: list[Any] = json.loads(deployment.run("dead-letters", "list", "--json")[1])
        return listed

    deployment.until(lambda: len(letters()) == 1)
    assert letters()[0]["code"] == "MALFORMED_JSON"


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
    assert sum(finding["check"] == "table" for finding in findings) == 2


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


def test_every_role_drains_when_it_is_told(deployment: Deployment) -> None:
    for name in ("serve", "write", "downsync"):
        assert deployment.stop(name) == 0, deployment.said(name)[-3_000:]
        assert "Traceback" not in deployment.said(name)

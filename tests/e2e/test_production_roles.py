"""The production roles as processes over Cassandra, Valkey and Kafka: only URLs are changed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from headrace.loadtest.servers import Server
from headrace.loadtest.servers.process import free_port

SOON_S = 60
LOOK_EVERY_S = 0.05
REGISTRY = """\
live::room-v1:
  feature_type: Object
  owner: "tests"
  description: "What a room looks like now"
  cache: {ttl: 10m}
  downsync: {enabled: true}
  schema:
    room_id: {type: Long, is_key_field: true}
    viewers: {type: Long, description: "People watching", default_value: 0}
    title:   {type: Text, description: "Shown above it", default_value: ""}
live::room-visits:
  feature_type: History
  owner: "tests"
  description: "Who came in"
  ttl: 30d
  schema:
    room_id: {type: Long, is_key_field: true}
    visitor: {type: Text, description: "Who", default_value: ""}
"""


class Deployment:
    """A registry, the URLs of real engines, and the processes that were started over them."""

    def __init__(self, folder: Path, urls: dict[str, str]) -> None:
        self.folder = folder
        self.port = free_port()
        features = folder / "registry" / "features"
        features.mkdir(parents=True)
        (features / "live.yaml").write_text(REGISTRY)
        settings = {
            "registry": str(folder / "registry"),
            "offline": f"duckdb:{folder}/offline",
            "gateway": {"port": self.port, "default_deadline_ms": 2_000},
        }
        (folder / "headrace.yaml").write_text(json.dumps(settings | urls))
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("HEADRACE_")}
        self.started: dict[str, subprocess.Popen[bytes]] = {}
        self.before_apply: tuple[int, Any] = (0, None)

    def run(self, *arguments: str, text: str = "") -> tuple[int, str, str]:
        """Exit status, standard output, standard error of a command."""
        done = subprocess.run(
            [sys.executable, "-m", "headrace.cli", *arguments],
            input=text,
            capture_output=True,
            text=True,
            timeout=SOON_S,
            cwd=self.folder,
            env=self.environment,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """A role in the background; what it says is `NAME.log`."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.started[name] = subprocess.Popen(
                [sys.executable, "-m", "headrace.cli", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self.environment,
                start_new_session=True,
            )
        return self.started[name]

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def request(self, path: str, body: object = None) -> tuple[int, Any]:
        """Status and JSON body of one answer of the gateway."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data)
        request.add_header("content-type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def rows(self, *rooms: int) -> list[Any]:
        """Viewers and title of rooms as the gateway answers them."""
        fields = ["viewers", "title"]
        read = {"feature_group": "live::room-v1", "fields": fields, "keys": {"room_id": rooms}}
        status, answer = self.request("/v1/read", {"reads": [read]})
        give_up_s = time.monotonic() + SOON_S
        # Each worker finds a new catalog by itself, within a second of `apply`.
        while answer.get("code") == "NO_CATALOG" and time.monotonic() < give_up_s:
            time.sleep(LOOK_EVERY_S)
            status, answer = self.request("/v1/read", {"reads": [read]})
        assert status == 200, answer
        rows: list[Any] = answer["results"][0]["rows"]
        return rows

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait for a condition; a role that ended meanwhile is shown."""
        give_up_s = time.monotonic() + SOON_S
        while not holds():
            for name, process in self.started.items():
                assert process.poll() is None, self.said(name)[-3_000:]
            told = {name: self.said(name)[-1_000:] for name in self.started}
            assert time.monotonic() < give_up_s, told
            time.sleep(LOOK_EVERY_S)

    def is_ready(self) -> bool:
        try:
            return self.request("/readyz")[0] == 200
        except OSError:
            return False

    def asks_for_apply(self) -> bool:
        """Whether the gateway has found out that nothing was ever applied."""
        with contextlib.suppress(OSError):  # It says so a moment before it listens.
            self.before_apply = self.request("/readyz")
        return "`headrace apply` makes it" in str(self.before_apply[1])

    def stop(self, name: str) -> int:
        """SIGTERM, and how the role ended."""
        process = self.started.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(SOON_S)

    def kill_all(self) -> None:
        """End what still runs: each role leads a group, its workers are in it."""
        for process in self.started.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def update(room: int, viewers: int, **more: object) -> str:
    values = {"viewers": viewers, "_last_updated_at_ms": time.time_ns() // 1_000_000}
    body = {"feature_name": "live::room-v1", "method": "UPDATE", "keys": {"room_id": room}}
    return json.dumps(body | {"values": values | more})


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
        made.start("write", "worker", "write")
        made.start("downsync", "worker", "downsync")
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


def test_a_gateway_worker_that_dies_is_replaced(deployment: Deployment) -> None:
    parent = deployment.started["serve"].pid
    first = children(parent)
    assert len(first) == 2
    os.kill(first[0], signal.SIGKILL)
    deployment.until(lambda: len(set(children(parent)) - set(first)) == 1)
    deployment.until(lambda: deployment.said("serve").count("serving on") == 3)
    for _ in range(20):
        assert deployment.rows(49) == [[490, "room 49"]]


def children(pid: int) -> list[int]:
    """Processes whose parent is `pid`, as Linux lists them."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def test_every_role_drains_when_it_is_told(deployment: Deployment) -> None:
    for name in ("serve", "write", "downsync"):
        assert deployment.stop(name) == 0, deployment.said(name)[-3_000:]
        assert "Traceback" not in deployment.said(name)

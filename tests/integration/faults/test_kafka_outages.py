"""A real broker frozen, and killed and restarted, under the roles as processes.

Neither the gateway nor the workers are restarted: what was accepted must be there afterwards, once.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Self

import pytest
from deployment import SOON_S, Deployment, update
from own_kafka import frozen, killed

from headrace.loadtest.servers import Server
from headrace.sync.downsync import DOWNSYNC_GROUP
from headrace.sync.logs.kafka import KafkaCommandLog
from headrace.sync.logs.kafka_url import KafkaUrl
from headrace.sync.writer import WRITER_GROUP

ROOMS = 20
ROLES = {
    "serve": ("serve", "--workers", "2"),
    "write": ("worker", "write"),
    "downsync": ("worker", "downsync"),
}
STRIKES = pytest.mark.parametrize("strike", [frozen, killed], ids=["frozen", "killed"])
Strike = Callable[[Server], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def deployment(
    tmp_path_factory: pytest.TempPathFactory,
    cassandra_server: Server,
    valkey_server: Server,
    own_kafka: Server,
) -> Iterator[Deployment]:
    mark = f"outages_{os.getpid()}"
    urls = {
        "online": f"scylla://127.0.0.1:{cassandra_server.port}/{mark}?replication=1",
        "cache": f"redis://127.0.0.1:{valkey_server.port}/0?epoch={os.getpid() + 1}",
        "commands": f"kafka://127.0.0.1:{own_kafka.port}?prefix={mark}&partitions=2",
    }
    made = Deployment(tmp_path_factory.mktemp("outages"), urls)
    try:
        made.apply()
        for name, arguments in ROLES.items():
            made.start(name, *arguments)
        made.until(made.is_ready)
        yield made
    finally:
        made.kill_all()


class Caller:
    """Posts one command after the other, each once, whatever the answer; remembers the answers."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._number = 0
        self.accepted: list[str] = []
        self.refused: list[str] = []
        self.newest: dict[int, int] = {}
        """Viewers by room, as of the last accepted command."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._number += 1
            room = self._number % ROOMS
            command = update(room, self._number, title=f"command {self._number}")
            status, headers, answer = self._deployment.ask("/v1/commands", [json.loads(command)])
            if status == 202:
                self.accepted.append(f"command {self._number}")
                self.newest[room] = self._number
            else:
                assert (status, answer["code"]) == (503, "LOG_UNAVAILABLE"), answer
                assert int(headers["retry-after"]) > 0
                self.refused.append(f"command {self._number}")


def accepts_more(deployment: Deployment, caller: Caller) -> None:
    before = len(caller.accepted)
    deployment.until(lambda: len(caller.accepted) > before + 20)


def missing_parts(deployment: Deployment) -> set[str]:
    status, body = deployment.request("/readyz")
    assert status == 200, body
    return {part["part"] for part in body["missing"]}


def titles_on_the_log(deployment: Deployment) -> Counter[str]:
    """How often each command lies on the topic."""

    async def read() -> Counter[str]:
        log = KafkaCommandLog(KafkaUrl.parse(deployment.url("commands")))
        consumer = log.consumer("realtime", "test-reader")
        titles: Counter[str] = Counter()
        while sum((await consumer.lag()).values()) or not consumer.assignment():
            records = await consumer.poll(rows_max=5_000, wait_ms=100)
            titles.update(json.loads(record.value)["values"]["title"] for record in records)
            ends = {
                (record.coordinates.topic, record.coordinates.partition): record.coordinates.offset
                for record in records
            }
            await consumer.commit({place: offset + 1 for place, offset in ends.items()})
        await log.close()
        return titles

    return asyncio.run(read())


@STRIKES
def test_an_outage_is_told_and_nothing_accepted_is_lost_or_doubled(
    deployment: Deployment, own_kafka: Server, strike: Strike
) -> None:
    before = {name: len(deployment.said(name)) for name in ("write", "downsync")}

    def says(name: str, event: str) -> bool:
        return f'"event":"{event}"' in deployment.said(name)[before[name] :]

    with Caller(deployment) as caller:
        accepts_more(deployment, caller)
        deployment.until(lambda: deployment.rows(0)[0][0] > 0)
        with strike(own_kafka):
            deployment.until(lambda: bool(caller.refused))
            deployment.until(lambda: missing_parts(deployment) == {"command log"})
            assert deployment.rows(0)[0][0] > 0, "reads need no command log"
            deployment.until(lambda: says("write", "trying again"))
            deployment.until(lambda: says("downsync", "downsync tries again"))
            refused = len(caller.refused)
            deployment.until(lambda: len(caller.refused) > refused)
        accepts_more(deployment, caller)
    deployment.until(lambda: missing_parts(deployment) == set())

    deployment.until(
        lambda: all(deployment.rows(room)[0][0] >= seen for room, seen in caller.newest.items())
    )
    deployment.until(lambda: says("write", "going on"))
    deployment.until(lambda: says("downsync", "downsync goes on"))
    there = titles_on_the_log(deployment)
    assert [title for title in caller.accepted if there[title] != 1] == []
    assert [title for title in caller.refused if there[title] > 1] == []


def test_roles_told_twice_end_at_once_and_lose_nothing(
    deployment: Deployment, own_kafka: Server
) -> None:
    """A drain would wait for the broker; what was in hand is done by each role's next process."""
    rooms = range(100, 120)
    commands = [json.loads(update(room, room * 10)) for room in rooms]
    deployment.until(lambda: deployment.request("/v1/commands", commands)[0] == 202)
    before = {name: len(deployment.said(name)) for name in ROLES}
    with frozen(own_kafka):
        for name in ROLES:
            process = deployment.started[name]
            process.send_signal(signal.SIGTERM)
            deployment.until_said(name, '"event":"stopping', since=before[name])
            process.send_signal(signal.SIGTERM)
            assert process.wait(SOON_S) == -signal.SIGTERM
            assert "Traceback" not in deployment.said(name)[before[name] :]
    for name, arguments in ROLES.items():
        deployment.start(name, *arguments)
    deployment.until(deployment.is_ready)
    deployment.until(
        lambda: [row[0] for row in deployment.rows(*rooms)] == [room * 10 for room in rooms]
    )
    deployment.until(lambda: behind(deployment) == {WRITER_GROUP: 0, DOWNSYNC_GROUP: 0})


def behind(deployment: Deployment) -> dict[str, int]:
    """Commands that each group has yet to commit."""

    async def look() -> dict[str, int]:
        log = KafkaCommandLog(KafkaUrl.parse(deployment.url("commands")))
        groups = (WRITER_GROUP, DOWNSYNC_GROUP)
        return {group: await log.behind("realtime", group) for group in groups}

    return asyncio.run(look())

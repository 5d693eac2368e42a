"""upsync and downsync killed by SIGKILL as real processes (semantics 24, 25)."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.cli.engines import open_offline, open_online
from headrace.cli.live import live_catalog
from headrace.sync.downsync import DOWNSYNC_GROUP
from headrace.sync.logs.sqlite import SqliteCommandLog
from headrace.sync.ports import Topic
from headrace.sync.upsync import CHUNK_ROWS

REGISTRY = """\
live::user-v1:
  feature_type: Object
  owner: "tests"
  schema:
    user_id: {type: Long, is_key_field: true}
    level: {type: Long, default_value: 0}
  upsync: {enabled: true}
live::room-v1:
  feature_type: Object
  owner: "tests"
  schema:
    room_id: {type: Long, is_key_field: true}
    viewers: {type: Long, default_value: 0}
  downsync: {enabled: true, min_interval_by_key: "0s", random_sampling_ratio: 1.0}
"""
ROWS = 2 * CHUNK_ROWS + 5_000
COMMANDS = 600
SOON_S = 90


class Place:
    """A registry and embedded engines in one folder, worked on by real processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[bytes]] = []
        (folder / "features").mkdir()
        (folder / "transforms").mkdir()
        (folder / "features" / "live.yaml").write_text(REGISTRY)
        (folder / "transforms" / "user-v1.sql").write_text(
            f"SELECT range AS user_id, range * 2 AS level FROM range({ROWS})"
        )
        self.environment = {
            **os.environ,
            "HEADRACE_REGISTRY": str(folder),
            "HEADRACE_ONLINE": f"lmdb:{folder}/online",
            "HEADRACE_COMMANDS": f"sqlite:{folder}/commands.db",
            "HEADRACE_OFFLINE": f"duckdb:{folder}/offline",
        }
        self.run("apply")

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "headrace.cli", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
            env=self.environment,
        )
        self.started.append(process)
        return process

    def run(self, *arguments: str, text: bytes = b"") -> None:
        process = self.start(*arguments)
        process.communicate(text, timeout=SOON_S)
        assert process.returncode == 0, arguments

    def values(self, topic: Topic) -> list[bytes]:
        """Every command of a topic, read by a consumer group that commits nothing."""

        async def read() -> list[bytes]:
            log = SqliteCommandLog(self.folder / "commands.db")
            consumer = log.consumer(topic, "test-reader")
            found: list[bytes] = []
            while records := await consumer.poll(rows_max=50_000, wait_ms=1):
                found += [record.value for record in records]
            await consumer.close()
            await log.close()
            return found

        return asyncio.run(read())

    def lag(self, topic: Topic, group: str) -> int:
        async def read() -> int:
            log = SqliteCommandLog(self.folder / "commands.db")
            consumer = log.consumer(topic, group)
            lag = await consumer.lag()
            await consumer.close()
            await log.close()
            return sum(lag.values())

        return asyncio.run(read())

    def offline_rows(self, name: str) -> list[dict[str, object]]:
        async def read() -> list[dict[str, object]]:
            online = await open_online(self.environment["HEADRACE_ONLINE"], read_only=True)
            offline = open_offline(self.environment["HEADRACE_OFFLINE"])
            _, document = await live_catalog(online)
            group = next(group for group in document.groups if group.name == name)
            rows = (await offline.stored(group)).to_pylist()
            offline.close()
            await online.close()
            return rows

        return asyncio.run(read())

    def has_more_rows(self) -> Callable[[], bool]:
        """Asks whether downsync has written a row since now."""
        before = len(self.offline_rows("live::room-v1"))
        return lambda: len(self.offline_rows("live::room-v1")) > before


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    for process in made.started:
        kill(process)


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    give_up_s = time.monotonic() + SOON_S
    while not happened():
        assert process.poll() is None, "the process ended by itself"
        time.sleep(0.02)  # Between two looks; the condition decides.
        assert time.monotonic() < give_up_s, "it never happened"


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def test_an_upsync_killed_in_its_second_chunk_repeats_no_more_than_a_chunk(place: Place) -> None:
    place.run("transform")
    upsync = place.start("upsync", "live::user-v1", "--rate", "8000")
    wait_until(lambda: len(place.values("bulk")) > CHUNK_ROWS, upsync)
    kill(upsync)
    assert len(place.values("bulk")) < ROWS
    place.run("upsync", "live::user-v1")
    sent = Counter(place.values("bulk"))
    assert len(sent) == ROWS, "a command was lost, or repeated with other bytes"
    assert ROWS < sent.total() <= ROWS + CHUNK_ROWS
    place.run("upsync", "live::user-v1")
    assert len(place.values("bulk")) == sent.total()


def test_a_downsync_worker_killed_again_and_again_writes_each_row_once(place: Place) -> None:
    writer = place.start("worker", "write")
    commands = [
        {
            "feature_name": "live::room-v1",
            "method": "UPDATE",
            "keys": {"room_id": number % 50},
            "values": {"viewers": number, "_last_updated_at_ms": 1_700_000_000_000 + number},
        }
        for number in range(COMMANDS)
    ]
    for first in range(0, COMMANDS, 200):
        lines = "\n".join(json.dumps(item) for item in commands[first : first + 200])
        # Asked before the worker starts: it may have written all there is before a first look.
        has_more_rows = place.has_more_rows()
        place.run("send", "-", text=lines.encode())
        downsync = place.start("worker", "downsync")
        wait_until(has_more_rows, downsync)
        kill(downsync)
    last = place.start("worker", "downsync")
    wait_until(lambda: len(place.offline_rows("live::room-v1")) == COMMANDS, last)
    wait_until(lambda: place.lag("realtime", DOWNSYNC_GROUP) == 0, last)
    kill(last)
    writer.terminate()
    assert writer.wait(SOON_S) == 0
    rows = place.offline_rows("live::room-v1")
    places = Counter((row["_command_partition"], row["_command_offset"]) for row in rows)
    assert len(rows) == COMMANDS
    assert max(places.values()) == 1

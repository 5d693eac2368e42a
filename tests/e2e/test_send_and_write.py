"""apply → send → worker write → get, each the real command in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import pytest

from headrace.sync.logs.sqlite import SqliteCommandLog
from headrace.sync.writer import WRITER_GROUP

REGISTRY = """\
live::room-v1:
  feature_type: Object
  owner: "tests"
  description: "What a room looks like now"
  schema:
    room_id: {type: Long, is_key_field: true}
    viewers: {type: Long, description: "People watching", default_value: 0}
    title:   {type: Text, description: "Shown above it", default_value: ""}
"""
SOON_S = 30


class Place:
    """A registry and the URLs of engines in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        features = folder / "registry" / "features"
        features.mkdir(parents=True)
        (features / "live.yaml").write_text(REGISTRY)
        self.environment = {
            **os.environ,
            "HEADRACE_REGISTRY": str(folder / "registry"),
            "HEADRACE_ONLINE": f"lmdb:{folder}/online",
            "HEADRACE_COMMANDS": f"sqlite:{folder}/commands.db",
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "headrace.cli", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=self.environment,
        )

    def run(self, *arguments: str, text: str = "") -> tuple[int, str, str]:
        """Exit status, standard output, standard error."""
        process = self.start(*arguments)
        out, err = process.communicate(text, timeout=SOON_S)
        return process.returncode, out, err


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    status, _, err = place.run("apply")
    assert status == 0, err
    return place


@pytest.fixture
def writer(place: Place) -> Generator[subprocess.Popen[str]]:
    process = place.start("worker", "write")
    yield process
    process.kill()
    process.communicate()


def _command(room_id: int, values: dict[str, object]) -> str:
    return json.dumps(
        {
            "feature_name": "live::room-v1",
            "method": "UPDATE",
            "keys": {"room_id": room_id},
            "values": {**values, "_last_updated_at_ms": 1_700_000_000_000},
        }
    )


async def _until_written(place: Place, writer: subprocess.Popen[str]) -> None:
    log = SqliteCommandLog(place.folder / "commands.db")
    writers = log.consumer("realtime", WRITER_GROUP)
    async with asyncio.timeout(SOON_S):
        while sum((await writers.lag()).values()):
            assert writer.poll() is None
            with suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(writer.wait, 0.02)
    await log.close()


def test_a_sent_command_can_be_read_once_a_writer_has_run(
    place: Place, writer: subprocess.Popen[str]
) -> None:
    lines = [_command(room, {"viewers": room}) for room in range(100)]
    status, _, err = place.run("send", "-", text="\n".join(lines))
    assert status == 0, err
    assert "100 commands appended" in err
    asyncio.run(_until_written(place, writer))
    writer.send_signal(signal.SIGTERM)
    _, err = writer.communicate(timeout=SOON_S)
    assert writer.returncode == 0, err
    assert [json.loads(line)["event"] for line in err.splitlines()][-1] == "writer stopped"
    status, out, err = place.run("get", "live::room-v1", "room_id=42", "--json")
    assert status == 0, err
    assert '"viewers"' in out
    assert "42" in out


def test_send_names_bad_lines_and_appends_the_others(place: Place) -> None:
    lines = [_command(1, {"viewers": 1}), "{", _command(2, {"vewers": 1})]
    status, out, err = place.run("send", "-", "--json", text="\n".join(lines))
    assert status == 1
    answer = json.loads(out)
    assert answer["appended"] == 1
    assert [line["line"] for line in answer["refused"]] == [2, 3]
    assert "vewers" in answer["refused"][1]["message"]
    assert "Traceback" not in err


def test_send_without_a_catalog_says_what_to_do(tmp_path: Path) -> None:
    status, _, err = Place(tmp_path).run("send", "-", text=_command(1, {"viewers": 1}))
    assert status == 1
    assert "headrace apply" in err
    assert "Traceback" not in err


def test_a_worker_serves_its_metrics_when_asked_to(place: Place) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    worker = place.start("worker", "write", "--metrics-port", str(port))
    try:
        place.run("send", "-", text=_command(1, {"viewers": 1}))
        asyncio.run(_until_written(place, worker))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=SOON_S) as answer:
            metrics = answer.read().decode()
    finally:
        worker.terminate()
        worker.communicate(timeout=SOON_S)
    assert 'headrace_writer_commands_total{outcome="written",topic="realtime"} 1.0' in metrics

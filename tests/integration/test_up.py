"""`headrace up` as a process: a command sent over HTTP is read back, and written offline."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

GROUP = "live::room-v1"
REGISTRY = f"""
{GROUP}:
  feature_type: Object
  owner: "shawn.s"
  schema:
    room_id: {{type: Long, is_key_field: true}}
    guests:  {{type: Long, default_value: 0}}
    topic:   {{type: Text, default_value: "none"}}
  downsync: {{enabled: true, min_interval_by_key: "0s", random_sampling_ratio: 1.0}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    features = tmp_path / "registry" / "features"
    features.mkdir(parents=True)
    (features / "room.yaml").write_text(REGISTRY)
    (tmp_path / "registry" / "services").mkdir()
    return tmp_path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def up(folder: Path) -> AsyncGenerator[tuple[httpx.AsyncClient, asyncio.subprocess.Process]]:
    port = free_port()
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "headrace.cli", "up", "--port", str(port),
        "--registry", "registry", cwd=folder, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            await until_ready(client)
            yield client, child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


async def until_ready(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                if (await client.get("/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.02)


def update(room_id: int, **values: object) -> dict[str, object]:
    values["_last_updated_at_ms"] = time.time_ns() // 1_000_000
    return {
        "feature_name": GROUP,
        "method": "UPDATE",
        "keys": {"room_id": room_id},
        "values": values,
    }


async def read_row(client: httpx.AsyncClient, room_id: int) -> list[object]:
    body = {"reads": [{"feature_group": GROUP, "keys": {"room_id": [room_id]}}]}
    row: list[object] = (await client.post("/v1/read", json=body)).json()["results"][0]["rows"][0]
    return row


async def until_read(client: httpx.AsyncClient, room_id: int, row: list[object]) -> None:
    async with asyncio.timeout(20):
        while await read_row(client, room_id) != row:  # noqa: ASYNC110 - another process' state
            await asyncio.sleep(0.02)


async def test_a_command_is_appended_written_and_read(folder: Path) -> None:
    async with up(folder) as (client, child):
        assert (await client.get("/readyz")).json()["generation"] == 1
        answer = await client.post("/v1/commands", json=[update(7, guests=3)])
        assert answer.status_code == 202
        await until_read(client, 7, [3, "none"])
        metrics = (await client.get("/metrics")).text
        assert "headrace_catalog_generation 1.0" in metrics
        child.send_signal(signal.SIGTERM)
        async with asyncio.timeout(15):
            assert await child.wait() == 0


async def test_what_was_committed_is_there_after_a_restart_and_no_second_apply(
    folder: Path,
) -> None:
    async with up(folder) as (client, child):
        await client.post("/v1/commands", json=[update(8, guests=1, topic="music")])
        await until_read(client, 8, [1, "music"])
        child.send_signal(signal.SIGINT)
        async with asyncio.timeout(15):
            assert await child.wait() == 0
    async with up(folder) as (client, _):
        assert (await client.get("/readyz")).json()["generation"] == 1
        assert await read_row(client, 8) == [1, "music"]


async def test_a_real_time_command_gets_its_offline_row(folder: Path) -> None:
    async with up(folder) as (client, child):
        await client.post("/v1/commands", json=[update(9, guests=5)])
        await until_read(client, 9, [5, "none"])
        offline = folder / ".headrace" / "offline"
        async with asyncio.timeout(20):
            while not list(offline.rglob("*.parquet")):  # noqa: ASYNC110 - another process' files
                await asyncio.sleep(0.05)
        child.send_signal(signal.SIGTERM)
        async with asyncio.timeout(15):
            assert await child.wait() == 0


async def test_a_registry_with_mistakes_is_refused_at_start(folder: Path) -> None:
    (folder / "registry" / "features" / "room.yaml").write_text("nothing: [\n")
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "headrace.cli", "up", "--port", "0", "--registry", "registry",
        cwd=folder, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(20):
        out, error = await child.communicate()
    assert child.returncode == 1
    assert b"Traceback" not in out + error
    assert b"room.yaml" in out + error

"""A new catalog under load: every request is answered, none mixes two generations."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from gateway_over_lmdb import served, store_gateway
from running_gateway import Connection, post, until

from headrace.loadtest.feature_data import OBJECT

BODY = json.dumps(
    {"reads": [{"feature_group": OBJECT, "keys": {"user_id": list(range(20))}}]}
).encode()
GENERATIONS = 12


async def read_until(port: int, stop: asyncio.Event, seen: list[int]) -> None:
    """Read over one connection; every generation that answered is added to `seen`."""
    connection = Connection(*await asyncio.open_connection("127.0.0.1", port, limit=2**22))
    while not stop.is_set():
        answer = await connection.exchange(post(BODY))
        assert answer.status == 200
        assert answer.json()["generation"] == int(answer.headers["headrace-generation"])
        seen.append(int(answer.headers["headrace-generation"]))
    connection.close()


async def test_a_catalog_swap_under_load_fails_no_request(tmp_path: Path) -> None:
    gateway = await store_gateway(tmp_path / "online")
    async with served(gateway.app) as port:
        stop = asyncio.Event()
        seen: list[list[int]] = [[] for _ in range(4)]
        async with asyncio.TaskGroup() as readers:
            for own in seen:
                readers.create_task(read_until(port, stop, own))
            for generation in range(2, GENERATIONS + 1):
                gateway.publish(generation)
                await gateway.watcher.refresh()
                await until(lambda: all(own and own[-1] == generation for own in seen))  # noqa: B023
            stop.set()
    for own in seen:
        assert own == sorted(own)
        assert own[-1] == GENERATIONS


async def test_a_catalog_that_cannot_be_loaded_changes_no_answer(tmp_path: Path) -> None:
    gateway = await store_gateway(tmp_path / "online")
    async with served(gateway.app) as port:
        connection = Connection(*await asyncio.open_connection("127.0.0.1", port))
        before = await connection.exchange(post(BODY, "x-request-id: r"))
        gateway.store.put("catalog/document", b"{")
        gateway.store.put("catalog/generation", b"2")
        await gateway.watcher.refresh()
        assert gateway.watcher.problem is not None
        assert (await connection.exchange(post(BODY, "x-request-id: r"))).raw == before.raw
        connection.close()

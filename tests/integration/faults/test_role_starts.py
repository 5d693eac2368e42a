"""Roles started while every engine is down: what they say, and that they come up by themselves."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Generator
from contextlib import contextmanager

import pytest
from deployment import Deployment, update
from own_kafka import killed

from headrace.loadtest.fault_proxy import FaultProxy, Pass, Refuse
from headrace.loadtest.servers import Server


@contextmanager
def refusing_proxy(server: Server) -> Generator[FaultProxy]:
    """A proxy in a thread of its own, since the test itself blocks; it refuses at first."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    proxy = FaultProxy(server.host, server.port)
    try:
        asyncio.run_coroutine_threadsafe(proxy.__aenter__(), loop).result()
        loop.call_soon_threadsafe(setattr, proxy, "fault", Refuse())
        yield proxy
    finally:
        ending = proxy.__aexit__(None, None, None)
        asyncio.run_coroutine_threadsafe(ending, loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_roles_started_with_everything_down_become_ready_part_by_part(
    tmp_path_factory: pytest.TempPathFactory,
    cassandra_server: Server,
    valkey_server: Server,
    own_kafka: Server,
) -> None:
    mark = f"starts_{os.getpid()}"
    with refusing_proxy(cassandra_server) as store, refusing_proxy(valkey_server) as cache:
        urls = {
            "online": f"scylla://127.0.0.1:{store.port}/{mark}?replication=1",
            "cache": f"redis://127.0.0.1:{cache.port}/0?epoch={os.getpid() + 2}",
            "commands": f"kafka://127.0.0.1:{own_kafka.port}?prefix={mark}&partitions=1",
        }
        deployment = Deployment(tmp_path_factory.mktemp("starts"), urls)

        def missing() -> tuple[int, set[str]]:
            try:
                status, body = deployment.request("/readyz")
            except OSError:
                return 0, set()  # It does not listen yet.
            return status, {part["part"] for part in body["missing"]}

        cache_node = f"cache node 127.0.0.1:{cache.port}"
        direct = f"scylla://127.0.0.1:{cassandra_server.port}/{mark}"
        apply = ("apply", "--online", f"{direct}?replication=1")
        deployment.until(lambda: deployment.run(*apply)[0] == 0)
        try:
            with killed(own_kafka):
                for arguments in (("serve",), ("worker", "write"), ("worker", "downsync")):
                    deployment.start(arguments[-1], *arguments)
                everything = {"catalog", "online store", cache_node, "command log"}
                deployment.until(lambda: missing() == (503, everything))
                deployment.until(lambda: '"event":"trying again"' in deployment.said("write"))
                deployment.until(lambda: "downsync tries again" in deployment.said("downsync"))
                store.fault = Pass()
                deployment.until(lambda: missing() == (200, {cache_node, "command log"}))
                cache.fault = Pass()
                deployment.until(lambda: missing() == (200, {"command log"}))
            deployment.until(lambda: missing() == (200, set()))

            command = json.loads(update(1, 7))
            assert deployment.request("/v1/commands", [command])[0] == 202
            deployment.until(lambda: deployment.rows(1) == [[7, ""]])
            deployment.until(lambda: any((deployment.folder / "offline").rglob("*.parquet")))
            for name in ("serve", "write", "downsync"):
                assert deployment.stop(name) == 0, deployment.said(name)[-3_000:]
                assert "Traceback" not in deployment.said(name)
        finally:
            deployment.kill_all()

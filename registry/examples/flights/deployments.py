"""Where the example runs: all roles in one process, or each its own over real servers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Protocol

from serving import ExampleError, Role, ended, process, wait_until_ready

from headrace.sync.ports import Topic

CATCH_UP_LIMIT_S = 600
LOOK_EVERY_S = 0.1
REAL_DEADLINE_MS = 5_000
"""A JVM that has just started answers its first reads slowly."""

Behind = Callable[[], Coroutine[Any, Any, int]]


class Deployment(Protocol):
    """What the steps of the example need to know of it."""

    what: str
    """The roles, for the line that says they are up."""

    def settings(self, folder: Path) -> dict[str, object]:
        """Engine URLs and gateway settings for headrace.yaml."""
        ...

    def start(self, stack: contextlib.ExitStack, folder: Path, port: int) -> list[Role]:
        """Start every role; they end with the stack."""
        ...

    def wait_until_handled(
        self, folder: Path, topic: Topic, group: str, roles: Sequence[Role]
    ) -> None:
        """Return once a consumer group has committed every command of the topic."""
        ...


class Embedded:
    """LMDB, SQLite and Parquet in the folder; `headrace up`."""

    what = "gateway, writer and downsync in one process"

    def settings(self, folder: Path) -> dict[str, object]:
        return {
            "online": f"lmdb:{folder / 'online'}",
            "commands": f"sqlite:{folder / 'commands.db'}",
            "offline": f"duckdb:{folder / 'offline'}",
        }

    def start(self, stack: contextlib.ExitStack, folder: Path, port: int) -> list[Role]:
        roles = [stack.enter_context(process(folder, "server", "up", "--port", str(port)))]
        wait_until_ready(roles, port)
        return roles

    def wait_until_handled(
        self, folder: Path, topic: Topic, group: str, roles: Sequence[Role]
    ) -> None:
        from headrace.sync.logs.sqlite import SqliteCommandLog

        async def wait() -> None:
            log = SqliteCommandLog(folder / "commands.db")
            consumer = log.consumer(topic, group)

            async def behind() -> int:
                return sum((await consumer.lag()).values())

            try:
                await _until_none(behind, topic, group, roles)
            finally:
                await consumer.close()
                await log.close()

        asyncio.run(wait())


class Real:
    """Cassandra, Valkey and Kafka on this machine; gateway, writer and downsync as processes.

    The servers are started here and end with the stack; what they held is gone then.
    """

    what = "gateway, writer and downsync, over Cassandra, Valkey and Kafka"

    def __init__(self, stack: contextlib.ExitStack, folder: Path) -> None:
        from concurrent.futures import ThreadPoolExecutor

        from headrace.loadtest.servers import Server, start_cassandra, start_kafka, start_valkey

        starters: dict[str, Callable[[Path], Server]]
        starters = {"cassandra": start_cassandra, "kafka": start_kafka, "valkey": start_valkey}
        with ThreadPoolExecutor(len(starters)) as threads:
            starting = {
                name: threads.submit(start, folder / name) for name, start in starters.items()
            }
        servers = {name: started.result() for name, started in starting.items()}
        for server in servers.values():
            stack.callback(server.stop)
        self._online = f"scylla://127.0.0.1:{servers['cassandra'].port}/flights?replication=1"
        self._cache = f"redis://127.0.0.1:{servers['valkey'].port}/0"
        self._commands = f"kafka://127.0.0.1:{servers['kafka'].port}?partitions=4"

    def settings(self, folder: Path) -> dict[str, object]:
        return {
            "online": self._online,
            "cache": self._cache,
            "commands": self._commands,
            "offline": f"duckdb:{folder / 'offline'}",
        }

    def start(self, stack: contextlib.ExitStack, folder: Path, port: int) -> list[Role]:
        commands = {
            "gateway": ("serve", "--port", str(port)),
            "writer": ("worker", "write"),
            "downsync": ("worker", "downsync"),
        }
        roles = [
            stack.enter_context(process(folder, name, *command))
            for name, command in commands.items()
        ]
        wait_until_ready(roles, port)
        return roles

    def wait_until_handled(
        self, folder: Path, topic: Topic, group: str, roles: Sequence[Role]
    ) -> None:
        from headrace.sync.logs.kafka import KafkaCommandLog
        from headrace.sync.logs.kafka_url import KafkaUrl

        async def wait() -> None:
            log = KafkaCommandLog(KafkaUrl.parse(self._commands))
            await _until_none(lambda: log.behind(topic, group), topic, group, roles)

        asyncio.run(wait())


async def _until_none(behind: Behind, topic: Topic, group: str, roles: Sequence[Role]) -> None:
    give_up_s = time.monotonic() + CATCH_UP_LIMIT_S
    while left := await behind():
        if ended(roles) or time.monotonic() > give_up_s:
            raise ExampleError(f"{left:,} commands of `{topic}` were not handled by `{group}`")
        await asyncio.sleep(LOOK_EVERY_S)

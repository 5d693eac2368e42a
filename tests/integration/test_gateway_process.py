"""`headrace serve` as a process: signals, drain, refused starts."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from deployment import children
from running_gateway import Connection, get, post, until

from headrace.loadtest import feature_data

BODY = json.dumps(
    {"reads": [{"feature_group": feature_data.OBJECT, "keys": {"user_id": [1, 2, 3]}}]}
).encode()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("process") / "online"
    feature_data.write_store(folder, rows=50, histories=1)
    return folder


@dataclass
class Process:
    """A gateway process that is ready."""

    port: int
    process: asyncio.subprocess.Process

    async def connect(self) -> Connection:
        return Connection(*await asyncio.open_connection("127.0.0.1", self.port))


def command(store: Path, port: int, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "headrace.cli", "serve", "--port", str(port),
        "--online", f"lmdb:{store}", "--commands", f"sqlite:{store.parent / 'commands.db'}", *more,
    ]  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def process(store: Path, *more: str) -> AsyncGenerator[Process]:
    port = free_port()
    child = await asyncio.create_subprocess_exec(
        *command(store, port, *more), stderr=asyncio.subprocess.PIPE, start_new_session=True
    )
    live = Process(port, child)
    try:
        await until_not(lambda: unready(live))
        yield live
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


async def ready(live: Process) -> bool:
    try:
        connection = await live.connect()
        answer = await connection.exchange(get("/readyz", "connection: close"))
    except (OSError, asyncio.IncompleteReadError):
        return False  # refused, or ended with the process that had not accepted it yet
    connection.close()
    return answer.status == 200


async def unready(live: Process) -> bool:
    return not await ready(live)


async def until_not(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until an awaited condition no longer holds."""
    async with asyncio.timeout(20):
        while await condition():  # noqa: ASYNC110 - another process' state
            await asyncio.sleep(0.01)


@dataclass
class Balancer:
    """Sends callers only while the gateway is ready, as a load balancer does."""

    open: bool = True

    async def watch(self, live: Process) -> None:
        await until_not(lambda: ready(live))
        self.open = False


@dataclass
class Load:
    """What callers saw."""

    answered: int = 0
    failed: list[str] = field(default_factory=list)


async def call_until_closed(live: Process, balancer: Balancer, load: Load) -> None:
    """Requests over kept-alive connections; a failed one is one that was sent and not answered."""
    while balancer.open:
        try:
            connection = await live.connect()
        except OSError as error:
            if balancer.open:
                load.failed.append(f"not connected: {error}")
            return
        while True:
            try:
                answer = await connection.exchange(post(BODY))
            except (OSError, asyncio.IncompleteReadError) as error:
                load.failed.append(f"sent and not answered: {error!r}")
                return
            assert answer.status == 200
            load.answered += 1
            if answer.headers.get("connection") == "close":
                connection.close()
                break


async def test_sigterm_under_load_fails_no_request(store: Path) -> None:
    """Unready at once, every request sent is answered, closed within 10 s."""
    async with process(store) as live:
        load, balancer = Load(), Balancer()
        async with asyncio.timeout(15), asyncio.TaskGroup() as callers:
            callers.create_task(balancer.watch(live))
            for _ in range(8):
                callers.create_task(call_until_closed(live, balancer, load))
            await until(lambda: load.answered >= 500)
            live.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            code = await live.process.wait()
    assert load.failed == []
    assert code == 0


async def test_a_request_under_way_is_finished_before_the_process_ends(store: Path) -> None:
    async with process(store) as live:
        connection = await live.connect()
        request = post(BODY)
        connection.send(request[:-5])
        assert await ready(live)
        live.process.send_signal(signal.SIGTERM)
        await until_not(lambda: ready(live))
        connection.send(request[-5:])
        answer = await connection.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await connection.ended() == b""
        connection.close()
        async with asyncio.timeout(10):
            assert await live.process.wait() == 0


async def test_a_second_sigterm_ends_the_process_at_once(store: Path) -> None:
    async with process(store) as live:
        holder = await live.connect()
        holder.send(post(BODY)[:-5])
        assert await ready(live)
        live.process.send_signal(signal.SIGTERM)
        await until_not(lambda: ready(live))
        live.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(2):
            assert await live.process.wait() == -signal.SIGTERM
        holder.abort()


async def test_several_workers_share_one_address_and_stop_together(store: Path) -> None:
    async with process(store, "--workers", "2") as live:
        for _ in range(10):
            connection = await live.connect()
            assert (await connection.exchange(post(BODY))).status == 200
            connection.close()
        live.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await live.process.wait() == 0


@pytest.mark.parametrize("count", [2, 4])
async def test_64_connections_are_spread_over_workers_within_a_tenth(
    store: Path, count: int
) -> None:
    async with process(store, "--workers", str(count)) as live:
        workers = children(live.process.pid)
        alone = {worker: sockets(worker) for worker in workers}
        held = [await live.connect() for _ in range(64)]
        for connection in held:
            assert (await connection.exchange(post(BODY))).status == 200
        # Within 10 %: a connection of the wait until the gateway was ready may have ended since.
        served = [sockets(worker) - alone[worker] for worker in workers]
        assert all(abs(each - 64 / count) <= 0.1 * 64 / count for each in served), served
        for connection in held:
            connection.close()


async def test_a_second_sigterm_ends_all_workers_and_their_parent_at_once(store: Path) -> None:
    async with process(store, "--workers", "2") as live:
        holders = [await live.connect() for _ in range(20)]  # Some on either worker.
        for holder in holders:
            holder.send(post(BODY)[:-5])
        assert await ready(live)
        live.process.send_signal(signal.SIGTERM)
        await until_not(lambda: ready(live))
        workers = children(live.process.pid)
        live.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(2):
            assert await live.process.wait() == -signal.SIGTERM
        assert not any(map(is_alive, workers))
        for holder in holders:
            holder.abort()


async def test_ctrl_c_in_a_terminal_drains_the_workers_though_each_is_told_by_it(
    store: Path,
) -> None:
    """A terminal signals the whole process group, the parent passes it on besides."""
    async with process(store, "--workers", "2") as live:
        connection = await live.connect()
        request = post(BODY)
        connection.send(request[:-5])
        assert await ready(live)
        os.killpg(live.process.pid, signal.SIGINT)
        await until_not(lambda: ready(live))
        connection.send(request[-5:])
        assert (await connection.answer()).status == 200
        connection.close()
        async with asyncio.timeout(10):
            assert await live.process.wait() == 0


async def test_workers_end_when_their_parent_is_killed(store: Path) -> None:
    async with process(store, "--workers", "2") as live:
        workers = children(live.process.pid)
        assert len(workers) == 2
        live.process.kill()
        await until(lambda: not any(map(is_alive, workers)))
        assert not await ready(live)


async def test_a_request_under_way_is_finished_by_an_orphan(store: Path) -> None:
    async with process(store, "--workers", "2") as live:
        workers = children(live.process.pid)
        connection = await live.connect()
        request = post(BODY)
        connection.send(request[:-5])
        assert await ready(live)
        live.process.kill()
        await until_not(lambda: ready(live))
        connection.send(request[-5:])
        assert (await connection.answer()).status == 200
        connection.close()
        await until(lambda: not any(map(is_alive, workers)))


def sockets(pid: int) -> int:
    """How many sockets a process has open (proc(5))."""
    return sum("socket:" in str(place.readlink()) for place in Path(f"/proc/{pid}/fd").iterdir())


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie (proc(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def refused_start(*arguments: str) -> tuple[int | None, str]:
    child = await asyncio.create_subprocess_exec(*arguments, stderr=asyncio.subprocess.PIPE)
    async with asyncio.timeout(20):
        _, text = await child.communicate()
    return child.returncode, text.decode()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
async def test_a_bind_beyond_loopback_is_refused_with_a_sentence(store: Path, host: str) -> None:
    """Semantics 14."""
    code, text = await refused_start(*command(store, 0, "--host", host))
    assert code == 1
    assert "not a loopback address" in text
    assert "access.yaml" in text
    assert "Traceback" not in text


async def test_a_port_in_use_is_refused_with_a_sentence(store: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, text = await refused_start(*command(store, taken.getsockname()[1]))
    assert code == 1
    assert "gateway.port" in text
    assert "Traceback" not in text


def test_workers_that_cannot_begin_end_the_whole_process(tmp_path: Path) -> None:
    """Each says why in one sentence, and a supervisor sees the failure."""
    command = [sys.executable, "-m", "headrace.cli", "serve", "--workers", "2", "--port", "0"]
    stores = ["--online", f"lmdb:{tmp_path}/none", "--commands", f"sqlite:{tmp_path}/log.db"]
    ended = subprocess.run(
        command + stores, capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False
    )
    assert ended.returncode == 1
    assert "does not exist yet; `headrace apply` makes it" in ended.stderr
    assert "workers end as soon as they begin; all are stopped" in ended.stderr
    assert "Traceback" not in ended.stderr

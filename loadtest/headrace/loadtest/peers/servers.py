"""Everything up at once: Valkey, the store behind our cache, and every peer over the same rows."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from headrace.cli.scylla import ScyllaEngine
from headrace.codec import Catalog, encode_commands
from headrace.loadtest import feature_data
from headrace.loadtest.environments import Environment
from headrace.loadtest.feast_environment import FEAST
from headrace.loadtest.peers import rows
from headrace.loadtest.peers.adapters import Ask, post
from headrace.loadtest.peers.rows import Size, Values
from headrace.loadtest.peers.table import PROGRAMS, Peer, Place
from headrace.loadtest.servers import Server, start_cassandra, start_valkey
from headrace.loadtest.servers.process import free_port
from headrace.loadtest.wrk import Gateway, cpu_seconds, pin
from headrace.registry.catalog import encode_document
from headrace.registry.errors import SettingsError

SERVER_CPU = 0
LOAD_CPU = 1
READY_LIMIT_S = 90.0
STORED_PER_CALL = 2_000
OPENING_TRIES = 5
PATIENT_MS = 5_000
"""A JVM that has just started may take longer than the gateway's own deadline."""
FIRST_ASK = Ask(feature_data.OBJECT, [0], deadline_ms=PATIENT_MS)
"""What a server answers when it is up."""
ENDING_LIMIT_S = 15.0
FEAST_WRITING_LIMIT_S = 300


class PeerFailed(Exception):
    """A peer did not start or did not answer; the sentence holds the end of its log."""


class Live(NamedTuple):
    """All that runs, and the rows that each peer must answer."""

    folder: Path
    valkey: Server
    online: Server
    place: Place
    """Where peers run, but for the port."""
    peers: dict[str, Gateway]
    truth: dict[str, dict[int, Values]]

    def redis_cpu_seconds(self) -> float:
        """What Valkey has used so far."""
        return cpu_seconds(self.valkey.pid)


@contextmanager
def everything_up(folder: Path, peers: Sequence[Peer], size: Size) -> Generator[Live]:
    """Start the stores, write all rows, start the peers; ended by process id."""
    with ThreadPoolExecutor() as threads:
        needed = {peer.environment for peer in peers if peer.environment is not None}
        list(threads.map(Environment.python, needed))
    made = list(rows.commands(size))
    truth = rows.truth(made)
    with contextlib.ExitStack() as stack:
        valkey, cassandra = _stores(folder, stack)
        online = f"scylla://127.0.0.1:{cassandra.port}/peers?replication=1"
        asyncio.run(_write_store(online, made))
        rows.write_plain_rows(truth, valkey.port)
        settings = folder / "plain.json"
        settings.write_text(json.dumps(rows.plain_settings(valkey.port)))
        place = Place(0, valkey.port, settings, online, folder / "feast" / "repo")
        if any(peer.environment is FEAST for peer in peers):
            _write_feast(truth, place)
        running = {
            peer.name: stack.enter_context(serving(peer, place._replace(port=free_port())))
            for peer in peers
            if peer.server is None
        }
        running |= {peer.name: running[peer.server] for peer in peers if peer.server is not None}
        helpers = (valkey.pid, cassandra.pid)
        live = {name: gateway._replace(helpers=helpers) for name, gateway in running.items()}
        yield Live(folder, valkey, cassandra, place, live, truth)


def _stores(folder: Path, stack: contextlib.ExitStack) -> tuple[Server, Server]:
    """Valkey and Cassandra, beside the load generator; ended with the stack."""
    threads = stack.enter_context(ThreadPoolExecutor(2))
    starting = [
        threads.submit(start_valkey, folder / "valkey"),
        threads.submit(start_cassandra, folder / "cassandra"),
    ]
    stack.callback(_stop_started, starting)
    valkey, cassandra = (started.result() for started in starting)
    for server in (valkey, cassandra):
        _move(server.pid, LOAD_CPU)
    return valkey, cassandra


def _stop_started(starting: Sequence[Future[Server]]) -> None:
    """Also what is still starting when all ends."""
    for started in starting:
        if started.exception() is None:
            started.result().stop()


def _move(pid: int, cpu: int) -> None:
    """Every thread of a process to one CPU, where there are several."""
    if (os.cpu_count() or 1) < 2:
        return
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), {cpu})


async def _write_store(online: str, made: Iterable[bytes]) -> None:
    """Tables, catalog and rows, as `apply` and the writer would leave them."""
    engine = await _opened(online)
    document = rows.catalog_document()
    await engine.table_admin().create(document.groups)
    await engine.catalog_writer().publish(document)
    catalog, writer = Catalog(encode_document(document)), engine.writer()
    waiting, now_ms = iter(made), feature_data.EVENT_MS + 86_400_000
    while batch := list(itertools.islice(waiting, STORED_PER_CALL)):
        encoded = encode_commands(catalog, batch, now_ms=now_ms)
        if encoded.rejections:
            raise PeerFailed(f"the rows are refused: {encoded.rejections[0].message}")
        await writer.store(encoded, catalog, now_ms=now_ms)
    await engine.close()


async def _opened(online: str) -> ScyllaEngine:
    """A JVM that has just started may time out at first."""
    for _ in range(OPENING_TRIES - 1):
        with contextlib.suppress(SettingsError):
            return await ScyllaEngine.open(online, create=True)
    return await ScyllaEngine.open(online, create=True)


def _write_feast(truth: dict[str, dict[int, Values]], place: Place) -> None:
    views = rows.write_feast_rows(truth, place.feast_repo.parent)
    settings = place.feast_repo.parent / "settings.json"
    told = {"folder": str(place.feast_repo), "redis": f"127.0.0.1:{place.redis_port}"}
    settings.write_text(json.dumps(told | {"views": views}))
    command = [str(FEAST.python()), "-m", f"{PROGRAMS}.feast_repo", str(settings)]
    written = subprocess.run(
        command,
        env=child_environment(place),
        capture_output=True,
        text=True,
        timeout=FEAST_WRITING_LIMIT_S,
        check=False,
    )
    if written.returncode != 0:
        raise PeerFailed(f"Feast could not write its rows: {written.stderr[-2000:]}")


def child_environment(place: Place) -> dict[str, str]:
    """A child's environment: ours without anything that makes Python import what it should not."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    search = str(Path(__file__).parents[3])
    told = {"PEER_SETTINGS": str(place.settings), "PYTHONPATH": search}
    return kept | told | {"FEAST_USAGE": "False", "PYTHONWARNINGS": "ignore"}


@contextmanager
def serving(peer: Peer, place: Place) -> Generator[Gateway]:
    """One peer on the server's CPU, once it answers its first request."""
    log_path = place.settings.parent / f"{peer.name}.log"
    environment = dict(os.environ) if peer.environment is None else child_environment(place)
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [*pin(SERVER_CPU), *peer.start(place)],
            env=environment,
            cwd=place.settings.parent,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_it_answers(peer, place.port, process, log_path)
        yield Gateway(place.port, process.pid, workers=_descendants(process.pid))
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL for it and what it has made if that does not help."""
    made = _descendants(process.pid)
    process.terminate()
    try:
        process.wait(timeout=ENDING_LIMIT_S)
    except subprocess.TimeoutExpired:
        for pid in (process.pid, *made):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def _wait_until_it_answers(
    peer: Peer, port: int, process: subprocess.Popen[bytes], log_path: Path
) -> None:
    body = peer.adapter.body(FIRST_ASK)
    deadline = time.monotonic() + READY_LIMIT_S
    while True:
        try:
            post(port, peer.adapter, body, timeout_s=5)
            return
        except OSError as error:
            ended = process.poll() is not None
            if ended or time.monotonic() > deadline:
                tail = log_path.read_text(errors="replace")[-2000:]
                raise PeerFailed(f"{peer.name} does not answer ({error}):\n{tail}") from None
            time.sleep(0.1)


def _descendants(pid: int) -> tuple[int, ...]:
    """Processes that a server has made of its own, as gunicorn does."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(stat[1])
    found, waiting = list[int](), [pid]
    while waiting:
        parent = waiting.pop()
        children = [child for child, of in parents.items() if of == parent]
        found += children
        waiting += children
    return tuple(found)


def rss_mib(gateway: Gateway) -> float:
    """Resident memory of the process of a server that has most: the one that answers."""
    sizes = [_resident_kib(pid) for pid in (gateway.pid, *gateway.workers)]
    return max(sizes) / 1024


def _resident_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

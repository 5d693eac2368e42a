"""One round of one cell of one peer: closed loop by wrk, open loop by our own generator."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from headrace.loadtest.open_loop import Exchange, write_exchanges
from headrace.loadtest.peers.adapters import post
from headrace.loadtest.peers.cells import Cell, Plan
from headrace.loadtest.peers.check import FILLING_PASSES, learn
from headrace.loadtest.peers.rows import Values
from headrace.loadtest.peers.servers import LOAD_CPU, Live
from headrace.loadtest.peers.table import OUR_SERVER, Peer
from headrace.loadtest.priority import ahead
from headrace.loadtest.wrk import OTHERS_SHARE_MAX, REPEATS_MAX, Gateway, Load, drive_once, pin

OPEN_WARM_UP_S = 0.3
OPEN_WAITING_MAX = 1_000_000
OPEN_SPARE_S = 60
LEAST_RATE = 1.0
SETTLED_S = 0.1
SETTLED_CPU_S = 0.02
SETTLING_LIMIT_S = 60.0


class Measuring:
    """Everything up, and a plan."""

    def __init__(self, live: Live, plan: Plan) -> None:
        self._live = live
        self._plan = plan
        self._exchanges_kept: dict[tuple[str, str], Path] = {}

    def weigh(self, cell: Cell, peer: Peer) -> dict[str, float]:
        """Bytes and values of an answer, by the first request of the first round."""
        ask = next(cell.asks(1, 1, self._plan.size))
        gateway = self._live.peers[peer.name]
        answer = post(gateway.port, peer.adapter, peer.adapter.body(ask))
        found = peer.adapter.rows(ask, answer, gateway.port)
        values = sum(_values_in(row) for row in found if row is not None)
        return {"bytes": len(answer), "values": values}

    def closed(self, cell: Cell, peer: Peer, round_number: int) -> dict[str, Any]:
        """Saturate the server once; once more while other processes disturb it."""
        gateway = self._live.peers[peer.name]
        bodies = self._bodies_path(peer)
        asks = cell.asks(self._plan.bodies, round_number, self._plan.size)
        bodies.write_bytes(b"".join(peer.adapter.body(ask) + b"\n" for ask in asks))
        if peer.name == OUR_SERVER:
            self._learn_absent(cell, round_number)
        load = Load(
            peer.adapter.path,
            peer.adapter.accept,
            bodies,
            self._plan.seconds_of(cell, peer),
            self._plan.connections_of(cell, peer),
        )
        made: dict[str, Any] = {}
        for _ in range(1 + REPEATS_MAX):
            redis_before = self._live.redis_cpu_seconds()
            outcome = drive_once(gateway, load)
            _settle(gateway)
            redis_used = self._live.redis_cpu_seconds() - redis_before
            redis_us = redis_used * 1e6 / max(1, outcome.requests)
            made = outcome._asdict() | {"redis_cpu_us": redis_us}
            if outcome.others_share <= OTHERS_SHARE_MAX:
                break
        return made

    def _bodies_path(self, peer: Peer) -> Path:
        return self._live.folder / f"{peer.name.replace(' ', '-')}.bodies"

    def _learn_absent(self, cell: Cell, round_number: int) -> None:
        """Have ours cache that these keys have no row, as it does for any that is asked for."""
        if cell.absent_percent:
            for _ in range(FILLING_PASSES):
                learn(self._live, cell.group, cell.absent_keys(round_number))

    def open(self, cell: Cell, peer: Peer, rate: float) -> dict[str, Any]:
        """Requests that fall due at a rate whatever the server does, every answer compared."""
        gateway = self._live.peers[peer.name]
        exchanges = self._exchanges(cell, peer)
        seconds = self._plan.open_seconds_of(peer)
        command = [*pin(LOAD_CPU), sys.executable, "-m", "headrace.loadtest.open_loop"]
        command += ["--port", str(gateway.port), "--path", peer.adapter.path]
        command += ["--accept", peer.adapter.accept, "--rate", str(max(rate, LEAST_RATE))]
        command += ["--seconds", str(seconds), "--warm-up", str(OPEN_WARM_UP_S)]
        command += ["--connections", str(self._plan.open_connections)]
        command += ["--waiting", str(OPEN_WAITING_MAX), "--bodies", str(exchanges)]
        with ahead((gateway.pid, *gateway.workers, self._live.valkey.pid)) as are_ahead:
            busy_before = gateway.cpu_seconds()
            finished = subprocess.run(
                [*command, *(["--ahead"] if are_ahead else [])],
                capture_output=True,
                text=True,
                check=True,
                timeout=seconds + OPEN_SPARE_S,
            )
            busy_s = gateway.cpu_seconds() - busy_before
        summary: dict[str, Any] = json.loads(finished.stdout)
        busy_share = busy_s / (seconds + OPEN_WARM_UP_S)
        return summary | {"server_busy_share": busy_share, "ahead": are_ahead}

    def _exchanges(self, cell: Cell, peer: Peer) -> Path:
        """Requests and their answers, which have been checked, for the generator to compare."""
        key = (cell.name, peer.name)
        if key not in self._exchanges_kept:
            port = self._live.peers[peer.name].port
            bodies = [peer.adapter.body(ask) for ask in cell.open_asks(self._plan.size)]
            path = self._live.folder / f"{len(self._exchanges_kept)}.exchanges"
            made = [Exchange(body, post(port, peer.adapter, body)) for body in bodies]
            write_exchanges(path, made)
            self._exchanges_kept[key] = path
        return self._exchanges_kept[key]


def _settle(gateway: Gateway) -> None:
    """Wait until a server has done what it had begun when wrk left, and disturbs no other."""
    deadline, before = time.monotonic() + SETTLING_LIMIT_S, gateway.cpu_seconds()
    while time.monotonic() < deadline:
        time.sleep(SETTLED_S)
        now = gateway.cpu_seconds()
        if now - before < SETTLED_CPU_S:
            return
        before = now


def _values_in(row: Values) -> int:
    return sum(len(item) if isinstance(item, list) else 1 for item in row)

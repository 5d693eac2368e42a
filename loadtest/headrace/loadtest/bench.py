"""`make bench`: what one gateway process on LMDB costs, driven by wrk (`wrk.py` has the method)."""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from headrace.loadtest import feature_data
from headrace.loadtest.wrk import (
    ARROW_TYPE,
    AVRO_TYPE,
    JSON_TYPE,
    NO_WRK,
    Cell,
    Gateway,
    Plan,
    drive,
    pin,
    prepare,
    report,
    show,
    wait_ready,
)

CELLS = [
    *(
        Cell(f"{keys} keys {form}", accept, partial(feature_data.read_body, keys))
        for form, accept in (("JSON", JSON_TYPE), ("Avro", AVRO_TYPE))
        for keys in (1, 10, 100)
    ),
    Cell("100 keys Arrow", ARROW_TYPE, partial(feature_data.read_body, 100)),
    Cell("History of 50 JSON", JSON_TYPE, feature_data.history_body),
    Cell("History of 50 Avro", AVRO_TYPE, feature_data.history_body),
]


def main() -> int:
    arguments = plan_arguments("bench", __doc__, Path("loadtest/results/bench.json"))
    if shutil.which("wrk") is None:
        print(NO_WRK, file=sys.stderr)
        return 1
    plan = Plan(arguments.rounds, arguments.seconds, arguments.connections)
    with (
        tempfile.TemporaryDirectory(prefix="headrace-bench-") as name,
        gateway_on_lmdb(Path(name)) as live,
    ):
        sizes = {cell.name: prepare(cell, live, Path(name)) for cell in CELLS}
        rounds = drive(live, CELLS, Path(name), plan)
    made = report(rounds, sizes, plan)
    keep(made, arguments.out)
    show(made)
    return 0


def plan_arguments(program: str, text: str | None, out: Path) -> argparse.Namespace:
    """The arguments of every HTTP bench."""
    parser = argparse.ArgumentParser(prog=program, description=text)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of each cell in each round")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--out", type=Path, default=out)
    return parser.parse_args()


def keep(made: dict[str, object], out: Path) -> None:
    """Write the raw results."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(made, indent=1) + "\n")
    print(f"raw results: {out}", file=sys.stderr)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def gateway_on_lmdb(folder: Path) -> Generator[Gateway, None, None]:
    """One gateway process on CPU 0, over the rows of `feature_data`."""
    feature_data.write_store(folder / "online")
    port = free_port()
    command = [sys.executable, "-m", "headrace.cli", "serve", "--port", str(port)]
    command += ["--online", f"lmdb:{folder / 'online'}"]
    command += ["--commands", f"sqlite:{folder / 'commands.db'}"]
    server = subprocess.Popen([*pin(0), *command], stderr=subprocess.DEVNULL)
    try:
        wait_ready(port, server)
        yield Gateway(port, server.pid)
    finally:
        server.terminate()
        server.wait(timeout=15)


if __name__ == "__main__":
    sys.exit(main())

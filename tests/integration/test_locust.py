"""The locust scenarios, headless, against a running gateway."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from headrace.loadtest import feature_data
from headrace.loadtest.servers.process import Server, ask, free_port

LOCUSTFILE = Path(__file__).parents[2] / "loadtest" / "headrace" / "loadtest" / "locustfile.py"
LIMIT_S = 120


@pytest.fixture
def gateway(tmp_path: Path) -> Generator[Server]:
    """`headrace serve` over LMDB with the load data, all of its rows."""
    feature_data.write_store(tmp_path / "online", rows=10_000, histories=1_000, wide_rows=1_000)
    port = free_port()
    command = [sys.executable, "-m", "headrace.cli", "serve", "--port", str(port)]
    command += ["--online", f"lmdb:{tmp_path / 'online'}"]
    command += ["--commands", f"sqlite:{tmp_path / 'commands.db'}"]

    def ready() -> bool:
        question = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        return ask(port, question, answer_bytes=15).startswith(b"HTTP/1.1 200")

    server = Server("headrace", command, folder=tmp_path, port=port, ready=ready).start()
    try:
        yield server
    finally:
        server.stop()


def test_every_scenario_is_answered_and_leaves_its_percentiles(
    gateway: Server, tmp_path: Path
) -> None:
    folder = tmp_path / "percentiles"
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless"]
    command += ["--only-summary", "--users", "20", "--spawn-rate", "20", "--run-time", "3s"]
    command += ["--host", f"http://127.0.0.1:{gateway.port}", "--percentiles", str(folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with (folder / "percentiles.csv").open() as file:
        counts = {row["request"]: int(row["count"]) for row in csv.DictReader(file)}
    assert set(counts) == {
        "1 key",
        "10 keys",
        "100 keys",
        "500 keys",
        "100 keys of 250 fields",
        "100 keys, 5 % absent",
        "100 keys, 37 % absent",
        "100 keys, 100 % absent",
        "service, 31 rows and 10 events",
        "History of 50",
    }
    assert "</svg>" in (folder / "percentiles.svg").read_text()

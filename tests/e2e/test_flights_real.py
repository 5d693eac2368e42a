"""`make run ENGINES=real ONCE=1`: the flight job over Cassandra, Valkey and Kafka."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from headrace.loadtest.servers.process import free_port

RUN = Path(__file__).parents[2] / "registry" / "examples" / "flights" / "run.py"


def test_the_flight_job_ends_without_differences_over_the_production_engines(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [
            *(sys.executable, str(RUN), "--once", "--engines", "real"),
            *("--folder", str(tmp_path / "flights"), "--port", str(free_port())),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ": 0 differences in " in done.stdout
    assert "downsync kept " in done.stdout
    assert done.stdout.count("\ncurl -s http://127.0.0.1:") == 3

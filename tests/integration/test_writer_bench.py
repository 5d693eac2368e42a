"""The bench of the embedded store: that it measures what it says, and what it must show."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.loadtest.writer_bench import run

MIB = 1 << 20


def test_the_bench_writes_every_row_twice(tmp_path: Path) -> None:
    report = run(1_000, 300, tmp_path, "none")
    assert [each.commands for each in report.passes] == [1_000, 1_000]
    assert 400 < report.command_bytes < 500


@pytest.mark.stress
def test_a_million_rows_fit_the_memory_and_the_rate(tmp_path: Path) -> None:
    """512 MiB beyond LMDB's map, and 30,000 commands a second and core."""
    out = tmp_path / "writer.json"
    bench = [sys.executable, "-m", "headrace.loadtest.writer_bench", "--out", str(out)]
    subprocess.run(bench, check=True, stdout=subprocess.DEVNULL)
    for each in json.loads(out.read_text())["passes"]:
        assert each["commands"] == 1_000_000
        assert each["rss_anon_max_bytes"] <= 512 * MIB
        assert each["commands_per_cpu_second"] >= 30_000

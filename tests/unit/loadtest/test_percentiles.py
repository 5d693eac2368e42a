"""The percentiles that a locust run leaves."""

from __future__ import annotations

import csv
from pathlib import Path

from headrace.loadtest.percentiles import Latencies, percentile


def test_a_percentile_is_the_value_at_its_nearest_rank() -> None:
    ordered = [float(value) for value in range(1, 101)]
    assert [percentile(ordered, share) for share in (0.5, 0.99, 0.999)] == [50.0, 99.0, 100.0]


def test_a_run_leaves_a_row_and_a_line_for_each_kind_of_request(tmp_path: Path) -> None:
    latencies = Latencies()
    latencies.note("of an earlier run", 9.0)
    latencies.clear()
    for value in range(1, 1_001):
        latencies.note("1 key", value / 1_000)
        latencies.note("100 keys", value / 100)
    latencies.write(tmp_path / "made")
    with (tmp_path / "made" / "percentiles.csv").open() as file:
        rows = {row["request"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"1 key", "100 keys"}
    assert (rows["1 key"]["count"], rows["1 key"]["p99_ms"]) == ("1000", "0.990")
    assert rows["100 keys"]["max_ms"] == "10.000"
    drawn = (tmp_path / "made" / "percentiles.svg").read_text()
    assert ">1 key<" in drawn
    assert ">100 keys<" in drawn


def test_a_run_without_an_answer_still_leaves_its_files(tmp_path: Path) -> None:
    Latencies().write(tmp_path)
    assert (tmp_path / "percentiles.csv").read_text().startswith("request,count,p50_ms")
    assert (tmp_path / "percentiles.svg").exists()

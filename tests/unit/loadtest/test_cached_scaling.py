"""The curve of the gateway over Valkey by cached rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headrace.codec import Catalog
from headrace.loadtest import cached_scaling, pages, scaling_bench
from headrace.registry.catalog import encode_document


def test_a_loaded_block_holds_the_row_it_is_for() -> None:
    document = scaling_bench.small_document()
    catalog = Catalog(encode_document(document))
    made = cached_scaling.blocks(document, catalog, [7, 8])
    found = [
        (
            catalog.decode_key(key)[1]["user_id"],
            catalog.decode_block("load::small-v1", block).values,
        )
        for key, block in made
    ]
    assert found == [(user, dict.fromkeys(("f1", "f2", "f3", "f4"), user)) for user in (7, 8)]


def test_each_size_is_told_beside_the_smallest_of_as_many_keys(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    points = [
        {"rows": rows, "keys": keys, "cpu_us": cpu_us, "least_us": 1.0, "valkey_us": 3.0}
        for rows, keys, cpu_us in ((10_000, 10, 20.0), (10_000, 100, 90.0), (100_000, 10, 22.0))
    ]
    report = {
        "cached": {"rounds": 3, "seconds": 1, "points": points},
        "machine": {"cpu": "a CPU"},
        "commit": "abc",
        "measured_at": "2026-01-01T00:00:00",
    }
    (tmp_path / "scaling.json").write_text(json.dumps(report))
    monkeypatch.setattr(pages, "RESULTS", tmp_path)
    table = pages.cached_rows_table()
    assert "| 10 keys, 100,000 rows | 22.0 | 1.10 | 3.0 |" in table
    assert "at most 1.10 times" in table
    assert "| 100 keys, 10,000 rows | 90.0 | 1.00 | 3.0 |" in table

"""The curve of the gateway over Valkey by cached rows."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import redis

from headrace.codec import Catalog, Placement
from headrace.loadtest import cached_scaling, pages, scaling_rows
from headrace.loadtest.servers import start_valkey
from headrace.registry.catalog import encode_document


def test_every_row_is_cached_in_its_database_under_its_key(tmp_path: Path) -> None:
    document, rows = scaling_rows.document(), 1_500  # One command takes fewer.
    catalog = Catalog(encode_document(document))
    valkey = start_valkey(tmp_path)
    try:
        cached_scaling.load(document, valkey.port, 3, rows)
        placement = Placement([f"127.0.0.1:{valkey.port}"], epoch=1)
        with redis.Redis(port=valkey.port, db=3) as client:
            stored = client.dbsize()
            users = scaling_rows.users(rows)
            keys = [catalog.encode_key("load::small-v1", {"user_id": user}) for user in users]
            blocks = [client.get(placement.block_key(key)) for key in (keys[0], keys[-1])]
    finally:
        valkey.stop()
    assert stored == rows
    values = [
        catalog.decode_block("load::small-v1", block).values
        for block in blocks
        if isinstance(block, bytes)
    ]
    assert values == [
        dict.fromkeys(("f1", "f2", "f3", "f4"), user) for user in (users[0], users[-1])
    ]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([[7, 7, 7, 7], [8, 8, 8, 8]], None),
        ([[8, 8, 8, 8], [7, 7, 7, 7]], "are answered"),
        ([[7, 7, 7, 7]], "are answered"),
    ],
)
def test_an_answer_counts_only_with_every_row_in_its_place(
    rows: list[list[int]], told: str | None
) -> None:
    answer = json.dumps({"results": [{"rows": rows, "statuses": []}]}).encode()
    if told is None:
        cached_scaling.check(answer, [7, 8])
    else:
        with pytest.raises(SystemExit, match=told):
            cached_scaling.check(answer, [7, 8])


def test_a_row_that_is_not_there_ends_the_bench() -> None:
    rows = [[7, 7, 7, 7], [8, 8, 8, 8]]
    answer = {"results": [{"rows": rows, "statuses": [{"row": 1, "status": "ABSENT"}]}]}
    with pytest.raises(SystemExit, match="ABSENT"):
        cached_scaling.check(json.dumps(answer).encode(), [7, 8])


def test_the_clock_of_a_process_counts_its_cpu_time_and_not_the_time_it_sleeps() -> None:
    before_s, began_s = cached_scaling.cpu_clock_s(os.getpid()), time.process_time()
    while time.process_time() - began_s < 0.02:
        pass
    used_s = cached_scaling.cpu_clock_s(os.getpid()) - before_s
    assert 0.02 <= used_s <= time.process_time() - began_s + 0.01


def test_each_size_is_told_beside_the_smallest_of_as_many_keys(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    points = [
        {"rows": rows, "keys": keys, "cpu_us": cpu_us, "least_us": 1.0, "valkey_us": 3.0}
        for rows, keys, cpu_us in ((10_000, 10, 20.0), (10_000, 100, 90.0), (100_000, 10, 22.0))
    ]
    report = {
        "cached": {
            "rounds": 3,
            "seconds": 1,
            "rates": {"10": 9_000, "100": 2_000},
            "points": points,
        },
        "machine": {"cpu": "a CPU"},
        "commit": "abc",
        "measured_at": "2026-01-01T00:00:00",
    }
    (tmp_path / "scaling.json").write_text(json.dumps(report))
    monkeypatch.setattr(pages, "RESULTS", tmp_path)
    table = pages.cached_rows_table()
    assert "| 10 keys, 100,000 rows | 9,000 | 22.0 | 1.10 | 3.0 |" in table
    assert "at most 1.10 times" in table
    assert "| 100 keys, 10,000 rows | 2,000 | 90.0 | 1.00 | 3.0 |" in table

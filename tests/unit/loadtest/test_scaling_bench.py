"""The curves by rows and by fields."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from headrace.codec import Catalog
from headrace.loadtest import pages, scaling_bench, scaling_rows
from headrace.loadtest.scaling_bench import WIDE_ROWS, Wide, wide_numbers, wide_text
from headrace.registry.catalog import encode_document


@pytest.mark.parametrize("keys", [1, 100])
def test_requests_are_equally_long_however_many_rows_there_are(keys: int) -> None:
    bodies = [
        scaling_rows.body("load::small-v1", ids)
        for rows in (100, scaling_rows.ROWS_MAX)
        for ids in scaling_rows.asked(scaling_rows.users(rows), 5, keys)
    ]
    assert len({len(body) for body in bodies}) == 1


def test_more_rows_than_have_ids_of_equal_length_are_refused() -> None:
    with pytest.raises(SystemExit, match="equal length"):
        scaling_rows.users(scaling_rows.ROWS_MAX + 1)


def test_all_values_of_a_row_are_its_id() -> None:
    document = scaling_rows.document()
    catalog = Catalog(encode_document(document))
    users = scaling_rows.users(2)
    found: list[tuple[object, object]] = []
    for mutation in scaling_rows.encoded(catalog, document.groups[0], users).mutations():
        cells = [(mutation.field_id, mutation.cell)]
        folded = catalog.fold_object(
            "load::small-v1", cells, delete_timestamp=None, now_ms=scaling_rows.NOW_MS
        )
        assert folded is not None
        found.append((catalog.decode_key(mutation.key)[1]["user_id"], folded.values))
    assert found == [(user, dict.fromkeys(("f1", "f2", "f3", "f4"), user)) for user in users]


@pytest.mark.parametrize("count", [50, 500])
def test_a_group_of_numbers_and_one_of_a_text_have_equally_long_rows(count: int) -> None:
    def cell_bytes(wide: Wide) -> float:
        _, _, batch = scaling_bench.wide_batch(wide)
        return sum(len(mutation.cell) for mutation in batch.mutations()) / WIDE_ROWS

    assert cell_bytes(wide_text(count)) == pytest.approx(cell_bytes(wide_numbers(count)), rel=0.02)


@pytest.mark.parametrize("count", scaling_bench.FIELDS)
def test_20_fields_are_asked_for_and_all_others_lie_before_the_last_of_them(count: int) -> None:
    wide = wide_numbers(count)
    assert len(wide.wanted) == 20
    assert wide.wanted[-1] == wide.fields[-1].name


def test_the_bar_ends_with_all_rows() -> None:
    out = io.StringIO()
    bar = scaling_rows.LoadingBar("LMDB", 200_000, out)
    bar.show(100_000)
    bar.show(200_000)
    assert "LMDB: 200,000 of 200,000 rows" in out.getvalue().splitlines()[-1]


def test_a_skipped_field_is_told_apart_from_its_bytes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    curves = {
        "fields": [{"size": 20, "cpu_us": 30.0}, {"size": 120, "cpu_us": 60.0}],
        "bytes": [{"size": 20, "cpu_us": 30.0}, {"size": 120, "cpu_us": 41.0}],
    }
    report = {"curves": curves, "method": {"wide_keys": 100}}
    (tmp_path / "scaling.json").write_text(json.dumps(report))
    monkeypatch.setattr(pages, "RESULTS", tmp_path)
    assert "| 120 | 60.0 | 41.0 | 1.9 | 1.1 |" in pages.skipping_table()

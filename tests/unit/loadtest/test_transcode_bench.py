"""The Rust benchmark's times, as they are read and told."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from headrace.loadtest.transcode_bench import (
    CASES,
    PAIRS,
    Failed,
    ns_a_record,
    program_in,
    summary,
    versions,
)

ROOT = Path(__file__).resolve().parents[3]
TOLD = """\
bytes of 100 records: Avro 9950, JSON 44250
test record/flat, rows ... bench:       12,345 ns/iter (+/- 67)

"""


def test_the_time_of_an_iteration_is_that_of_its_hundred_records() -> None:
    assert ns_a_record(TOLD, "record/flat, rows") == 123.45


@pytest.mark.parametrize("told", ["", TOLD.replace("rows", "objects"), TOLD * 2])
def test_output_without_the_one_time_is_refused(told: str) -> None:
    with pytest.raises(Failed, match="expected one time of `record/flat, rows`"):
        ns_a_record(told, "record/flat, rows")


def test_the_program_is_the_one_that_cargo_names() -> None:
    messages = [
        '{"reason":"compiler-artifact","target":{"name":"headrace_codec"},"executable":null}',
        '{"reason":"compiler-artifact","target":{"name":"transcode"},"executable":"target/t-1"}',
        '{"reason":"build-finished","success":true}',
    ]
    assert program_in(messages) == Path("target/t-1")
    with pytest.raises(Failed, match="no program"):
        program_in(messages[::2])


def test_medians_and_their_ratio_are_of_the_same_text() -> None:
    times = {name: [110.0, 100.0, 900.0] for name in CASES.values()}
    times |= {theirs: [330.0, 2_000.0, 300.0] for theirs in PAIRS.values()}
    made = summary(times)
    assert made["ratios"] == dict.fromkeys(PAIRS, 3.0)
    assert made["rounds_ns"] == times


def test_every_case_is_one_of_the_rust_benchmark() -> None:
    source = (ROOT / "rust_codec" / "core" / "benches" / "transcode.rs").read_text()
    assert 'benchmark_group("record")' in source
    for ending in (", rows", ", objects", ", objects, serde_avro_fast"):
        assert f'"{{name}}{ending}"' in source
    assert {case.partition(", ")[2] for case in CASES} == {
        "rows",
        "objects",
        "objects, serde_avro_fast",
    }


def test_versions_of_what_ours_is_compared_with_come_from_the_lock_file() -> None:
    found = versions(tomllib.loads((ROOT / "Cargo.lock").read_text()))
    assert set(found) == {"serde_avro_fast", "serde_json"}

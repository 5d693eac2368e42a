"""What the documents say is true: links lead somewhere, commands are run, numbers are generated."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMAND = re.compile(r"^\$ (.+?)(?:\s+#.*)?$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#]+?)(?:#[^)]*)?\)")

RUN_ELSEWHERE = {
    "make run": "tests/e2e/test_flights.py",
    "make run ONCE=1": "tests/e2e/test_flights.py",
    "make run ENGINES=real ONCE=1": "tests/e2e/test_flights_real.py",
    "make test": "this very run",
    'curl -s http://127.0.0.1:6566/get-online-features -d \'{"features":'
    '["driver_hourly_stats:score"],"entities":{"driver_id":[1001]}}\'': (
        "tests/integration/test_feast_client.py"
    ),
}
"""Commands that a test of their own runs."""


def documents() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file(path: Path) -> None:
    targets = LINK.findall(path.read_text())
    lost = [
        target
        for target in targets
        if not target.startswith("http") and not (path.parent / target).exists()
    ]
    assert lost == []


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_path_in_a_table_exists(path: Path) -> None:
    """Rows of `| place | holds |` tables name files and folders beside the document."""
    lost: list[str] = []
    for row in re.findall(r"^\| (`[^|]+?) \|", path.read_text(), re.MULTILINE):
        for name in re.findall(r"`([\w./-]+[/.][\w./-]*)`", row):
            places = (path.parent / name, path.parent / "headrace" / name)
            if not any(place.exists() for place in places) and "/" in name:
                lost.append(name)
    assert lost == []


def test_every_command_in_the_documents_is_run_by_a_test() -> None:
    unknown = {
        f"{path.relative_to(ROOT)}: {command}"
        for path in documents()
        for command in COMMAND.findall(path.read_text())
        if command not in RUN_ELSEWHERE
    }
    assert unknown == set()


def test_every_option_of_an_engine_url_is_documented() -> None:
    from headrace.cli import scylla
    from headrace.registry import cache_url
    from headrace.sync.logs import kafka_url

    text = (ROOT / "docs" / "engines.md").read_text()
    for known, scheme in (
        (scylla.KNOWN_OPTIONS, "scylla://"),
        (cache_url.KNOWN_OPTIONS, "redis://"),
        (kafka_url.KNOWN_OPTIONS, "kafka://"),
    ):
        row = next(line for line in text.splitlines() if f"`{scheme}" in line)
        assert [option for option in known if f"`{option}`" not in row] == []


def test_the_documented_defaults_of_an_engine_url_are_the_real_ones() -> None:
    from headrace.cli.scylla import ScyllaUrl
    from headrace.registry.cache_url import CacheUrl
    from headrace.sync.logs.kafka_url import KafkaUrl

    text = (ROOT / "docs" / "engines.md").read_text()
    kafka, cache = KafkaUrl.parse("kafka://a"), CacheUrl.parse("redis://a")
    online = ScyllaUrl.parse("scylla://a/b")
    for said in (
        f"`prefix` of topics and groups ({kafka.prefix})",
        f"`mechanism` ({kafka.mechanism})",
        f"lz4, zstd or none ({kafka.compression_name})",
        f"`partitions` ({kafka.partitions}) and `replication` ({kafka.replication})",
        f"when the node list changes ({cache.epoch})",
        f"`resp` 2 or 3 ({cache.resp})",
        f"that `apply` makes ({online.replication})",
    ):
        assert said in text


def test_every_table_of_the_reference_pages_is_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, "docs/reference.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    told = f"{done.stdout}{done.stderr}: run `python docs/reference.py`"
    assert done.returncode == 0, told


def test_every_table_of_numbers_is_what_the_raw_results_say() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "headrace.loadtest.pages", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout

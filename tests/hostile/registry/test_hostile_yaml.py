"""Files that a registry must refuse. `threats.tsv` says for each which rule does it, and why.

The files are read as bytes of some stranger's pull request: every one ends in findings with a rule
id, none in a traceback.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.registry.load import load_registry, load_texts
from headrace.registry.model import Finding
from headrace.registry.rules import rule_ids
from headrace.registry.yaml_tree import DEPTH_MAX, FILE_BYTES_MAX, PROBLEMS_MAX

HERE = Path(__file__).parent
THREATS = [line.split("\t") for line in (HERE / "threats.tsv").read_text().splitlines()]
GROUPS = b"""\
live::host-stat-v1:
  feature_type: Object
  owner: shawn
  schema:
    user_id: {type: Text, is_key_field: true}
    level: {type: Long, default_value: 0}
live::visits:
  feature_type: History
  owner: shawn
  ttl: 30d
  schema:
    user_id: {type: Long, is_key_field: true}
    level: {type: Long, default_value: 0}
"""


def errors_of(kind: str, text: bytes) -> list[Finding]:
    """Errors of a registry that holds `text` in its place, and good groups beside it."""
    texts = {"features/threat.yaml": text}
    if kind == "services":
        texts = {"features/groups.yaml": GROUPS, "services/threat.yaml": text}
    elif kind == "access":
        texts = {"features/groups.yaml": GROUPS, "access.yaml": text}
    return [finding for finding in load_texts(texts).findings if finding.severity == "error"]


@pytest.mark.parametrize(
    ("path", "rules"),
    [(path, rules) for path, rules, _ in THREATS],
    ids=[threat for _, _, threat in THREATS],
)
def test_file_is_refused_by_its_rule_alone(path: str, rules: str) -> None:
    findings = errors_of(path.partition("/")[0], (HERE / path).read_bytes())
    assert {finding.rule for finding in findings} == set(rules.split())


@pytest.mark.parametrize("path", [path for path, _, _ in THREATS])
def test_findings_are_one_printable_line(path: str) -> None:
    """Nothing of a hostile file may move a reader's cursor or forge another finding."""
    for finding in errors_of(path.partition("/")[0], (HERE / path).read_bytes()):
        assert str(finding).isprintable()
        assert finding.rule in rule_ids()
        assert min(finding.line, finding.column) >= 1


def test_every_file_is_listed_once() -> None:
    listed = sorted(path for path, _, _ in THREATS)
    there = sorted(path.relative_to(HERE).as_posix() for path in HERE.glob("*/*.yaml"))
    assert listed == there


def test_good_groups_have_no_finding() -> None:
    """Otherwise the files above might be refused for what stands beside them."""
    assert load_texts({"features/groups.yaml": GROUPS}).findings == []


# Too big to keep in a repository, or made by count.
GENERATED: dict[str, tuple[Callable[[], bytes], str]] = {
    "ten megabytes of one group": (lambda: GROUPS * 40_000, "FILE_SIZE_BOUNDED"),
    "ten megabytes of one scalar": (lambda: b"a: " + b"x" * 10_000_000, "FILE_SIZE_BOUNDED"),
    "a megabyte of opening brackets": (lambda: b"[" * FILE_BYTES_MAX, "YAML_SYNTAX"),
    "a megabyte of opening braces": (lambda: b"{a: " * (FILE_BYTES_MAX // 4), "YAML_DEPTH_BOUNDED"),
    "a block nested a thousand deep": (
        lambda: b"".join(b" " * depth + b"a:\n" for depth in range(1_000)),
        "YAML_DEPTH_BOUNDED",
    ),
    "a megabyte of unknown members": (
        lambda: GROUPS + b"".join(b"  m%d: 1\n" % index for index in range(80_000)),
        "YAML_NODES_BOUNDED",
    ),
    "as many unknown members as are read": (
        lambda: GROUPS + b"".join(b"  m%d: 1\n" % index for index in range(9_900)),
        "MEMBER_KNOWN",
    ),
    "as many unknown fields as are read": (
        lambda: GROUPS + b"".join(b"    %c%d: {}\n" % (0x61 + i % 9, i) for i in range(9_900)),
        "MEMBER_REQUIRED",
    ),
    "one key a hundred thousand times": (lambda: b"a: 1\n" * 100_000, "YAML_NO_DUPLICATE_KEYS"),
    "a megabyte of almost-numbers": (
        lambda: b"a: [" + b"1_1:1_1., " * 100_000 + b"1]",
        "YAML_NODES_BOUNDED",
    ),
    "one plain scalar of a megabyte of digits": (
        lambda: b"live::a: " + b"1" * (FILE_BYTES_MAX - 9),
        "VALUE_TYPED",
    ),
    "a megabyte of question marks": (lambda: b"? " * (FILE_BYTES_MAX // 2), "YAML_DEPTH_BOUNDED"),
    "a megabyte of anchors": (
        lambda: b"".join(b"a%d: &x 1\n" % index for index in range(70_000)),
        "YAML_NO_ALIASES",
    ),
}


@pytest.mark.parametrize("threat", GENERATED)
def test_big_file_is_refused(threat: str) -> None:
    make, rule = GENERATED[threat]
    findings = errors_of("features", make())
    assert rule in {finding.rule for finding in findings}


def test_one_file_has_a_bounded_number_of_findings_of_yaml() -> None:
    findings = errors_of("features", b"a: 1\n" * 10_000)
    assert sum(finding.rule.startswith("YAML_") for finding in findings) == PROBLEMS_MAX


def test_nesting_at_the_limit_is_read() -> None:
    text = b"[" * (DEPTH_MAX - 1) + b"]" * (DEPTH_MAX - 1)
    assert "YAML_DEPTH_BOUNDED" not in {f.rule for f in errors_of("features", b"a: " + text)}


def test_endless_file_is_read_up_to_the_limit(tmp_path: Path) -> None:
    """A sparse file of a terabyte costs a megabyte."""
    (tmp_path / "features").mkdir()
    with (tmp_path / "features" / "a.yaml").open("wb") as file:
        file.truncate(1 << 40)
    assert [f.rule for f in load_registry(tmp_path).findings] == ["FILE_SIZE_BOUNDED"]


def test_pipe_in_the_registry_does_not_stop_the_check(tmp_path: Path) -> None:
    """Opening a pipe that nobody writes to would wait for ever."""
    import os

    (tmp_path / "features").mkdir()
    os.mkfifo(tmp_path / "features" / "a.yaml")
    assert [f.rule for f in load_registry(tmp_path).findings] == ["REGISTRY_HAS_GROUPS"]


def test_link_that_leads_back_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "again").symlink_to(tmp_path / "features")
    (tmp_path / "features" / "a.yaml").write_bytes(GROUPS)
    assert len(load_registry(tmp_path).registry.groups) == 2

"""Strict YAML: what is read, where it stands, and that the two parsers agree."""

from __future__ import annotations

import pytest
import yaml

from headrace.registry.yaml_tree import (
    AMBIGUOUS,
    Mark,
    YamlMapping,
    YamlNode,
    YamlScalar,
    YamlSequence,
    is_ambiguous,
    parse_yaml,
    plain_values,
    resolve,
    shown,
)


def root_of(text: str) -> YamlNode:
    parsed = parse_yaml(text.encode())
    assert parsed.problems == []
    assert parsed.root is not None
    return parsed.root


def plain(text: str) -> YamlScalar:
    return YamlScalar(Mark(1, 1), text, plain=True)


def test_every_node_knows_its_place() -> None:
    root = root_of("# words\na: 1\nb:\n  - x\n  - {c: 'y'}\n")
    assert isinstance(root, YamlMapping)
    assert root.entries["a"] == (Mark(2, 1), YamlScalar(Mark(2, 4), "1", plain=True))
    mark, items = root.entries["b"]
    assert mark == Mark(3, 1)
    assert isinstance(items, YamlSequence)
    inner = items.items[1]
    assert isinstance(inner, YamlMapping)
    assert inner.entries["c"] == (Mark(5, 6), YamlScalar(Mark(5, 9), "y", plain=False))


def test_columns_count_characters_not_bytes() -> None:
    root = root_of('{"é": 1, b: 2}')
    assert isinstance(root, YamlMapping)
    assert root.entries["b"][0] == Mark(1, 10)


@pytest.mark.parametrize(
    "text",
    ["a: 1", "- 1\n- [2, {b: c}]", "a: |\n  x\n  y\nb: >\n  z\n", "'quoted'", "", "a: *b", "a: [1"],
)
def test_the_pure_parser_of_pyyaml_reads_the_same(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where PyYAML was built without libyaml, nothing but speed is different."""
    with_libyaml = parse_yaml(text.encode())
    monkeypatch.setattr(yaml, "__with_libyaml__", False)
    without = parse_yaml(text.encode())
    assert without.root == with_libyaml.root
    assert [p.rule for p in without.problems] == [p.rule for p in with_libyaml.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("false", False),
        ("null", None),
        ("0", 0),
        ("-12", -12),
        ("9223372036854775807", 9223372036854775807),
        ("1.5", 1.5),
        ("-1e3", -1000.0),
        ("text", "text"),
        ("30d", "30d"),
        ("127.0.0.1", "127.0.0.1"),
        ("1.2.3", "1.2.3"),
        ("e5", "e5"),
        ("-", "-"),
        ("v1", "v1"),
        ("nope", "nope"),
        ("NO", AMBIGUOUS),
        ("12:30", AMBIGUOUS),
        ("2000-1-1", AMBIGUOUS),
        ("017", AMBIGUOUS),
        ("1_0", AMBIGUOUS),
        ("", AMBIGUOUS),
    ],
)
def test_plain_scalars_resolve_to_jsons_values_or_to_nothing(text: str, value: object) -> None:
    resolved = resolve(plain(text))
    assert resolved == value
    assert type(resolved) is type(value)


def test_whatever_pyyaml_gives_a_type_is_a_json_literal_or_ambiguous() -> None:
    """An independent reading of YAML 1.1: PyYAML's own resolver over some 48,000 short texts."""
    alphabet = "01789_.:-+eExobnay~=<TZ"
    ends = ("", "0", "n", "_")
    texts = {a + b + c + d for a in alphabet for b in alphabet for c in alphabet for d in ends}
    resolver = yaml.resolver.Resolver()
    for text in texts | set(alphabet) | {"yes", "No", "ON", "off", "True", "NULL", ".inf", ".NaN"}:
        tag = resolver.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
        if tag != "tag:yaml.org,2002:str":
            ours = resolve(plain(text))
            assert ours is AMBIGUOUS or isinstance(ours, (int, float)), text


def test_quoted_scalars_are_text() -> None:
    scalar = YamlScalar(Mark(1, 1), "NO", plain=False)
    assert resolve(scalar) == "NO"
    assert not is_ambiguous(scalar)


def test_plain_values_of_a_tree() -> None:
    assert plain_values(root_of("a: [1, x]\nb: {c: 2.5}\n")) == (
        {"a": [1, "x"], "b": {"c": 2.5}},
        [],
    )


def test_plain_values_report_what_is_ambiguous() -> None:
    _, problems = plain_values(root_of("a: [NO, 12:30]"))
    assert [problem.mark for problem in problems] == [Mark(1, 5), Mark(1, 9)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("abc", "abc"), ("a\nb", "a\\nb"), ("\x1b[2J", "\\x1b[2J"), ("x" * 99, "x" * 57 + "...")],
)
def test_shown_text_is_short_and_printable(text: str, expected: str) -> None:
    assert shown(text) == expected


def test_line_ends_of_windows_are_read_alike() -> None:
    assert root_of("a: 1\r\nb: [2,\r\n  3]\r\n") == root_of("a: 1\nb: [2,\n  3]\n")

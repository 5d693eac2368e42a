"""Single values: the forms that are taken, and their values in the catalog document."""

from __future__ import annotations

import pytest

from headrace.registry import values
from headrace.registry.field_types import parse_type
from headrace.registry.values import UNREADABLE, Reading
from headrace.registry.yaml_tree import YamlNode, parse_yaml


def node_of(text: str) -> YamlNode:
    root = parse_yaml(text.encode()).root
    assert root is not None
    return root


@pytest.mark.parametrize(
    ("declared", "text", "value"),
    [
        ("Boolean", "true", True),
        ("Integer", "-2147483648", -(2**31)),
        ("Long", "9223372036854775807", 2**63 - 1),
        ("Float", "3", 3.0),
        ("Float", "-1.5e3", -1500.0),
        ("Double", "1e308", 1e308),
        ("Text", "words", "words"),
        ("Text", '"NO"', "NO"),
        ("Text", '""', ""),
        ("Text", "|\n  a\n  b\n", "a\nb\n"),
        ("Bytes", '""', ""),
        ("Bytes", '"3q2+7w=="', "3q2+7w=="),
        ("Date", "2000-02-29", "2000-02-29"),
        ("Date", '"0001-01-01"', "0001-01-01"),
        ("Timestamp", "2000-01-31T12:30:00Z", "2000-01-31T12:30:00Z"),
        ("Timestamp", '"2000-01-31T12:30:00.5Z"', "2000-01-31T12:30:00.500000Z"),
        ("Timestamp", '"2000-01-31T12:30:00.000Z"', "2000-01-31T12:30:00Z"),
        ("List<Long>", "[]", []),
        ("List<Text>", '[a, "NO"]', ["a", "NO"]),
        ("Vector<2>", "[1, 2.5]", [1.0, 2.5]),
    ],
)
def test_default_takes_the_form_that_answers_print(declared: str, text: str, value: object) -> None:
    """semantics 10"""
    kind = parse_type(declared)
    assert kind is not None
    reading = Reading("a.yaml")
    read = values.default_value(reading, node_of(text), kind)
    assert (read, type(read), reading.findings) == (value, type(value), [])


@pytest.mark.parametrize(
    ("declared", "text"),
    [
        ("Boolean", '"true"'),
        ("Boolean", "[true]"),
        ("Integer", "2147483648"),
        ("Integer", "true"),
        ("Integer", "null"),
        ("Long", "1e3"),
        ("Float", "true"),
        ("Float", '"1.5"'),
        ("Float", "3.5e38"),
        ("Double", "1e400"),
        ("Text", "5"),
        ("Bytes", '"é"'),
        ("Bytes", '"abc"'),
        ("Date", '"2001-02-29"'),
        ("Date", '"2000-1-1"'),
        ("Timestamp", '"2000-01-31T24:30:00Z"'),
        ("Timestamp", '"2000-01-31T12:30:00+01:00"'),
        ("Timestamp", '"2000-01-31"'),
        ("List<Long>", "5"),
        ("List<Long>", '[1, "2"]'),
        ("Vector<2>", "[1]"),
        ("Vector<2>", "[1, {a: b}]"),
    ],
)
def test_default_of_another_form_is_a_finding(declared: str, text: str) -> None:
    kind = parse_type(declared)
    assert kind is not None
    reading = Reading("a.yaml")
    assert values.default_value(reading, node_of(text), kind) is UNREADABLE
    assert [finding.rule for finding in reading.findings] == ["FIELD_DEFAULT_TYPED"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("0s", 0), ("250ms", 250), ("1m", 60_000), ("2h", 7_200_000), ("30d", 2_592_000_000),
     ('"10m"', 600_000), ("999999999999d", values.DURATION_MAX_MS)],
)  # fmt: skip
def test_durations(text: str, value: int) -> None:
    assert values.duration_ms(Reading(""), node_of(text)) == value


@pytest.mark.parametrize(
    "text", ["30", "d", "-1d", "1.5d", "1w", "1 d", "01d", "[1d]", '""', "1d1h"]
)
def test_other_durations_are_findings(text: str) -> None:
    reading = Reading("")
    assert values.duration_ms(reading, node_of(text)) is UNREADABLE
    assert len(reading.findings) == 1


@pytest.mark.parametrize(
    ("reader", "text", "value"),
    [
        (values.text, '"5"', "5"),
        (values.text, '""', ""),
        (values.flag, "false", False),
        (values.integer, "-5", -5),
        (values.number, "0.9", 0.9),
        (values.number, "1", 1),
        (values.texts, "[a, 'b']", ("a", "b")),
        (values.text_by_text, "{a: b}", {"a": "b"}),
    ],
)
def test_values_of_members(reader: values.Reader, text: str, value: object) -> None:
    assert reader(Reading(""), node_of(text)) == value


@pytest.mark.parametrize(
    ("reader", "text", "expected"),
    [
        (values.text, "5", "expected text, got `5`"),
        (values.text, "[a]", "expected text, got a list"),
        (values.name_text, '""', "expected text, got an empty text"),
        (values.flag, '"true"', 'expected `true` or `false`, got `"true"`'),
        (values.flag, "1", "expected `true` or `false`, got `1`"),
        (values.integer, "true", "expected an integer, got `true`"),
        (values.integer, "1.0", "expected an integer, got `1.0`"),
        (values.number, "true", "expected a number, got `true`"),
        (values.number, "1e999", "expected a number, got `1e999`"),
        (values.texts, "a", "expected a list, got `a`"),
        (values.texts, "[5]", "expected text, got `5`"),
        (values.text_by_text, "[a]", "expected a mapping, got a list"),
        (values.text_by_text, "{a: 5}", "expected text, got `5`"),
        (values.text, "{a: b}", "expected text, got a mapping"),
    ],
)
def test_values_of_another_kind_are_findings(
    reader: values.Reader, text: str, expected: str
) -> None:
    reading = Reading("")
    reader(reading, node_of(text))
    assert [(f.rule, f.sentence) for f in reading.findings] == [("VALUE_TYPED", expected)]


@pytest.mark.parametrize(
    ("declared", "text", "rule", "told"),
    [
        ("Boolean", "yes", "SCALAR_UNAMBIGUOUS", "; write `true` or `false` without quotes"),
        ("Boolean", '"yes"', "FIELD_DEFAULT_TYPED", "; write `true` or `false` without quotes"),
        ("List<Boolean>", "[On]", "SCALAR_UNAMBIGUOUS", "; write `true` or `false` without quotes"),
        ("Double", ".inf", "SCALAR_UNAMBIGUOUS", "; write a number such as `0.5` without quotes"),
        ("Text", "NO", "SCALAR_UNAMBIGUOUS", "; quote it"),
    ],
)
def test_a_default_that_is_refused_is_told_with_the_form_to_write(
    declared: str, text: str, rule: str, told: str
) -> None:
    kind = parse_type(declared)
    assert kind is not None
    reading = Reading("a.yaml")
    values.default_value(reading, node_of(text), kind)
    (finding,) = reading.findings
    assert finding.rule == rule
    assert finding.sentence.endswith(told)


def test_a_flag_that_libraries_read_differently_is_not_told_to_be_quoted() -> None:
    reading = Reading("a.yaml")
    values.flag(reading, node_of("yes"))
    values.text(reading, node_of("yes"))
    flag, text = reading.findings
    assert flag.sentence.endswith("; expected `true` or `false`")
    assert text.sentence.endswith("; quote it if it is text")

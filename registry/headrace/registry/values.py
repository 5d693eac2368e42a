"""Readers of single values: a YAML node to the value that its member declares, or a finding.

A reader never guesses: `5` where text is declared and `"5"` where a number is declared are errors.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import math
import re
import struct
from collections.abc import Callable
from typing import Final

from headrace.registry.field_types import FieldType
from headrace.registry.model import Finding
from headrace.registry.yaml_tree import (
    Ambiguous,
    Mark,
    YamlMapping,
    YamlNode,
    YamlProblem,
    YamlScalar,
    YamlSequence,
    ambiguity,
    resolve,
    shown,
)

DURATION_MAX_MS: Final = 10**15
"""Only a bound for arithmetic; the rules have tighter ones."""

FINDINGS_MAX: Final = 500
"""After so many findings no further members of a file are read."""

_DURATION = re.compile(r"(0|[1-9][0-9]{0,11})(ms|s|m|h|d)\Z")
_UNIT_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


TEXT: Final = "text"


class Unreadable:
    """What a reader answers when it has reported a finding instead of a value."""


UNREADABLE: Final = Unreadable()


class Reading:
    """One file being read: where findings of values go."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.findings: list[Finding] = []

    @property
    def is_full(self) -> bool:
        """Whether more findings would only bury the first ones."""
        return len(self.findings) >= FINDINGS_MAX

    def report(self, mark: Mark, rule: str, sentence: str) -> Unreadable:
        self.findings.append(Finding(self.path, mark.line, mark.column, rule, sentence))
        return UNREADABLE

    def report_problem(self, problem: YamlProblem) -> Unreadable:
        return self.report(*problem)

    def wrong(self, node: YamlNode, expected: str) -> Unreadable:
        """Report a value of another kind than expected."""
        if isinstance(node, YamlScalar):
            value = resolve(node)
            if isinstance(value, Ambiguous) and expected == TEXT:
                return self.report_problem(ambiguity(node))
            if isinstance(value, Ambiguous):
                return self.report_problem(ambiguity(node, f"expected {expected}"))
        return self.report(node.mark, "VALUE_TYPED", f"expected {expected}, got {described(node)}")


Reader = Callable[[Reading, YamlNode], object]
"""Reads a node; `UNREADABLE` after a finding."""


def described(node: YamlNode) -> str:
    """A node in a message."""
    if isinstance(node, YamlMapping):
        return "a mapping"
    if isinstance(node, YamlSequence):
        return "a list"
    if not node.text:
        return "nothing" if node.plain else "an empty text"
    return f"`{shown(node.text)}`" if node.plain else f'`"{shown(node.text)}"`'


def text(reading: Reading, node: YamlNode) -> str | Unreadable:
    """Text, quoted or plain. Plain text must be text for every YAML library."""
    if isinstance(node, YamlScalar):
        value = resolve(node)
        if isinstance(value, str):
            return value
    return reading.wrong(node, TEXT)


def name_text(reading: Reading, node: YamlNode) -> str | Unreadable:
    """Text that is not empty."""
    value = text(reading, node)
    return value if value else reading.wrong(node, TEXT)


def flag(reading: Reading, node: YamlNode) -> bool | Unreadable:
    if isinstance(node, YamlScalar) and node.plain:
        value = resolve(node)
        if isinstance(value, bool):
            return value
    return reading.wrong(node, "`true` or `false`")


def integer(reading: Reading, node: YamlNode) -> int | Unreadable:
    if isinstance(node, YamlScalar) and node.plain:
        value = resolve(node)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return reading.wrong(node, "an integer")


def number(reading: Reading, node: YamlNode) -> float | Unreadable:
    if isinstance(node, YamlScalar) and node.plain:
        value = resolve(node)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    return reading.wrong(node, "a number")


def duration_ms(reading: Reading, node: YamlNode) -> int | Unreadable:
    """`30d`, `2h`, `1m`, `10s`, `250ms` or `0s`."""
    if isinstance(node, YamlScalar):
        match = _DURATION.match(node.text)
        if match is not None:
            return min(int(match[1]) * _UNIT_MS[match[2]], DURATION_MAX_MS)
    return reading.wrong(node, "a duration such as `30d`, `2h`, `1m`, `10s` or `250ms`")


def texts(reading: Reading, node: YamlNode) -> tuple[str, ...] | Unreadable:
    """A list of texts."""
    if not isinstance(node, YamlSequence):
        return reading.wrong(node, "a list")
    values = [name_text(reading, item) for item in node.items]
    return tuple(value for value in values if isinstance(value, str))


def text_by_text(reading: Reading, node: YamlNode) -> dict[str, str] | Unreadable:
    """A mapping of names to names."""
    if not isinstance(node, YamlMapping):
        return reading.wrong(node, "a mapping")
    values = {key: name_text(reading, value) for key, (_, value) in node.entries.items()}
    return {key: value for key, value in values.items() if isinstance(value, str)}


def default_value(reading: Reading, node: YamlNode, declared: FieldType) -> object:
    """A default in the form answers print (semantics 10); `UNREADABLE` after a finding."""
    if not declared.is_list:
        return _scalar_default(reading, node, declared.scalar.name)
    if not isinstance(node, YamlSequence):
        return _mistyped(reading, node, declared.name)
    if declared.size is not None and len(node.items) != declared.size:
        sentence = f"expected {declared.size} floats for `{declared.name}`, got {len(node.items)}"
        return reading.report(node.mark, "FIELD_DEFAULT_TYPED", sentence)
    items = [_scalar_default(reading, item, declared.scalar.name) for item in node.items]
    return UNREADABLE if UNREADABLE in items else items


def _scalar_default(reading: Reading, node: YamlNode, scalar: str) -> object:
    if not isinstance(node, YamlScalar):
        return _mistyped(reading, node, scalar)
    value = _SCALAR_DEFAULTS[scalar](node)
    if value is None:
        return _mistyped(reading, node, scalar)
    return value


def _mistyped(reading: Reading, node: YamlNode, declared: str) -> Unreadable:
    form = _FORMS.get(declared)
    if isinstance(node, YamlScalar) and isinstance(resolve(node), Ambiguous):
        return reading.report_problem(ambiguity(node, form) if form else ambiguity(node))
    sentence = f"expected a default of type `{declared}`, got {described(node)}"
    return reading.report(
        node.mark, "FIELD_DEFAULT_TYPED", f"{sentence}; {form}" if form else sentence
    )


def _boolean_default(node: YamlScalar) -> bool | None:
    value = resolve(node) if node.plain else None
    return value if isinstance(value, bool) else None


def _whole_default(node: YamlScalar, bits: int) -> int | None:
    value = resolve(node) if node.plain else None
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if -(1 << (bits - 1)) <= value < 1 << (bits - 1) else None


def _double_default(node: YamlScalar) -> float | None:
    value = resolve(node) if node.plain else None
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if math.isfinite(value) else None


def _float_default(node: YamlScalar) -> float | None:
    value = _double_default(node)
    if value is None:
        return None
    try:
        struct.pack("<f", value)
    except OverflowError:
        return None
    return value


def _text_default(node: YamlScalar) -> str | None:
    value = resolve(node)
    return value if isinstance(value, str) else None


def _bytes_default(node: YamlScalar) -> str | None:
    try:
        raw = base64.b64decode(node.text, validate=True)
    except (binascii.Error, ValueError):
        return None
    # Unused bits of the last character must be zero, or one value has several texts.
    return node.text if base64.b64encode(raw).decode() == node.text else None


def _date_default(node: YamlScalar) -> str | None:
    if re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z", node.text) is None:
        return None
    try:
        return dt.date.fromisoformat(node.text).isoformat()
    except ValueError:
        return None


_INSTANT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,6}))?Z\Z"
)


def _timestamp_default(node: YamlScalar) -> str | None:
    match = _INSTANT.match(node.text)
    if match is None:
        return None
    try:
        dt.datetime.fromisoformat(match[1])
    except ValueError:
        return None
    # Answers print six digits, or none where all would be zero.
    fraction = (match[2] or "").ljust(6, "0")
    return f"{match[1]}Z" if fraction == "000000" else f"{match[1]}.{fraction}Z"


_SCALAR_DEFAULTS: Final[dict[str, Callable[[YamlScalar], object]]] = {
    "Boolean": _boolean_default,
    "Integer": lambda node: _whole_default(node, 32),
    "Long": lambda node: _whole_default(node, 64),
    "Float": _float_default,
    "Double": _double_default,
    "Text": _text_default,
    "Bytes": _bytes_default,
    "Date": _date_default,
    "Timestamp": _timestamp_default,
}

_FORMS: Final = {
    "Boolean": "write `true` or `false` without quotes",
    "Float": "write a number such as `0.5` without quotes",
    "Double": "write a number such as `0.5` without quotes",
    "Bytes": "write base64 with padding",
    "Date": "write `2000-01-31`",
    "Timestamp": "write `2000-01-31T12:30:00Z`",
    "Text": "quote it",
    "Integer": "write a whole number of 32 bits without quotes",
    "Long": "write a whole number of 64 bits without quotes",
}

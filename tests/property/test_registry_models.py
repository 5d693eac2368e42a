"""Random registries: valid ones reach the codec unharmed, and no text at all harms the loader."""

from __future__ import annotations

import base64
import datetime as dt
import json
import struct
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.codec import Catalog, encode_commands
from headrace.registry.catalog import CatalogDocument, decode_document, encode_document
from headrace.registry.compile import compile_registry
from headrace.registry.field_types import parse_type
from headrace.registry.load import load_texts
from headrace.registry.plan import make_plan
from headrace.registry.rules import rule_ids
from headrace.registry.yaml_tree import parse_yaml

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cf", "Zl", "Zp")))
SIDES = st.from_regex(r"[a-z][a-z0-9]{0,4}(-[a-z0-9]{1,3}){0,2}", fullmatch=True)
GROUP_NAMES = st.tuples(SIDES, SIDES).map("::".join)
FIELD_NAMES = st.from_regex(r"f[a-z0-9_]{0,8}", fullmatch=True)
FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=32)
MICROSECONDS = st.datetimes(timezones=st.just(dt.UTC))


def instant(at: dt.datetime) -> str:
    text = at.isoformat(timespec="microseconds" if at.microsecond else "seconds")
    return text.replace("+00:00", "Z")


DEFAULTS: dict[str, st.SearchStrategy[Any]] = {
    "Boolean": st.booleans(),
    "Integer": st.integers(-(2**31), 2**31 - 1),
    "Long": st.integers(-(2**63), 2**63 - 1),
    "Float": FLOATS,
    "Double": st.floats(allow_nan=False, allow_infinity=False),
    "Text": TEXTS,
    "Bytes": st.binary(max_size=20).map(lambda raw: base64.b64encode(raw).decode()),
    "Date": st.dates().map(dt.date.isoformat),
    "Timestamp": MICROSECONDS.map(instant),
}


@st.composite
def typed_defaults(draw: st.DrawFn) -> tuple[str, Any]:
    """A type and a default in the form answers print."""
    scalar = draw(st.sampled_from(sorted(DEFAULTS)))
    shape = draw(st.sampled_from(["scalar", "scalar", "list", "vector"]))
    if shape == "scalar":
        return scalar, draw(DEFAULTS[scalar])
    if shape == "list":
        return f"List<{scalar}>", draw(st.lists(DEFAULTS[scalar], max_size=4))
    items = draw(st.lists(FLOATS, min_size=1, max_size=4))
    return f"Vector<{len(items)}>", items


@st.composite
def fields(draw: st.DrawFn) -> dict[str, object]:
    name, default = draw(typed_defaults())
    members: dict[str, object] = {"type": name, "description": draw(TEXTS)}
    if draw(st.booleans()):
        members["nullable"] = True
    if "nullable" not in members or draw(st.booleans()):
        members["default_value"] = default
    return members


@st.composite
def registries(draw: st.DrawFn) -> dict[str, Any]:
    """Groups of random fields, as the mapping that their YAML says."""
    groups: dict[str, Any] = {}
    for name in draw(st.lists(GROUP_NAMES, min_size=1, max_size=3, unique=True)):
        keys = draw(st.lists(st.sampled_from(["Text", "Integer", "Long"]), min_size=1, max_size=3))
        schema: dict[str, object] = {
            f"key_{index}": {"type": kind, "is_key_field": True} for index, kind in enumerate(keys)
        }
        schema |= draw(st.dictionaries(FIELD_NAMES, fields(), max_size=6))
        schema["marker"] = {"type": "Long", "nullable": True}
        groups[name] = {"feature_type": "Object", "owner": "x", "schema": schema}
    return groups


def yaml_of(registry: dict[str, Any]) -> bytes:
    """JSON is YAML; every scalar is quoted, or a literal that both read alike."""
    return json.dumps(registry, ensure_ascii=False).encode()


def compiled(registry: dict[str, Any], base: CatalogDocument | None) -> CatalogDocument:
    loaded = load_texts({"features/a.yaml": yaml_of(registry)})
    assert loaded.errors == []
    return compile_registry(loaded.registry, base, now_ms=0)


def as_answers_print(value: object, declared: str) -> object:
    """A Python value in the form answers print; float32 as bytes, which compare exactly."""
    kind = parse_type(declared)
    assert kind is not None
    printed = json.loads(msgspec.json.encode(value))
    if kind.scalar.name != "Float" or printed is None:
        return printed
    items = printed if isinstance(printed, list) else [printed]
    return [struct.pack("<f", item) for item in items]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(registries())
def test_valid_registry_survives_the_way_to_the_codec(registry: dict[str, Any]) -> None:
    """Model → document → bytes → codec: names, types and every default arrive as they were written.

    A partial UPDATE makes a record whose other fields answer their defaults, so it is the codec
    that says what the defaults are.
    """
    document = compiled(registry, None)
    text = encode_document(document)
    assert decode_document(text) == document
    again = load_texts({"features/a.yaml": yaml_of(registry)}).registry
    assert make_plan(again, decode_document(text), now_ms=1).changes == ()
    catalog = Catalog(text)
    for group in document.groups:
        keys = {key.name: "k" if key.type == "Text" else 1 for key in group.keys}
        command = {
            "feature_name": group.name,
            "method": "UPDATE",
            "keys": keys,
            "values": {"marker": 1, "_last_updated_at_ms": 1},
        }
        batch = encode_commands(catalog, [json.dumps(command).encode()], now_ms=1)
        assert [rejection.message for rejection in batch.rejections] == []
        cells = [(mutation.field_id, mutation.cell) for mutation in batch.mutations()]
        record = catalog.fold_object(group.name, cells, delete_timestamp=None, now_ms=1)
        assert record is not None
        for field in group.fields:
            if field.name != "marker":
                told = as_answers_print(record.values[field.name], field.type)
                assert told == as_answers_print(field.default, field.type), field


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(registries(), registries())
def test_any_change_that_is_not_breaking_compiles(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    """Ids stay unique over all schemas, whatever came and went."""
    base = compiled(before, None)
    registry = load_texts({"features/a.yaml": yaml_of({**before, **after})}).registry
    plan = make_plan(registry, base, now_ms=0)
    document = compile_registry(registry, base, now_ms=0)
    ids = [group.id for group in document.groups]
    assert len(set(ids)) == len(ids)
    assert max(ids) < document.next_group_id
    for group in document.groups:
        meanings = {(field.id, field.name) for schema in group.schemas for field in schema.fields}
        assert len({field_id for field_id, _ in meanings}) == len(meanings)
    if plan.risk != "breaking":
        assert Catalog(encode_document(document)).generation == 2


YAML_PIECES = st.sampled_from(
    ["a", "live::x", ":", " ", "\n", "\n  ", "\n    ", "- ", "{", "}", "[", "]", ",", "'", '"',
     "&a", "*a", "!!str", "!x", "|", ">", "#", "?", "<<", "%YAML 1.1", "---", "...",
     "\t", "\\", "\x00", "é", "\u202e", "\ufeff", "NO", "12:30", "1_0", "~", "schema: ",
     "type: Long", "owner: x",
     "feature_type: Object", "default_value: ", "is_key_field: true", "ttl: 1d"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(YAML_PIECES, max_size=30).map("".join))
def test_no_text_of_yaml_pieces_harms_the_loader(text: str) -> None:
    for path in ("features/a.yaml", "services/a.yaml", "access.yaml"):
        for finding in load_texts({path: text.encode()}).findings:
            assert finding.rule in rule_ids()
            assert str(finding).isprintable()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_harm_the_parser(text: bytes) -> None:
    parsed = parse_yaml(text)
    assert parsed.root is None or parsed.problems == [] or len(parsed.problems) <= 100

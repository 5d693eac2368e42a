"""Each rule of change has a folder `rules/<id>/` of registries; to learn a rule, open it.

`previous*.yaml` are published one after another, then `current.yaml` is planned; `expected.txt` is
what `plan` says. Services, where a rule is about them, stand in `*.services.yaml`.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from headrace.registry.catalog import CatalogDocument
from headrace.registry.compatibility import COMPATIBILITY_RULES, WIDENINGS
from headrace.registry.compile import compile_registry
from headrace.registry.explain import place_breaches
from headrace.registry.field_types import SCALARS, parse_type
from headrace.registry.load import load_texts
from headrace.registry.model import Registry
from headrace.registry.plan import Plan, make_plan

HERE = Path(__file__).parent / "rules"

GROUP = """\
live::host-stat-v1:
  feature_type: Object
  owner: "shawn"
  schema:
    user_id: {{type: Text, is_key_field: true}}
    {fields}
"""


def registry_of(folder: Path, name: str) -> Registry:
    texts = {"features/groups.yaml": (folder / f"{name}.yaml").read_bytes()}
    services = folder / f"{name}.services.yaml"
    if services.exists():
        texts["services/services.yaml"] = services.read_bytes()
    loaded = load_texts(texts)
    assert loaded.errors == []
    return loaded.registry


def plan_of(folder: Path) -> tuple[Plan, Registry]:
    base: CatalogDocument | None = None
    for name in sorted(path.stem for path in folder.glob("previous*.yaml") if "." not in path.stem):
        base = compile_registry(registry_of(folder, name), base, now_ms=0)
    current = registry_of(folder, "current")
    return make_plan(current, base, now_ms=0), current


@pytest.mark.parametrize("rule", [rule.id for rule in COMPATIBILITY_RULES])
def test_rule_says_what_its_folder_expects(rule: str) -> None:
    plan, registry = plan_of(HERE / rule)
    assert {breach.rule for breach in plan.breaches} == {rule}
    said = "\n".join(str(placed) for placed in place_breaches(plan.breaches, registry)) + "\n"
    assert said == (HERE / rule / "expected.txt").read_text()


@pytest.mark.parametrize("rule", [rule.id for rule in COMPATIBILITY_RULES])
def test_registry_that_stays_breaks_no_rule(rule: str) -> None:
    current = registry_of(HERE / rule, "current")
    plan = make_plan(current, compile_registry(current, None, now_ms=0), now_ms=1)
    assert (plan.risk, plan.breaches, plan.steps) == ("none", (), ())


def test_every_folder_belongs_to_a_rule() -> None:
    assert {path.name for path in HERE.iterdir()} == {rule.id for rule in COMPATIBILITY_RULES}


def field_plan(before: str, after: str) -> Plan:
    base, current = (
        load_texts({"features/a.yaml": GROUP.format(fields=fields).encode()}).registry
        for fields in (before, after)
    )
    return make_plan(current, compile_registry(base, None, now_ms=0), now_ms=0)


TYPES = [*SCALARS, *(f"List<{name}>" for name in SCALARS), "Vector<2>", "Vector<3>"]


@pytest.mark.parametrize(("before", "after"), list(itertools.permutations(TYPES, 2)))
def test_type_changes_are_refused_but_for_exact_widenings(before: str, after: str) -> None:
    assert parse_type(before) is not None
    plan = field_plan(
        f'level: {{type: "{before}", nullable: true}}',
        f'level: {{type: "{after}", nullable: true}}',
    )
    broken = [breach.rule for breach in plan.breaches]
    assert broken == ([] if (before, after) in WIDENINGS else ["FIELD_SAME_TYPE"])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a: {type: Long, default_value: 1}", "a: {type: Long, default_value: 2}"),
        (
            "a: {type: Long, nullable: true}",
            "a: {type: Long, nullable: true}\n    b: {type: Long, default_value: 0}",
        ),
        (
            'a: {type: Long, nullable: true}\n    b: {type: Long, nullable: true, deprecated: "x"}',
            "a: {type: Long, nullable: true}",
        ),
        (
            "a: {type: Long, nullable: true}\n    b: {type: Long, nullable: true}",
            "b: {type: Long, nullable: true}\n    a: {type: Long, nullable: true}",
        ),
        ("a: {type: Long, nullable: true}", "a: {type: Long, nullable: true, pii: true}"),
        ("a: {type: Long, nullable: true}", "a: {type: Long, nullable: true}\n  ttl: 1d"),
        (
            "a: {type: Long, nullable: true}\n  ttl: 2d",
            "a: {type: Long, nullable: true}\n  ttl: 1d",
        ),
        ("a: {type: Long, nullable: true}\n  ttl: 2d", "a: {type: Long, nullable: true}"),
    ],
    ids=[
        "another default",
        "a new field",
        "a deprecated field goes",
        "another order",
        "words about a field",
        "a first ttl",
        "a shorter ttl",
        "no ttl any more",
    ],
)
def test_compatible_change_breaks_nothing(before: str, after: str) -> None:
    plan = field_plan(before, after)
    assert (plan.risk, plan.breaches) == ("compatible", ())


def test_wire_rules_stand_even_when_accepted() -> None:
    """Acceptance is for callers who would notice, never for bytes that could not be read."""
    plan = field_plan("a: {type: Long, nullable: true}", "a: {type: Text, nullable: true}")
    assert [breach.rule for breach in plan.refused({"FIELD_SAME_TYPE"})] == ["FIELD_SAME_TYPE"]


def test_source_rules_yield_when_accepted() -> None:
    plan = field_plan(
        "a: {type: Long, nullable: true}\n    b: {type: Long, nullable: true}",
        "a: {type: Long, nullable: true}",
    )
    assert [breach.rule for breach in plan.refused()] == ["FIELD_DEPRECATED_FIRST"]
    assert plan.refused({"FIELD_DEPRECATED_FIRST"}) == []

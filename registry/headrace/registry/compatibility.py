"""Rules of change, as data: what `apply` refuses, and why.

Two levels. `WIRE`: bytes that lie in a store, a cache or a log could no longer be read as what they
are; such a change is always refused. `SOURCE`: the bytes stay readable but a caller, a producer or
a model would notice; `apply --accept RULE_ID` makes it all the same. Every rule has a pair of
registries under `tests/unit/registry/rules/<id>/`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple

from headrace.registry import diff
from headrace.registry.catalog import Service, ServiceRead
from headrace.registry.diff import Change

Level = Literal["WIRE", "SOURCE"]


class Broken(NamedTuple):
    """What was wrong and what to do instead."""

    sentence: str
    remedy: str


class CompatibilityRule(NamedTuple):
    """`check` answers None for a change that keeps the rule, or that it is not about."""

    id: str
    level: Level
    purpose: str
    check: Callable[[Change], Broken | None]


class Breach(NamedTuple):
    """A rule broken by a change."""

    rule: str
    level: Level
    part: str
    field: str | None
    sentence: str
    remedy: str


def find_breaches(changes: Sequence[Change]) -> list[Breach]:
    """Every breach of every change, in the order of changes."""
    return [
        Breach(rule.id, rule.level, change.part, change.field, *broken)
        for change in changes
        for rule in COMPATIBILITY_RULES
        if (broken := rule.check(change)) is not None
    ]


WIDENINGS: Final = {
    ("Integer", "Long"),
    ("Integer", "Double"),
    ("Float", "Double"),
    ("List<Integer>", "List<Long>"),
    ("List<Integer>", "List<Double>"),
    ("List<Float>", "List<Double>"),
}
"""Type changes that the codec follows when it reads old bytes (Avro 1.12, "Schema Resolution").

Only exact ones: Integer to Float rounds above 2^24, Long to Double above 2^53.
"""


def _same_feature_type(change: Change) -> Broken | None:
    if not isinstance(change, diff.GroupMemberChanged) or change.member != "feature_type":
        return None
    return Broken(
        f"`{change.part}` was {change.before} and is {change.after} here",
        "declare a new group with another -vN; rows of one type cannot be read as the other",
    )


def _same_key(change: Change) -> Broken | None:
    if not isinstance(change, diff.KeysChanged):
        return None
    before = ", ".join(f"{key.name} {key.type}" for key in change.before)
    after = ", ".join(f"{key.name} {key.type}" for key in change.after)
    if before == after:
        return None
    return Broken(
        f"`{change.part}` had the key ({before}) and has ({after}) here",
        "declare a new group with another -vN; stored keys cannot be rewritten in place",
    )


def _group_name_not_reused(change: Change) -> Broken | None:
    if not isinstance(change, diff.GroupAdded):
        return None
    if all(gone.name != change.part for gone in change.retired):
        return None
    return Broken(
        f"`{change.part}` was removed earlier and its rows may still be there",
        "use another name, such as the next -vN",
    )


def _field_same_type(change: Change) -> Broken | None:
    if not isinstance(change, diff.FieldMemberChanged) or change.member != "type":
        return None
    if (change.before, change.after) in WIDENINGS:
        return None
    return Broken(
        f"`{change.part}.{change.field}` was {change.before} and is {change.after} here",
        "add a new field and deprecate this one; "
        f"stored {change.before} cannot be read as {change.after}",
    )


def _field_name_not_reused(change: Change) -> Broken | None:
    if not isinstance(change, diff.FieldAdded):
        return None
    if all(gone.name != change.field for gone in change.retired):
        return None
    return Broken(
        f"`{change.part}.{change.field}` was removed earlier and stored rows may still hold it",
        "use another name",
    )


def _group_no_delete(change: Change) -> Broken | None:
    if not isinstance(change, diff.GroupRemoved):
        return None
    return Broken(
        f"`{change.part}` is live and is not in this registry",
        "keep it, or accept that its readers fail and that its name never comes back",
    )


def _field_deprecated_first(change: Change) -> Broken | None:
    if not isinstance(change, diff.FieldRemoved) or change.before.deprecated is not None:
        return None
    return Broken(
        f"`{change.part}.{change.field}` is removed and was never deprecated",
        'publish it with `deprecated: "why, until when"` first, then remove it',
    )


def _field_null_allowed(change: Change) -> Broken | None:
    if not isinstance(change, diff.FieldMemberChanged) or change.member != "nullable":
        return None
    if change.after:
        return Broken(
            f"`{change.part}.{change.field}` never was null and may be null here",
            "add a new nullable field, or accept that readers meet null",
        )
    return Broken(
        f"`{change.part}.{change.field}` may be null and may not be here",
        "keep `nullable: true`, or accept that commands with null are refused and that stored "
        "nulls answer the default",
    )


def _history_keeps_events(change: Change) -> Broken | None:
    if not isinstance(change, diff.GroupMemberChanged) or change.member != "max_events":
        return None
    before, after = change.before, change.after
    if not isinstance(before, int) or not isinstance(after, int) or after >= before:
        return None
    return Broken(
        f"`{change.part}` kept {before} events and keeps {after} here",
        "keep `max_events`, or accept that requests with a higher `limit` are refused",
    )


def _service_no_delete(change: Change) -> Broken | None:
    if not isinstance(change, diff.ServiceRemoved):
        return None
    return Broken(
        f"service `{change.part}` is live and is not in this registry",
        "keep it until nobody calls it, then accept this",
    )


def _service_same_request_keys(change: Change) -> Broken | None:
    if not isinstance(change, diff.ServiceChanged):
        return None
    before, after = set(change.request_keys_before), set(change.request_keys_after)
    if before == after:
        return None
    return Broken(
        f"callers of `{change.part}` send {_names(before)} and would have to send {_names(after)}",
        "declare the next -vN of the service",
    )


def _service_same_results(change: Change) -> Broken | None:
    if not isinstance(change, diff.ServiceChanged):
        return None
    before, after = change.before, change.after
    if _results(before) == _results(after)[: len(before.reads)] and _fields_grow(before, after):
        return None
    return Broken(
        f"results of `{change.part}` would have other places, names or fields",
        "append reads and fields at the end, or declare the next -vN of the service",
    )


def _results(service: Service) -> list[tuple[str, str | None]]:
    return [(read.feature_group, read.alias) for read in service.reads]


def _fields_grow(before: Service, after: Service) -> bool:
    return all(_prefix(old, new) for old, new in zip(before.reads, after.reads, strict=False))


def _prefix(before: ServiceRead, after: ServiceRead) -> bool:
    if before.fields is None or after.fields is None:
        return before.fields == after.fields
    return before.fields == after.fields[: len(before.fields)]


def _names(names: set[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


COMPATIBILITY_RULES: Final = (
    CompatibilityRule(
        "GROUP_SAME_FEATURE_TYPE", "WIRE", "An Object stays an Object.", _same_feature_type
    ),
    CompatibilityRule("GROUP_SAME_KEY", "WIRE", "A key keeps its fields and types.", _same_key),
    CompatibilityRule(
        "GROUP_NAME_REUSED", "WIRE", "A removed group's name is spent.", _group_name_not_reused
    ),
    CompatibilityRule(
        "FIELD_SAME_TYPE", "WIRE", "A type stays or widens exactly.", _field_same_type
    ),
    CompatibilityRule(
        "FIELD_NAME_REUSED",
        "WIRE",
        "A removed field's name is spent (semantics 6).",
        _field_name_not_reused,
    ),
    CompatibilityRule("GROUP_NO_DELETE", "SOURCE", "A live group stays.", _group_no_delete),
    CompatibilityRule(
        "FIELD_DEPRECATED_FIRST",
        "SOURCE",
        "A field is deprecated in one generation before it goes.",
        _field_deprecated_first,
    ),
    CompatibilityRule(
        "FIELD_SAME_NULLABLE", "SOURCE", "Null stays as possible as it was.", _field_null_allowed
    ),
    CompatibilityRule(
        "HISTORY_KEEPS_EVENTS",
        "SOURCE",
        "A History keeps as many events as before.",
        _history_keeps_events,
    ),
    CompatibilityRule("SERVICE_NO_DELETE", "SOURCE", "A live service stays.", _service_no_delete),
    CompatibilityRule(
        "SERVICE_SAME_REQUEST_KEYS",
        "SOURCE",
        "Callers of a service go on sending the same keys.",
        _service_same_request_keys,
    ),
    CompatibilityRule(
        "SERVICE_SAME_RESULTS",
        "SOURCE",
        "Results of a service keep their places.",
        _service_same_results,
    ),
)

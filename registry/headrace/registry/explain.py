"""A plan in words: what each change is, what it means, and what stands against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from headrace.registry import diff
from headrace.registry.compatibility import Breach
from headrace.registry.diff import Change
from headrace.registry.model import Field, Group, Registry, Service
from headrace.registry.plan import Plan
from headrace.registry.yaml_tree import Mark


class Line(NamedTuple):
    """One change: `+`, `-` or `~`, what it is about, and a note where it has consequences."""

    sign: str
    text: str
    note: str = ""


class PlacedBreach(NamedTuple):
    """A breach with its place in the registry's files; a removed part's place is the folder."""

    place: str
    breach: Breach

    def __str__(self) -> str:
        rule, sentence = self.breach.rule, self.breach.sentence
        return f"{self.place}  {rule}  {sentence}\n    {self.breach.remedy}"


def describe(change: Change) -> Line:
    """One change in words."""
    return _DESCRIPTIONS[type(change)](change)


def explain_plan(plan: Plan) -> Iterator[str]:
    """Lines for people: the changes and then the steps."""
    if not plan.changes:
        yield f"nothing to change: generation {plan.base_generation} is what the registry says"
        return
    for change in plan.changes:
        line = describe(change)
        yield f"{line.sign} {line.text}" + (f"  ({line.note})" if line.note else "")
    yield ""
    for number, step in enumerate(plan.steps, start=1):
        yield f"step {number}: {step}"


def plan_as_json(plan: Plan, registry: Registry) -> dict[str, object]:
    """The same for programs; `note` and `sentence` are for people and may be reworded."""
    return {
        "base_generation": plan.base_generation,
        "risk": plan.risk,
        "changes": [
            {
                **msgspec.to_builtins(change),
                "text": describe(change).text,
                "note": describe(change).note,
            }
            for change in plan.changes
        ],
        "breaches": [
            {**placed.breach._asdict(), "place": placed.place}
            for placed in place_breaches(plan.breaches, registry)
        ],
        "steps": [str(step) for step in plan.steps],
    }


def place_breaches(breaches: Sequence[Breach], registry: Registry) -> list[PlacedBreach]:
    """Each breach with `path:line:col`."""
    parts: dict[str, Group | Service] = {part.name: part for part in registry.services}
    parts.update({group.name: group for group in registry.groups})
    return [PlacedBreach(_place(breach, parts, registry), breach) for breach in breaches]


def _place(breach: Breach, parts: dict[str, Group | Service], registry: Registry) -> str:
    part = parts.get(breach.part)
    if part is None:
        return registry.folder
    mark = part.mark
    if isinstance(part, Group):
        mark = _mark_in(part, breach)
    return f"{part.path}:{mark}"


_MEMBER_OF_RULE: Final = {
    "GROUP_SAME_FEATURE_TYPE": ("feature_type",),
    "GROUP_SAME_KEY": ("schema",),
    "HISTORY_KEEPS_EVENTS": ("history", "max_events"),
    "FIELD_SAME_TYPE": ("type",),
    "FIELD_SAME_NULLABLE": ("nullable",),
}


def _mark_in(group: Group, breach: Breach) -> Mark:
    members = _MEMBER_OF_RULE.get(breach.rule, ())
    field = next((field for field in group.fields if field.name == breach.field), None)
    named: Field | Group = group if field is None else field
    return named.at(*members)


def _group_added(change: diff.GroupAdded) -> Line:
    group = change.group
    keys = ", ".join(key.name for key in group.keys)
    count = len(group.fields)
    fields = f"{count} field" if count == 1 else f"{count} fields"
    return Line("+", f"{group.feature_type} `{group.name}` by {keys}, {fields}")


def _group_removed(change: diff.GroupRemoved) -> Line:
    return Line("-", f"{change.group.feature_type} `{change.part}`", "its table stays")


def _group_member(change: diff.GroupMemberChanged) -> Line:
    text = f"`{change.part}` {change.member}: {_value(change.before)} → {_value(change.after)}"
    return Line("~", text, _group_note(change))


def _group_note(change: diff.GroupMemberChanged) -> str:
    before, after = change.before, change.after
    if change.member == "ttl_ms":
        shorter = isinstance(after, int) and (not isinstance(before, int) or after < before)
        if shorter:
            return "older rows vanish at once"
        return "rows that were collected do not come back"
    if change.member == "max_events" and isinstance(before, int) and isinstance(after, int):
        return "" if after > before else "older events are trimmed"
    return ""


def _keys(change: diff.KeysChanged) -> Line:
    before = ", ".join(f"{key.name} {key.type}" for key in change.before)
    after = ", ".join(f"{key.name} {key.type}" for key in change.after)
    if before == after:
        return Line("~", f"`{change.part}` words about its key")
    return Line("~", f"`{change.part}` key: ({before}) → ({after})")


def _field_added(change: diff.FieldAdded) -> Line:
    field = change.after
    kind = f"{field.type}, nullable" if field.nullable else field.type
    text = f"`{change.part}.{change.field}` {kind}, default {_value(field.default)}"
    return Line("+", text, "stored rows answer the default")


def _field_removed(change: diff.FieldRemoved) -> Line:
    return Line("-", f"`{change.part}.{change.field}` {change.before.type}", "its name is spent")


def _field_member(change: diff.FieldMemberChanged) -> Line:
    before, after = _value(change.before), _value(change.after)
    text = f"`{change.part}.{change.field}` {change.member}: {before} → {after}"
    note = "rows that never had it answer the new one" if change.member == "default" else ""
    return Line("~", text, note)


def _reordered(change: diff.FieldsReordered) -> Line:
    after = ", ".join(change.after)
    text = f"`{change.part}` fields in another order: {after}"
    return Line("~", text, "answers without `fields` follow it")


def _service_added(change: diff.ServiceAdded) -> Line:
    count = len(change.service.reads)
    return Line("+", f"service `{change.part}`, {count} {'read' if count == 1 else 'reads'}")


def _service_removed(change: diff.ServiceRemoved) -> Line:
    return Line("-", f"service `{change.part}`")


def _service_changed(change: diff.ServiceChanged) -> Line:
    members = [
        member
        for member in ("owner", "description", "reads", "feast_name")
        if getattr(change.before, member) != getattr(change.after, member)
    ]
    return Line("~", f"service `{change.part}`: {', '.join(members)}")


def _value(value: object) -> str:
    """A value of a document as JSON, cut."""
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else f"{text[:57]}..."


# Each describes the changes of its own type.
_DESCRIPTIONS: Final[dict[type, Callable[[Any], Line]]] = {
    diff.GroupAdded: _group_added,
    diff.GroupRemoved: _group_removed,
    diff.GroupMemberChanged: _group_member,
    diff.KeysChanged: _keys,
    diff.FieldAdded: _field_added,
    diff.FieldRemoved: _field_removed,
    diff.FieldMemberChanged: _field_member,
    diff.FieldsReordered: _reordered,
    diff.ServiceAdded: _service_added,
    diff.ServiceRemoved: _service_removed,
    diff.ServiceChanged: _service_changed,
}

"""Checks of one feature group: a place and a sentence for each way in which a rule is broken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from headrace.registry.model import Field, Group
from headrace.registry.physical import (
    FIELD_NAME_LENGTH_MAX,
    GROUP_NAME_LENGTH_MAX,
    RESERVED_KEY_NAMES,
    is_field_name,
    is_group_name,
)
from headrace.registry.yaml_tree import Mark, YamlMapping, shown

DAY_MS: Final = 86_400_000
TTL_MAX_MS: Final = 3_653 * DAY_MS
"""Ten years, leap days included (semantics 3)."""
CACHE_TTL_MAX_MS: Final = 30 * DAY_MS
INTERVAL_MAX_MS: Final = 30 * DAY_MS
FIELDS_MAX: Final = 1_000
MAX_EVENTS_MAX: Final = 10_000

Problems = Iterator[tuple[Mark, str]]

FEAST_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}\Z")


def foreign_character(text: str, allowed: str) -> str:
    """Names the first character outside `allowed`, a class of a regular expression."""
    for character in text:
        if re.match(f"[{allowed}]", character) is None:
            code = "" if character.isascii() else f" (U+{ord(character):04X})"
            return f"; `{shown(character)}`{code} is not allowed"
    return ""


def name_form(group: Group) -> Problems:
    if is_group_name(group.name):
        return
    if len(group.name) > GROUP_NAME_LENGTH_MAX:
        length = len(group.name)
        yield (
            group.mark,
            f"`{shown(group.name)}` has {length} characters, the most is {GROUP_NAME_LENGTH_MAX}",
        )
        return
    yield (
        group.mark,
        f"`{shown(group.name)}` is not `domain::name` of `[a-z][a-z0-9-]*`, single inner hyphens"
        + foreign_character(group.name, "a-z0-9:-"),
    )


def has_key(group: Group) -> Problems:
    if _schema_is_whole(group) and not group.keys:
        yield group.at("schema"), "no field has `is_key_field: true`; a row needs a key"


def has_value(group: Group) -> Problems:
    if _schema_is_whole(group) and not group.values:
        yield group.at("schema"), "every field is a key; a row needs a value field"


def _schema_is_whole(group: Group) -> bool:
    """Whether every field could be read; if not, what is missing may be there."""
    entry = group.node.entries.get("schema")
    if entry is None or not isinstance(entry[1], YamlMapping):
        return False
    return len(entry[1].entries) == len(group.fields)


def fields_bounded(group: Group) -> Problems:
    if len(group.fields) > FIELDS_MAX:
        yield group.at("schema"), f"{len(group.fields)} fields, the most is {FIELDS_MAX}"


def field_name(group: Group) -> Problems:
    for field in group.fields:
        name = field.name
        if is_field_name(name):
            continue
        if name.startswith("_"):
            yield field.mark, f"`{shown(name)}`: names with a leading `_` are ours; drop it"
        elif len(name) > FIELD_NAME_LENGTH_MAX:
            yield (
                field.mark,
                f"`{shown(name)}` has {len(name)} characters, the most is {FIELD_NAME_LENGTH_MAX}",
            )
        else:
            foreign = foreign_character(name, "a-z0-9_")
            yield field.mark, f"`{shown(name)}` is not `[a-z][a-z0-9_]*`{foreign}"


def field_name_reserved(group: Group) -> Problems:
    for field in group.fields:
        if field.is_key_field and field.name in RESERVED_KEY_NAMES:
            yield field.mark, f"a key cannot be called `{field.name}`; that column is ours"


def key_type(group: Group) -> Problems:
    for field in group.fields:
        declared = field.type
        if not field.is_key_field or declared is None:
            continue
        if declared.is_list or not declared.scalar.is_key:
            sentence = f"key `{field.name}` is `{declared.name}`; use Text, Integer or Long"
            yield field.at("type"), sentence


def key_plain(group: Group) -> Problems:
    for field in group.fields:
        if not field.is_key_field:
            continue
        if field.has_default:
            yield field.at("default_value"), f"key `{field.name}` has a default; remove it"
        if field.nullable:
            yield field.at("nullable"), f"key `{field.name}` is nullable; a key is never null"


def default_given(group: Group) -> Problems:
    for field in group.fields:
        if not (field.is_key_field or field.has_default or field.nullable):
            yield (
                field.mark,
                f"`{shown(field.name)}` has no `default_value` and is not `nullable: true`; "
                "give one of them",
            )


def feast_name(group: Group) -> Problems:
    parts: tuple[Group | Field, ...] = (group, *group.fields)
    for part in parts:
        if part.feast_name is not None and FEAST_NAME.match(part.feast_name) is None:
            yield (
                part.at("feast_name"),
                f"`{shown(part.feast_name)}` is not `[A-Za-z][A-Za-z0-9_-]*`",
            )


def feast_field_names(group: Group) -> Problems:
    owners: dict[str, str] = {}
    for field in group.fields:
        name = field.feast_name or field.name
        owner = owners.setdefault(name, field.name)
        if owner != field.name:
            yield field.at("feast_name"), f"`{shown(name)}` is already `{shown(owner)}` to Feast"


def ttl_bounded(group: Group) -> Problems:
    if group.ttl_ms is not None and not 0 < group.ttl_ms <= TTL_MAX_MS:
        yield (
            group.at("ttl"),
            "a ttl is above zero and at most 10 years (3653d); leave it out to keep rows",
        )


def max_age_bounded(group: Group) -> Problems:
    if group.max_age_ms is not None and not 0 < group.max_age_ms <= TTL_MAX_MS:
        yield group.at("max_age"), "a max_age is above zero and at most 10 years (3653d)"


def max_age_below_ttl(group: Group) -> Problems:
    if group.max_age_ms is None or group.ttl_ms is None:
        return
    if group.max_age_ms >= group.ttl_ms:
        yield group.at("max_age"), "rows vanish at `ttl` before they could turn STALE"


def history_only(group: Group) -> Problems:
    if group.feature_type == "Object" and "history" in group.node.entries:
        yield (
            group.node.entries["history"][0],
            "`history` on an Object; use `feature_type: History`",
        )


def max_events_bounded(group: Group) -> Problems:
    if not 1 <= group.max_events <= MAX_EVENTS_MAX:
        place = group.at("history", "max_events")
        yield place, f"`max_events` is 1 to {MAX_EVENTS_MAX}, got {group.max_events}"


def history_ttl(group: Group) -> Problems:
    if group.feature_type == "History" and "ttl" not in group.node.entries:
        yield (
            group.mark,
            f"History `{shown(group.name)}` has no ttl, so keys that go quiet are kept",
        )


def cache_bounded(group: Group) -> Problems:
    if group.cache_ttl_ms > CACHE_TTL_MAX_MS:
        yield group.at("cache", "ttl"), "a cache ttl is at most 30d"
    if group.local_ttl_ms > CACHE_TTL_MAX_MS:
        yield group.at("cache", "local_ttl"), "a local ttl is at most 30d"


def ratio_range(group: Group) -> Problems:
    if not 0 < group.random_sampling_ratio <= 1:
        place = group.at("downsync", "random_sampling_ratio")
        yield (
            place,
            "a sampling ratio is above 0 and at most 1; `enabled: false` turns downsync off",
        )


def interval_bounded(group: Group) -> Problems:
    if group.min_interval_ms > INTERVAL_MAX_MS:
        yield group.at("downsync", "min_interval_by_key"), "an interval is at most 30d"


def updated_at_form(group: Group) -> Problems:
    column = group.updated_at
    if column is None or is_field_name(column.removeprefix("_")):
        return
    place = group.at("upsync", "updated_at")
    yield place, f"`{shown(column)}` is not a column name, `[a-z_][a-z0-9_]*`"


def upsync_event_time(group: Group) -> Problems:
    if group.upsync_enabled and group.downsync_enabled and group.updated_at is None:
        yield (
            group.at("upsync"),
            "downsync says that this group takes real-time commands, and rows of upsync would all "
            "take the time of their run and overrule them; name their time column in `updated_at`",
        )


def retention(group: Group) -> Problems:
    if group.offline_retention_ms is not None and group.offline_retention_ms < DAY_MS:
        yield group.at("retention", "offline"), "offline rows are kept for at least 1d"

"""Checks of one feature service against the groups of its registry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from headrace.registry.group_rules import FEAST_NAME, foreign_character
from headrace.registry.model import Group, Service
from headrace.registry.names import did_you_mean
from headrace.registry.physical import (
    GROUP_NAME_LENGTH_MAX,
    is_field_name,
    is_service_name,
)
from headrace.registry.yaml_tree import Mark, YamlSequence, shown

READS_MAX: Final = 64
"""Reads of one request (semantics 12)."""

Groups = Mapping[str, Group]
Problems = Iterator[tuple[Mark, str]]


def name_form(service: Service, _: Groups) -> Problems:
    if not is_service_name(service.name):
        yield (
            service.mark,
            f"`{shown(service.name)}` is not `name-vN` (`domain::` may stand before it) of at most "
            f"{GROUP_NAME_LENGTH_MAX} characters{foreign_character(service.name, 'a-z0-9:-')}",
        )


def bounded(service: Service, _: Groups) -> Problems:
    entry = service.node.entries.get("reads")
    if entry is not None and isinstance(entry[1], YamlSequence) and not entry[1].items:
        yield entry[1].mark, "a service has at least one read"
    if len(service.reads) > READS_MAX:
        yield service.at("reads"), f"{len(service.reads)} reads, the most is {READS_MAX}"


def group_known(service: Service, groups: Groups) -> Problems:
    for read in service.reads:
        if read.name and read.name not in groups:
            hint = did_you_mean(read.name, groups)
            yield read.at("feature_group"), f"there is no group `{shown(read.name)}`{hint}"


def fields_known(service: Service, groups: Groups) -> Problems:
    for read in service.reads:
        group = groups.get(read.name)
        if group is None or read.fields is None:
            continue
        known = [field.name for field in group.values]
        if not read.fields:
            yield read.at("fields"), "no fields; leave `fields` out for all of them"
        for position, (name, mark) in enumerate(zip(read.fields, read.field_marks, strict=False)):
            if name in read.fields[:position]:
                yield mark, f"`{shown(name)}` is already named in this read"
            elif name not in known:
                hint = did_you_mean(name, known)
                yield mark, f"`{group.name}` has no value field `{shown(name)}`{hint}"


def keys_known(service: Service, groups: Groups) -> Problems:
    for read in service.reads:
        group = groups.get(read.name)
        known = [field.name for field in group.keys] if group is not None else None
        for key, request_key in read.keys.items():
            if known is not None and key not in known:
                hint = did_you_mean(key, known)
                yield read.at("keys", key), f"`{read.name}` has no key `{shown(key)}`{hint}"
            elif not is_field_name(request_key):
                sentence = f"request key `{shown(request_key)}` is not `[a-z][a-z0-9_]*`"
                yield read.at("keys", key), sentence


def key_type_same(service: Service, groups: Groups) -> Problems:
    first: dict[str, tuple[str, str]] = {}
    for read in service.reads:
        group = groups.get(read.name)
        for field in group.keys if group is not None else ():
            if field.type is None:
                continue
            kind = "text" if field.type.name == "Text" else "an integer"
            request_key = read.keys.get(field.name, field.name)
            earlier, group_name = first.setdefault(request_key, (kind, read.name))
            if earlier != kind:
                yield (
                    read.mark,
                    f"request key `{request_key}` is {earlier} for `{group_name}` and {kind} for "
                    f"`{read.name}`; map one of them to another name in `keys`",
                )


def limit(service: Service, groups: Groups) -> Problems:
    for read in service.reads:
        group = groups.get(read.name)
        if group is None or read.limit is None:
            continue
        if group.feature_type == "Object":
            yield read.at("limit"), f"`{group.name}` is an Object; only a History has a limit"
        elif not 1 <= read.limit <= group.max_events:
            yield read.at("limit"), f"a limit is 1 to `max_events`, {group.max_events} here"


def alias_form(service: Service, _: Groups) -> Problems:
    for read in service.reads:
        if read.alias is not None and not is_field_name(read.alias):
            foreign = foreign_character(read.alias, "a-z0-9_")
            yield read.at("as"), f"`{shown(read.alias)}` is not `[a-z][a-z0-9_]*`{foreign}"


def results_distinct(service: Service, _: Groups) -> Problems:
    seen: set[str] = set()
    for read in service.reads:
        name = read.alias or read.name
        if name in seen:
            sentence = (
                f"two results are called `{shown(name)}`; give one of them an alias with `as`"
            )
            yield read.at("as"), sentence
        seen.add(name)


def feast_name_form(service: Service, _: Groups) -> Problems:
    name = service.feast_name
    if name is not None and FEAST_NAME.match(name) is None:
        yield service.at("feast_name"), f"`{shown(name)}` is not `[A-Za-z][A-Za-z0-9_-]*`"

"""A registry folder → model and findings. Every mistake of every file, in one pass.

Nothing in a file is trusted: bytes go through `yaml_tree` (strict YAML with bounds), values through
`values` (declared types only), and what is left through `rules`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from headrace.registry import values
from headrace.registry.field_types import SCALARS, FieldType, parse_type, rule_of_type, type_names
from headrace.registry.files import read_files
from headrace.registry.model import (
    Field,
    Finding,
    Group,
    Principal,
    Read,
    Registry,
    Service,
)
from headrace.registry.names import did_you_mean
from headrace.registry.rules import READING_RULES, check_registry
from headrace.registry.values import UNREADABLE, Reader, Reading, Unreadable
from headrace.registry.yaml_tree import (
    Mark,
    YamlMapping,
    YamlNode,
    YamlScalar,
    YamlSequence,
    parse_yaml,
    shown,
)

_YAML_RULES: Final = frozenset(
    rule.id for rule in READING_RULES if rule.id.startswith(("YAML_", "SCALAR_"))
)


class Loaded(NamedTuple):
    """The model, and all findings sorted by file and place. One with an error is never applied."""

    registry: Registry
    findings: list[Finding]

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == "error"]


def load_registry(folder: Path) -> Loaded:
    """Read and check `features/**/*.yaml`, `services/**/*.yaml` and `access.yaml` of a folder."""
    reading = Reading("")
    texts = read_files(folder, reading)
    loaded = load_texts(texts, str(folder))
    return Loaded(loaded.registry, sorted(reading.findings + loaded.findings))


def load_texts(texts: Mapping[str, bytes], folder: str = ".") -> Loaded:
    """The same from texts by path relative to the registry's folder."""
    groups: list[Group] = []
    services: list[Service] = []
    principals: list[Principal] | None = None
    findings: list[Finding] = []
    for path, text in texts.items():
        reading = Reading(path)
        if path.startswith("features/"):
            groups += _groups(reading, _entries(reading, text))
        elif path.startswith("services/"):
            services += _services(reading, _entries(reading, text))
        else:
            principals = _principals(reading, _entries(reading, text))
        findings += reading.findings
    registry = Registry(
        folder=folder,
        groups=tuple(groups),
        services=tuple(services),
        principals=None if principals is None else tuple(principals),
    )
    findings += check_registry(registry)
    return Loaded(registry, sorted(_first_causes(findings)))


def _first_causes(findings: list[Finding]) -> Iterator[Finding]:
    """Leave out what only follows from YAML that was refused at the same place."""
    refused = {finding[:3] for finding in findings if finding.rule in _YAML_RULES}
    for finding in findings:
        if finding.rule in _YAML_RULES or finding[:3] not in refused:
            yield finding


def _entries(reading: Reading, text: bytes) -> YamlMapping:
    """The mapping at the top of a file; an empty one when there is none to be had."""
    parsed = parse_yaml(text)
    for problem in parsed.problems:
        reading.report_problem(problem)
    if isinstance(parsed.root, YamlMapping):
        return parsed.root
    if parsed.root is not None:
        reading.wrong(parsed.root, "a mapping of names at the top")
    elif not parsed.problems:
        reading.report(Mark(1, 1), "FILE_NOT_EMPTY", "the file declares nothing; remove it")
    return YamlMapping(Mark(1, 1), {})


def _members(
    reading: Reading,
    node: YamlNode,
    known: Mapping[str, Reader],
    what: str,
    required: tuple[str, ...] = (),
) -> dict[str, Any] | Unreadable:
    """Read the members of a mapping by a table; unreadable ones are left out."""
    if not isinstance(node, YamlMapping):
        return reading.wrong(node, f"{what}, a mapping")
    members: dict[str, Any] = {}
    for key, (mark, value) in node.entries.items():
        reader = known.get(key)
        if reader is None:
            if reading.is_full:
                break
            sentence = f"`{shown(key)}` is not a member of {what}{did_you_mean(key, known)}"
            reading.report(mark, "MEMBER_KNOWN", sentence)
            continue
        read = reader(reading, value)
        if read is not UNREADABLE:
            members[key] = read
    for key in required:
        if key not in node.entries:
            reading.report(node.mark, "MEMBER_REQUIRED", f"{what} needs `{key}`")
    return members


def _groups(reading: Reading, top: YamlMapping) -> Iterator[Group]:
    for name, (mark, node) in top.entries.items():
        members = _members(
            reading, node, GROUP_MEMBERS, "a feature group", ("feature_type", "owner", "schema")
        )
        if isinstance(members, Unreadable) or not isinstance(node, YamlMapping):
            continue
        yield _group(reading.path, name, mark, node, members)


def _group(path: str, name: str, mark: Mark, node: YamlMapping, members: dict[str, Any]) -> Group:
    flat: dict[str, Any] = {key: members[key] for key in _GROUP_PLAIN if key in members}
    for section in ("cache", "upsync", "downsync", "history", "retention"):
        for key, value in cast("dict[str, Any]", members.get(section, {})).items():
            flat[GROUP_SECTIONS[section][key]] = value
    return Group(
        name=name,
        mark=mark,
        node=node,
        path=path,
        feature_type=members.get("feature_type"),
        fields=members.get("schema", ()),
        ttl_ms=members.get("ttl"),
        max_age_ms=members.get("max_age"),
        **flat,
    )


def _fields(reading: Reading, node: YamlNode) -> tuple[Field, ...] | Unreadable:
    if not isinstance(node, YamlMapping):
        return reading.wrong(node, "a mapping of fields")
    fields: list[Field] = []
    for name, (mark, value) in node.entries.items():
        members = _members(reading, value, FIELD_MEMBERS, "a field", ("type",))
        if not isinstance(members, Unreadable) and isinstance(value, YamlMapping):
            fields.append(_field(reading, name, mark, value, members))
    return tuple(fields)


def _field(
    reading: Reading, name: str, mark: Mark, node: YamlMapping, members: dict[str, Any]
) -> Field:
    declared: FieldType | None = members.pop("type", None)
    default_node: YamlNode | None = members.pop("default_value", None)
    default: object = None
    if default_node is not None and declared is not None:
        nothing = isinstance(default_node, YamlScalar) and default_node.plain
        nothing = nothing and cast("YamlScalar", default_node).text == "null"
        if not (nothing and members.get("nullable")):
            default = values.default_value(reading, default_node, declared)
    return Field(
        name=name,
        mark=mark,
        node=node,
        type=declared,
        has_default=default_node is not None,
        default=None if default is UNREADABLE else default,
        **members,
    )


def _services(reading: Reading, top: YamlMapping) -> Iterator[Service]:
    for name, (mark, node) in top.entries.items():
        members = _members(reading, node, SERVICE_MEMBERS, "a feature service", ("owner", "reads"))
        if not isinstance(members, Unreadable) and isinstance(node, YamlMapping):
            yield Service(name=name, mark=mark, node=node, path=reading.path, **members)


def _reads(reading: Reading, node: YamlNode) -> tuple[Read, ...] | Unreadable:
    if not isinstance(node, YamlSequence):
        return reading.wrong(node, "a list of reads")
    reads: list[Read] = []
    for item in node.items:
        members = _members(reading, item, READ_MEMBERS, "a read", ("feature_group",))
        if not isinstance(members, Unreadable) and isinstance(item, YamlMapping):
            reads.append(_read(item, members))
    return tuple(reads)


def _read(node: YamlMapping, members: dict[str, Any]) -> Read:
    names, marks = members.get("fields", (None, ()))
    return Read(
        name=members.get("feature_group", ""),
        mark=node.mark,
        node=node,
        fields=names,
        field_marks=marks,
        alias=members.get("as"),
        keys=members.get("keys", {}),
        limit=members.get("limit"),
    )


def _principals(reading: Reading, top: YamlMapping) -> list[Principal]:
    known: dict[str, Reader] = {"principals": _principal_list}
    members = _members(reading, top, known, "access.yaml", ("principals",))
    return [] if isinstance(members, Unreadable) else members.get("principals", [])


def _principal_list(reading: Reading, node: YamlNode) -> list[Principal] | Unreadable:
    if not isinstance(node, YamlMapping):
        return reading.wrong(node, "a mapping of principals")
    principals: list[Principal] = []
    for name, (mark, value) in node.entries.items():
        members = _members(reading, value, PRINCIPAL_MEMBERS, "a principal", ("api_key_sha256",))
        if not isinstance(members, Unreadable) and isinstance(value, YamlMapping):
            principals.append(
                Principal(name=name, mark=mark, node=value, path=reading.path, **members)
            )
    return principals


def _feature_type(reading: Reading, node: YamlNode) -> str | Unreadable:
    if isinstance(node, YamlScalar) and node.text in ("Object", "History"):
        return node.text
    sentence = f"expected `Object` or `History`, got {values.described(node)}"
    return reading.report(node.mark, "GROUP_FEATURE_TYPE_KNOWN", sentence)


def _field_type(reading: Reading, node: YamlNode) -> FieldType | Unreadable:
    if isinstance(node, YamlScalar):
        declared = parse_type(node.text)
        if declared is not None:
            return declared
        names = ", ".join(type_names())
        near = did_you_mean(node.text, SCALARS) or f"; types are {names}"
        rule = rule_of_type(node.text)
        hint = f"; {rule}" if rule else near
        sentence = f"{values.described(node)} is not a type{hint}"
        return reading.report(node.mark, "FIELD_TYPE_KNOWN", sentence)
    return reading.wrong(node, "a type, text")


def _pii(reading: Reading, node: YamlNode) -> str | Unreadable | None:
    """`true` or a class; `false` says the same as leaving it out."""
    if isinstance(node, YamlScalar) and node.plain and node.text in ("true", "false"):
        return "true" if node.text == "true" else None
    return values.name_text(reading, node)


def _field_list(
    reading: Reading, node: YamlNode
) -> tuple[tuple[str, ...] | None, tuple[Mark, ...]] | Unreadable:
    if isinstance(node, YamlScalar) and node.text == "*":
        return None, ()
    names = values.texts(reading, node)
    if isinstance(names, Unreadable) or not isinstance(node, YamlSequence):
        return UNREADABLE
    return names, tuple(item.mark for item in node.items)


def _any_node(_: Reading, node: YamlNode) -> YamlNode:
    """A default: it is read once the type is known."""
    return node


def _section(what: str, known: dict[str, Reader]) -> Reader:
    return lambda reading, node: _members(reading, node, known, what)


FIELD_MEMBERS: Final[dict[str, Reader]] = {
    "type": _field_type,
    "is_key_field": values.flag,
    "nullable": values.flag,
    "default_value": _any_node,
    "description": values.text,
    "pii": _pii,
    "deprecated": values.name_text,
    "feast_name": values.name_text,
}

_GROUP_PLAIN: Final = ("owner", "description", "feast_name")

# Section → member → name in the model.
GROUP_SECTIONS: Final = {
    "cache": {"ttl": "cache_ttl_ms", "local_ttl": "local_ttl_ms"},
    "upsync": {
        "enabled": "upsync_enabled",
        "incremental_update": "incremental_update",
        "updated_at": "updated_at",
    },
    "downsync": {
        "enabled": "downsync_enabled",
        "min_interval_by_key": "min_interval_ms",
        "random_sampling_ratio": "random_sampling_ratio",
    },
    "history": {"max_events": "max_events"},
    "retention": {"offline": "offline_retention_ms"},
}

GROUP_MEMBERS: Final[dict[str, Reader]] = {
    "feature_type": _feature_type,
    "owner": values.name_text,
    "description": values.text,
    "schema": _fields,
    "ttl": values.duration_ms,
    "max_age": values.duration_ms,
    "history": _section("`history`", {"max_events": values.integer}),
    "cache": _section("`cache`", {"ttl": values.duration_ms, "local_ttl": values.duration_ms}),
    "upsync": _section(
        "`upsync`",
        {
            "enabled": values.flag,
            "incremental_update": values.flag,
            "updated_at": values.name_text,
        },
    ),
    "downsync": _section(
        "`downsync`",
        {
            "enabled": values.flag,
            "min_interval_by_key": values.duration_ms,
            "random_sampling_ratio": values.number,
        },
    ),
    "retention": _section("`retention`", {"offline": values.duration_ms}),
    "feast_name": values.name_text,
}

SERVICE_MEMBERS: Final[dict[str, Reader]] = {
    "owner": values.name_text,
    "description": values.text,
    "reads": _reads,
    "feast_name": values.name_text,
}

READ_MEMBERS: Final[dict[str, Reader]] = {
    "feature_group": values.name_text,
    "fields": _field_list,
    "as": values.name_text,
    "keys": values.text_by_text,
    "limit": values.integer,
}

PRINCIPAL_MEMBERS: Final[dict[str, Reader]] = {
    "api_key_sha256": values.texts,
    "read": values.texts,
    "write": values.texts,
    "erase": values.flag,
    "quota_rps": values.integer,
}

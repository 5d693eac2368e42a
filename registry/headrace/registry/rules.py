"""Rules of a registry, as data: id, purpose, severity, check.

A rule without a check is found while reading (`yaml_tree`, `values`, `load`), because the model
cannot even hold what breaks it. Rules of change are in `compatibility.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

from headrace.registry import access_rules, group_rules, service_rules
from headrace.registry.model import Finding, Group, Principal, Registry, Service, Severity
from headrace.registry.physical import table_name
from headrace.registry.yaml_tree import Mark

PartT = TypeVar("PartT", Group, Service, Principal)

Problem = tuple[Mark, str]
"""Where and one sentence."""


class ReadingRule(NamedTuple):
    """A rule that the readers enforce."""

    id: str
    purpose: str
    severity: Severity = "error"


class GroupRule(NamedTuple):
    id: str
    purpose: str
    check: Callable[[Group], Iterable[Problem]]
    severity: Severity = "error"


class ServiceRule(NamedTuple):
    id: str
    purpose: str
    check: Callable[[Service, dict[str, Group]], Iterable[Problem]]
    severity: Severity = "error"


class PrincipalRule(NamedTuple):
    id: str
    purpose: str
    check: Callable[[Principal, Registry], Iterable[Problem]]
    severity: Severity = "error"


READING_RULES = (
    ReadingRule("FILE_READABLE", "A file can be read."),
    ReadingRule("FILE_NAMED_YAML", "A file that looks like YAML ends in `.yaml`."),
    ReadingRule("FILE_COUNT_BOUNDED", "A registry has at most 10,000 files."),
    ReadingRule("FILE_SIZE_BOUNDED", "A file has at most 1 MiB."),
    ReadingRule("FILE_UTF8", "A file is UTF-8."),
    ReadingRule("FILE_NO_TABS", "A file has no tab characters."),
    ReadingRule("FILE_NO_HIDDEN_CHARACTERS", "What a reviewer sees is what the file says."),
    ReadingRule("FILE_NOT_EMPTY", "A file declares something."),
    ReadingRule("YAML_SYNTAX", "A file is YAML."),
    ReadingRule("YAML_ONE_DOCUMENT", "A file holds one document."),
    ReadingRule("YAML_NO_DIRECTIVES", "No directive changes how a file is read."),
    ReadingRule("YAML_NO_ALIASES", "Every value stands where it is used."),
    ReadingRule("YAML_NO_TAGS", "No tag makes a value something else."),
    ReadingRule("YAML_NO_MERGE_KEYS", "Every member stands where it counts."),
    ReadingRule("YAML_NO_DUPLICATE_KEYS", "A key is given once."),
    ReadingRule("YAML_KEY_IS_NAME", "A key is a scalar."),
    ReadingRule("YAML_KEY_LENGTH", "A key has at most 256 characters."),
    ReadingRule("YAML_DEPTH_BOUNDED", "Nesting ends at 16."),
    ReadingRule("YAML_NODES_BOUNDED", "A file has at most 20,000 keys and values."),
    ReadingRule("SCALAR_UNAMBIGUOUS", "Every YAML library reads a plain scalar alike."),
    ReadingRule("VALUE_TYPED", "A member has a value of its type."),
    ReadingRule("MEMBER_KNOWN", "A member is one that we know."),
    ReadingRule("MEMBER_REQUIRED", "What is needed is given."),
    ReadingRule("REGISTRY_HAS_GROUPS", "A registry folder has feature groups."),
    ReadingRule("GROUP_FEATURE_TYPE_KNOWN", "A group is an Object or a History."),
    ReadingRule("FIELD_TYPE_KNOWN", "A field has a type of the table in `field_types.py`."),
    ReadingRule("FIELD_DEFAULT_TYPED", "A default is of its field's type."),
    ReadingRule("GROUP_NAME_UNIQUE", "A group is declared once in all files."),
    ReadingRule("SERVICE_NAME_UNIQUE", "A service is declared once in all files."),
    ReadingRule("NAMES_INJECTIVE", "No two groups share a physical name (semantics 9)."),
    ReadingRule("FEAST_NAME_UNIQUE", "No two groups or services share a Feast name."),
)

GROUP_RULES = (
    GroupRule(
        "GROUP_NAME_FORM", "A group is called `domain::name` (semantics 9).", group_rules.name_form
    ),
    GroupRule("GROUP_HAS_KEY", "A group has a key field.", group_rules.has_key),
    GroupRule("GROUP_HAS_VALUE", "A group has a value field.", group_rules.has_value),
    GroupRule(
        "GROUP_FIELDS_BOUNDED", "A group has at most 1,000 fields.", group_rules.fields_bounded
    ),
    GroupRule(
        "FIELD_NAME_FORM",
        "A field is called `[a-z][a-z0-9_]*` (semantics 9).",
        group_rules.field_name,
    ),
    GroupRule(
        "FIELD_NAME_RESERVED",
        "No key takes a column name of ours.",
        group_rules.field_name_reserved,
    ),
    GroupRule("FIELD_KEY_TYPE", "A key is Text, Integer or Long.", group_rules.key_type),
    GroupRule("FIELD_KEY_PLAIN", "A key is never absent.", group_rules.key_plain),
    GroupRule(
        "FIELD_DEFAULT_GIVEN",
        "A value field has a default or is nullable.",
        group_rules.default_given,
    ),
    GroupRule("FEAST_NAME_FORM", "A Feast name is an identifier.", group_rules.feast_name),
    GroupRule(
        "FEAST_FIELD_NAME_UNIQUE",
        "No two fields of a group share a Feast name.",
        group_rules.feast_field_names,
    ),
    GroupRule("TTL_BOUNDED", "A ttl is at most 10 years (semantics 3).", group_rules.ttl_bounded),
    GroupRule("MAX_AGE_BOUNDED", "A max_age is above zero.", group_rules.max_age_bounded),
    GroupRule(
        "MAX_AGE_BELOW_TTL",
        "A row turns STALE before it vanishes.",
        group_rules.max_age_below_ttl,
        "warning",
    ),
    GroupRule("HISTORY_ONLY", "Only a History has `history`.", group_rules.history_only),
    GroupRule(
        "HISTORY_MAX_EVENTS_BOUNDED", "1 to 10,000 events a key.", group_rules.max_events_bounded
    ),
    GroupRule(
        "HISTORY_TTL_GIVEN", "A History forgets (semantics 5).", group_rules.history_ttl, "warning"
    ),
    GroupRule("CACHE_TTL_BOUNDED", "A cache keeps at most 30 days.", group_rules.cache_bounded),
    GroupRule("SAMPLING_RATIO_RANGE", "A ratio is above 0, at most 1.", group_rules.ratio_range),
    GroupRule(
        "DOWNSYNC_INTERVAL_BOUNDED", "An interval is at most 30 days.", group_rules.interval_bounded
    ),
    GroupRule(
        "UPSYNC_UPDATED_AT_FORM", "`updated_at` is a column's name.", group_rules.updated_at_form
    ),
    GroupRule(
        "UPSYNC_EVENT_TIME_GIVEN",
        "Upsync into a group with real-time commands has a time column (semantics 24).",
        group_rules.upsync_event_time,
    ),
    GroupRule(
        "RETENTION_BOUNDED", "Offline rows are kept for at least a day.", group_rules.retention
    ),
)

SERVICE_RULES = (
    ServiceRule("SERVICE_NAME_FORM", "A service is called `name-vN`.", service_rules.name_form),
    ServiceRule(
        "SERVICE_READS_BOUNDED",
        "A service has 1 to 64 reads (semantics 12).",
        service_rules.bounded,
    ),
    ServiceRule("SERVICE_GROUP_KNOWN", "A read names a known group.", service_rules.group_known),
    ServiceRule("SERVICE_FIELDS_KNOWN", "A read names value fields.", service_rules.fields_known),
    ServiceRule("SERVICE_KEYS_KNOWN", "`keys` maps key fields.", service_rules.keys_known),
    ServiceRule(
        "SERVICE_KEY_TYPE_SAME",
        "One request key has one type in all reads.",
        service_rules.key_type_same,
    ),
    ServiceRule(
        "SERVICE_LIMIT_BOUNDED", "A limit is 1 to max_events, of a History.", service_rules.limit
    ),
    ServiceRule("SERVICE_ALIAS_FORM", "An alias is a short name.", service_rules.alias_form),
    ServiceRule(
        "SERVICE_RESULTS_DISTINCT",
        "Results can be told apart.",
        service_rules.results_distinct,
        "warning",
    ),
    ServiceRule(
        "SERVICE_FEAST_NAME_FORM", "A Feast name is an identifier.", service_rules.feast_name_form
    ),
)

PRINCIPAL_RULES = (
    PrincipalRule(
        "PRINCIPAL_NAME_FORM", "A principal has a short name.", access_rules.principal_name
    ),
    PrincipalRule(
        "API_KEY_SHA256_FORM",
        "A key is given as 64 hex digits of its SHA-256.",
        access_rules.key_form,
    ),
    PrincipalRule("API_KEY_UNIQUE", "A key belongs to one principal.", access_rules.key_unique),
    PrincipalRule(
        "GRANT_PATTERN_FORM", "A grant is a name, `domain::*` or `*`.", access_rules.pattern_form
    ),
    PrincipalRule(
        "GRANT_MATCHES", "A grant grants something.", access_rules.pattern_matches, "warning"
    ),
    PrincipalRule("QUOTA_POSITIVE", "A quota is above zero.", access_rules.quota),
)


def rule_ids() -> list[str]:
    """Every rule id, in the order of the tables."""
    tables = (READING_RULES, GROUP_RULES, SERVICE_RULES, PRINCIPAL_RULES)
    return [rule.id for table in tables for rule in table]


def check_registry(registry: Registry) -> list[Finding]:
    """Every finding of the rules above that have a check, and of names across files."""
    findings = list(_names_across_files(registry))
    by_name = {group.name: group for group in registry.groups}
    for rule in GROUP_RULES:
        for group in registry.groups:
            for mark, sentence in rule.check(group):
                findings.append(_finding(group.path, mark, rule.id, sentence, rule.severity))
    for service_rule in SERVICE_RULES:
        for service in registry.services:
            for mark, sentence in service_rule.check(service, by_name):
                rule_id, severity = service_rule.id, service_rule.severity
                findings.append(_finding(service.path, mark, rule_id, sentence, severity))
    for principal_rule in PRINCIPAL_RULES:
        for principal in registry.principals or ():
            for mark, sentence in principal_rule.check(principal, registry):
                rule_id, severity = principal_rule.id, principal_rule.severity
                findings.append(_finding(principal.path, mark, rule_id, sentence, severity))
    return findings


def _finding(path: str, mark: Mark, rule: str, sentence: str, severity: Severity) -> Finding:
    return Finding(path, mark.line, mark.column, rule, sentence, severity)


def _names_across_files(registry: Registry) -> Iterator[Finding]:
    yield from _unique(
        registry.groups, "GROUP_NAME_UNIQUE", lambda group: group.name, "is already declared"
    )
    yield from _unique(
        registry.services,
        "SERVICE_NAME_UNIQUE",
        lambda service: service.name,
        "is already declared",
    )
    by_name = {group.name: group for group in reversed(registry.groups)}
    distinct = sorted(by_name.values(), key=lambda group: (group.path, group.mark))
    yield from _unique(
        distinct,
        "NAMES_INJECTIVE",
        lambda group: table_name(group.name),
        "has the physical name of another group",
    )
    yield from _unique(
        distinct, "FEAST_NAME_UNIQUE", _feast_name, "has the Feast name of another group"
    )
    yield from _unique(
        [service for service in registry.services if service.feast_name],
        "FEAST_NAME_UNIQUE",
        _feast_name,
        "has the Feast name of another service",
    )


def _feast_name(part: Group | Service) -> str:
    """Undeclared, `live::a` is `live__a` to Feast (product 4)."""
    return part.feast_name or part.name.replace("::", "__")


def _unique(
    parts: Iterable[PartT], rule: str, name_of: Callable[[PartT], str], sentence: str
) -> Iterator[Finding]:
    first: dict[str, PartT] = {}
    for part in parts:
        earlier = first.setdefault(name_of(part), part)
        if earlier is not part:
            place = f"{earlier.path}:{earlier.mark}"
            text = f"`{part.name}` {sentence}, at {place}"
            yield _finding(part.path, part.mark, rule, text, "error")

"""The registry as it was written: groups, services and principals, each with its place.

`load.py` makes these; `rules.py` checks them; `compile.py` turns a model that passed into a catalog
document. A member that could not be read is None here, and its finding says so; rules pass over it.
Times are in milliseconds.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from headrace.registry.catalog import (
    DEFAULT_CACHE_TTL_MS,
    DEFAULT_MAX_EVENTS,
    FeatureType,
)
from headrace.registry.field_types import FieldType
from headrace.registry.yaml_tree import Mark, YamlMapping

Severity = Literal["error", "warning"]


class Finding(NamedTuple):
    """One broken rule at one place. Sorts by file and place."""

    path: str
    line: int
    column: int
    rule: str
    sentence: str
    severity: Severity = "error"

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}  {self.rule}  {self.sentence}"


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Something declared: its name, and the mapping that declared it, for the places of members."""

    name: str
    mark: Mark
    node: YamlMapping

    def at(self, *members: str) -> Mark:
        """Where a member's value stands; the part itself where there is no such member."""
        node, mark = self.node, self.mark
        for member in members:
            entry = node.entries.get(member)
            if entry is None:
                return mark
            mark = entry[1].mark
            if isinstance(entry[1], YamlMapping):
                node = entry[1]
        return mark


class Field(Part, frozen=True, kw_only=True):
    """One key or value field. `default` has the form answers print; None without one."""

    type: FieldType | None
    is_key_field: bool = False
    nullable: bool = False
    has_default: bool = False
    default: object = None
    description: str = ""
    pii: str | None = None
    deprecated: str | None = None
    feast_name: str | None = None


class Group(Part, frozen=True, kw_only=True):
    """One feature group with the defaults of `product.md` filled in."""

    path: str
    feature_type: FeatureType | None
    owner: str = ""
    description: str = ""
    fields: tuple[Field, ...] = ()
    ttl_ms: int | None = None
    max_age_ms: int | None = None
    max_events: int = DEFAULT_MAX_EVENTS
    cache_ttl_ms: int = DEFAULT_CACHE_TTL_MS
    local_ttl_ms: int = 0
    upsync_enabled: bool = False
    incremental_update: bool = False
    updated_at: str | None = None
    downsync_enabled: bool = False
    min_interval_ms: int = 0
    random_sampling_ratio: float = 1.0
    offline_retention_ms: int | None = None
    feast_name: str | None = None

    @property
    def keys(self) -> list[Field]:
        return [field for field in self.fields if field.is_key_field]

    @property
    def values(self) -> list[Field]:
        return [field for field in self.fields if not field.is_key_field]


class Read(Part, frozen=True, kw_only=True):
    """One read of a service; `name` is the feature group. `fields` None means all."""

    fields: tuple[str, ...] | None = None
    field_marks: tuple[Mark, ...] = ()
    alias: str | None = None
    keys: dict[str, str] = {}
    limit: int | None = None


class Service(Part, frozen=True, kw_only=True):
    path: str
    owner: str = ""
    description: str = ""
    reads: tuple[Read, ...] = ()
    feast_name: str | None = None


class Principal(Part, frozen=True, kw_only=True):
    """An authenticated caller and its grants: patterns such as `live::*`."""

    path: str
    api_key_sha256: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    erase: bool = False
    quota_rps: int | None = None


class Registry(msgspec.Struct, frozen=True, kw_only=True):
    """A whole registry folder. `principals` None: there is no access.yaml (semantics 14)."""

    folder: str
    groups: tuple[Group, ...] = ()
    services: tuple[Service, ...] = ()
    principals: tuple[Principal, ...] | None = None

"""JSON shapes of the control routes. Times are integers in ms, fingerprints 16 hex digits."""

from __future__ import annotations

import msgspec

from headrace.registry.catalog import FeatureType, Group, Service


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """Root of all shapes that routes answer with."""


class FieldShape(Shape, frozen=True, kw_only=True):
    """One value field of the current schema."""

    name: str
    type: str
    nullable: bool
    default: object
    description: str
    deprecated: str | None
    pii: str | None


class KeyShape(Shape, frozen=True, kw_only=True):
    """One key field, in schema order."""

    name: str
    type: str
    description: str
    pii: str | None


class GroupShape(Shape, frozen=True, kw_only=True):
    """One feature group as it is in force."""

    name: str
    feature_type: FeatureType
    owner: str
    description: str
    keys: tuple[KeyShape, ...]
    fields: tuple[FieldShape, ...]
    ttl_ms: int | None
    max_age_ms: int | None
    max_events: int | None
    fingerprint: str


class GroupsShape(Shape, frozen=True, kw_only=True):
    """All feature groups of one generation."""

    generation: int
    feature_groups: tuple[GroupShape, ...]


class ServiceReadShape(Shape, frozen=True, kw_only=True):
    """One read of a service; `fields` null means all value fields."""

    feature_group: str
    fields: tuple[str, ...] | None
    alias: str | None = msgspec.field(name="as")
    keys: dict[str, str]
    limit: int | None


class ServiceShape(Shape, frozen=True, kw_only=True):
    """One feature service as it is in force."""

    name: str
    owner: str
    description: str
    reads: tuple[ServiceReadShape, ...]


class ServicesShape(Shape, frozen=True, kw_only=True):
    """All feature services of one generation."""

    generation: int
    services: tuple[ServiceShape, ...]


class AppendedShape(Shape, frozen=True, kw_only=True):
    """Where the accepted command at `index` of the list stands on the log."""

    index: int
    topic: str
    partition: int
    offset: int


class RefusedShape(Shape, frozen=True, kw_only=True):
    """Why the command at `index` of the list was not appended."""

    index: int
    code: str
    detail: str
    path: str
    offset: int | None


class CommandsShape(Shape, frozen=True, kw_only=True):
    """What became of a list of commands."""

    generation: int
    appended: tuple[AppendedShape, ...]
    refused: tuple[RefusedShape, ...]


class StageShape(Shape, frozen=True, kw_only=True):
    """Time of one step of an explained read."""

    stage: str
    microseconds: float


class TierShape(Shape, frozen=True, kw_only=True):
    """What one tier before the store holds of an explained key."""

    tier: str
    node: str | None
    holds: str
    """`nothing`, a `row`, an `absent row`, `unusable bytes`; or `unreachable`."""
    reason: str | None
    newest_event_time_ms: int | None
    oldest_event_time_ms: int | None
    age_ms: int | None
    expires_in_ms: int | None
    lease: str | None
    equals_store: bool | None
    """Whether the block has the very bytes that a fill would put now."""


class ExplanationShape(Shape, frozen=True, kw_only=True):
    """What the gateway knows of one key and why it would answer as it does."""

    generation: int
    feature_group: str
    feature_type: FeatureType
    keys: dict[str, int | str]
    key_bytes: str
    tier: str
    decision: str
    reason: str
    newest_event_time_ms: int | None
    oldest_event_time_ms: int | None
    age_ms: int | None
    expires_at_ms: int | None
    fingerprint: str
    schema_ordinal: int
    defaulted: tuple[str, ...]
    events: int | None
    tiers: tuple[TierShape, ...]
    """Before the store, nearest first."""
    stages: tuple[StageShape, ...]


class LivenessShape(Shape, frozen=True, kw_only=True):
    alive: bool


class MissingShape(Shape, frozen=True, kw_only=True):
    """Something this process leans on that it cannot reach now."""

    part: str
    reason: str


class ReadinessShape(Shape, frozen=True, kw_only=True):
    """Ready = a catalog is loaded and not draining; the rest is told, and costs no readiness."""

    ready: bool
    draining: bool
    generation: int
    catalog_error: str | None
    missing: tuple[MissingShape, ...] = ()


class VersionShape(Shape, frozen=True, kw_only=True):
    version: str
    format: int


def group_shape(group: Group, fingerprint: int) -> GroupShape:
    """A group of the catalog document as routes show it."""
    return GroupShape(
        name=group.name,
        feature_type=group.feature_type,
        owner=group.owner,
        description=group.description,
        keys=tuple(
            KeyShape(name=key.name, type=key.type, description=key.description, pii=key.pii)
            for key in group.keys
        ),
        fields=tuple(
            FieldShape(
                name=field.name,
                type=field.type,
                nullable=field.nullable,
                default=field.default,
                description=field.description,
                deprecated=field.deprecated,
                pii=field.pii,
            )
            for field in group.fields
        ),
        ttl_ms=group.ttl_ms,
        max_age_ms=group.max_age_ms,
        max_events=group.max_events if group.feature_type == "History" else None,
        fingerprint=fingerprint_text(fingerprint),
    )


def service_shape(service: Service) -> ServiceShape:
    """A service of the catalog document as routes show it."""
    return ServiceShape(
        name=service.name,
        owner=service.owner,
        description=service.description,
        reads=tuple(
            ServiceReadShape(
                feature_group=read.feature_group,
                fields=read.fields,
                alias=read.alias,
                keys=read.keys,
                limit=read.limit,
            )
            for read in service.reads
        ),
    )


def fingerprint_text(fingerprint: int) -> str:
    """16 hex digits, most significant first."""
    return f"{fingerprint:016x}"

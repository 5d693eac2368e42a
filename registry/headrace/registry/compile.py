"""Model + live catalog → the next catalog document: ids, ordinals and the history of schemas.

Pure: equal arguments give equal documents, so a resumed `apply` publishes what the first had.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.registry.catalog import (
    CachePolicy,
    CatalogDocument,
    Downsync,
    Group,
    KeyField,
    RetiredField,
    RetiredGroup,
    Schema,
    Service,
    ServiceRead,
    Upsync,
    ValueField,
)
from headrace.registry.model import Field as ModelField
from headrace.registry.model import Group as ModelGroup
from headrace.registry.model import Registry
from headrace.registry.model import Service as ModelService


def compile_registry(
    registry: Registry, base: CatalogDocument | None, *, now_ms: int
) -> CatalogDocument:
    """The document that follows `base`; `registry` must have passed `check` without an error."""
    known = {group.name: group for group in base.groups} if base is not None else {}
    next_id = base.next_group_id if base is not None else 1
    groups: list[Group] = []
    for group in sorted(registry.groups, key=lambda group: group.name):
        earlier = known.pop(group.name, None)
        if earlier is None:
            groups.append(_first(group, next_id))
            next_id += 1
        else:
            groups.append(_next(group, earlier))
    retired = tuple(RetiredGroup(id=gone.id, name=gone.name) for gone in known.values())
    return CatalogDocument(
        generation=1 if base is None else base.generation + 1,
        published_at_ms=now_ms,
        groups=tuple(groups),
        services=tuple(
            _service(service)
            for service in sorted(registry.services, key=lambda service: service.name)
        ),
        next_group_id=next_id,
        retired_groups=(() if base is None else base.retired_groups) + retired,
    )


def _first(group: ModelGroup, group_id: int) -> Group:
    fields = tuple(_field(field, position) for position, field in enumerate(group.values, start=1))
    return _assemble(group, group_id, (Schema(ordinal=1, fields=fields),), ())


def _next(group: ModelGroup, earlier: Group) -> Group:
    """Known fields keep their ids; removed ones retire; a new record shape is a new schema."""
    ids = {field.name: field.id for field in earlier.fields}
    used = [field.id for schema in earlier.schemas for field in schema.fields]
    next_id = max([*used, *(field.id for field in earlier.retired)], default=0) + 1
    fields: list[ValueField] = []
    for field in group.values:
        field_id = ids.pop(field.name, None)
        if field_id is None:
            field_id, next_id = next_id, next_id + 1
        fields.append(_field(field, field_id))
    gone = tuple(
        RetiredField(id=field.id, name=field.name) for field in earlier.fields if field.name in ids
    )
    current = earlier.schemas[-1]
    if _record_shape(fields) == _record_shape(current.fields):
        # Defaults and descriptions are no part of a record: the same schema says them anew.
        schemas = (*earlier.schemas[:-1], Schema(ordinal=current.ordinal, fields=tuple(fields)))
    else:
        schemas = (*earlier.schemas, Schema(ordinal=current.ordinal + 1, fields=tuple(fields)))
    return _assemble(group, earlier.id, schemas, earlier.retired + gone)


def _record_shape(fields: Sequence[ValueField]) -> list[tuple[int, str, str, bool]]:
    """What the bytes of a record depend on."""
    return [(field.id, field.name, field.type, field.nullable) for field in fields]


def _field(field: ModelField, field_id: int) -> ValueField:
    assert field.type is not None  # noqa: S101 - a checked model; mypy cannot know
    return ValueField(
        id=field_id,
        name=field.name,
        type=field.type.name,
        nullable=field.nullable,
        default=field.default,
        description=field.description,
        pii=field.pii,
        deprecated=field.deprecated,
        feast_name=field.feast_name,
    )


def _key(field: ModelField) -> KeyField:
    assert field.type is not None  # noqa: S101 - a checked model; mypy cannot know
    return KeyField(
        name=field.name, type=field.type.name, description=field.description, pii=field.pii
    )


def _assemble(
    group: ModelGroup,
    group_id: int,
    schemas: tuple[Schema, ...],
    retired: tuple[RetiredField, ...],
) -> Group:
    assert group.feature_type is not None  # noqa: S101 - a checked model; mypy cannot know
    return Group(
        id=group_id,
        name=group.name,
        feature_type=group.feature_type,
        owner=group.owner,
        description=group.description,
        keys=tuple(_key(field) for field in group.keys),
        schemas=schemas,
        retired=retired,
        ttl_ms=group.ttl_ms,
        max_age_ms=group.max_age_ms,
        max_events=group.max_events,
        cache=CachePolicy(ttl_ms=group.cache_ttl_ms, local_ttl_ms=group.local_ttl_ms),
        upsync=Upsync(
            enabled=group.upsync_enabled,
            incremental_update=group.incremental_update,
            updated_at=group.updated_at,
        ),
        downsync=Downsync(
            enabled=group.downsync_enabled,
            min_interval_ms=group.min_interval_ms,
            random_sampling_ratio=group.random_sampling_ratio,
        ),
        offline_retention_ms=group.offline_retention_ms,
        feast_name=group.feast_name,
    )


def _service(service: ModelService) -> Service:
    return Service(
        name=service.name,
        owner=service.owner,
        description=service.description,
        reads=tuple(
            ServiceRead(
                feature_group=read.name,
                fields=read.fields,
                alias=read.alias,
                keys=read.keys,
                limit=read.limit,
            )
            for read in service.reads
        ),
        feast_name=service.feast_name,
    )

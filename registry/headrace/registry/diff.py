"""Two catalog documents → typed changes. Says what changed, not whether that is allowed.

`before` and `after` are the values of the documents; each change knows which part it is about.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

import msgspec

from headrace.registry.catalog import (
    CatalogDocument,
    Group,
    KeyField,
    RetiredField,
    RetiredGroup,
    Service,
    ValueField,
)


class ChangeRecord(msgspec.Struct, frozen=True, kw_only=True, tag_field="change"):
    """Root of the changes. `part` is the group or service, `field` the value field, if one."""

    part: str
    field: str | None = None


class GroupAdded(ChangeRecord, frozen=True, kw_only=True, tag="group_added"):
    group: Group
    retired: tuple[RetiredGroup, ...] = ()


class GroupRemoved(ChangeRecord, frozen=True, kw_only=True, tag="group_removed"):
    group: Group


class GroupMemberChanged(ChangeRecord, frozen=True, kw_only=True, tag="group_member_changed"):
    """A member of the group itself, such as `ttl_ms`."""

    member: str
    before: object
    after: object


class KeysChanged(ChangeRecord, frozen=True, kw_only=True, tag="keys_changed"):
    before: tuple[KeyField, ...]
    after: tuple[KeyField, ...]


class FieldAdded(ChangeRecord, frozen=True, kw_only=True, tag="field_added"):
    after: ValueField
    retired: tuple[RetiredField, ...] = ()


class FieldRemoved(ChangeRecord, frozen=True, kw_only=True, tag="field_removed"):
    before: ValueField


class FieldMemberChanged(ChangeRecord, frozen=True, kw_only=True, tag="field_member_changed"):
    """A member of a value field, such as `type` or `default`."""

    member: str
    before: object
    after: object


class FieldsReordered(ChangeRecord, frozen=True, kw_only=True, tag="fields_reordered"):
    """The fields that stay stand in another order."""

    before: tuple[str, ...]
    after: tuple[str, ...]


class ServiceAdded(ChangeRecord, frozen=True, kw_only=True, tag="service_added"):
    service: Service


class ServiceRemoved(ChangeRecord, frozen=True, kw_only=True, tag="service_removed"):
    service: Service


class ServiceChanged(ChangeRecord, frozen=True, kw_only=True, tag="service_changed"):
    """Anything of a service. `request_keys_*` are the key columns that callers send."""

    before: Service
    after: Service
    request_keys_before: tuple[str, ...]
    request_keys_after: tuple[str, ...]


Change: TypeAlias = (
    GroupAdded
    | GroupRemoved
    | GroupMemberChanged
    | KeysChanged
    | FieldAdded
    | FieldRemoved
    | FieldMemberChanged
    | FieldsReordered
    | ServiceAdded
    | ServiceRemoved
    | ServiceChanged
)

# Members of a catalog group that `diff` compares one by one; the rest has changes of its own.
_GROUP_MEMBERS: Final = (
    "feature_type",
    "owner",
    "description",
    "ttl_ms",
    "max_age_ms",
    "max_events",
    "cache",
    "upsync",
    "downsync",
    "offline_retention_ms",
    "feast_name",
)
_FIELD_MEMBERS: Final = (
    "type",
    "nullable",
    "default",
    "description",
    "pii",
    "deprecated",
    "feast_name",
)


def diff_documents(before: CatalogDocument | None, after: CatalogDocument) -> list[Change]:
    """All changes, groups first, in the order of names; empty when nothing would change."""
    old_groups = {group.name: group for group in before.groups} if before else {}
    old_services = {service.name: service for service in before.services} if before else {}
    retired = before.retired_groups if before else ()
    return [
        *_groups(old_groups, after, retired),
        *_services(old_groups, old_services, after),
    ]


def _groups(
    before: dict[str, Group], after: CatalogDocument, retired: tuple[RetiredGroup, ...]
) -> Iterator[Change]:
    left = dict(before)
    for group in after.groups:
        old = left.pop(group.name, None)
        if old is None:
            yield GroupAdded(part=group.name, group=group, retired=retired)
        else:
            yield from _group(old, group)
    for name, gone in left.items():
        yield GroupRemoved(part=name, group=gone)


def _group(before: Group, after: Group) -> Iterator[Change]:
    for member in _GROUP_MEMBERS:
        old, new = getattr(before, member), getattr(after, member)
        if old != new:
            yield GroupMemberChanged(part=after.name, member=member, before=old, after=new)
    if before.keys != after.keys:
        yield KeysChanged(part=after.name, before=before.keys, after=after.keys)
    old_fields = {field.name: field for field in before.fields}
    for field in after.fields:
        earlier = old_fields.get(field.name)
        if earlier is None:
            yield FieldAdded(part=after.name, field=field.name, after=field, retired=before.retired)
        else:
            yield from _field(after.name, earlier, field)
    names = {field.name for field in after.fields}
    for field in before.fields:
        if field.name not in names:
            yield FieldRemoved(part=after.name, field=field.name, before=field)
    kept_before = tuple(field.name for field in before.fields if field.name in names)
    kept_after = tuple(field.name for field in after.fields if field.name in old_fields)
    if kept_before != kept_after:
        yield FieldsReordered(part=after.name, before=kept_before, after=kept_after)


def _field(group: str, before: ValueField, after: ValueField) -> Iterator[Change]:
    for member in _FIELD_MEMBERS:
        old, new = getattr(before, member), getattr(after, member)
        # 1 == 1.0 == True, and each is another default.
        if old != new or type(old) is not type(new):
            yield FieldMemberChanged(
                part=group, field=after.name, member=member, before=old, after=new
            )


def _services(
    old_groups: dict[str, Group], before: dict[str, Service], after: CatalogDocument
) -> Iterator[Change]:
    new_groups = {group.name: group for group in after.groups}
    left = dict(before)
    for service in after.services:
        old = left.pop(service.name, None)
        if old is None:
            yield ServiceAdded(part=service.name, service=service)
        elif old != service:
            yield ServiceChanged(
                part=service.name,
                before=old,
                after=service,
                request_keys_before=request_keys(old, old_groups),
                request_keys_after=request_keys(service, new_groups),
            )
    for name, gone in left.items():
        yield ServiceRemoved(part=name, service=gone)


def request_keys(service: Service, groups: dict[str, Group]) -> tuple[str, ...]:
    """The key columns that callers of a service send, each once, in the order of its reads."""
    names: dict[str, None] = {}
    for read in service.reads:
        group = groups.get(read.feature_group)
        keys: Sequence[KeyField] = () if group is None else group.keys
        names.update((read.keys.get(key.name, key.name), None) for key in keys)
    return tuple(names)

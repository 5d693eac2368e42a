"""Names of tables, folders and topics: pure functions of registry names.

A group `domain::name` keeps to `[a-z][a-z0-9]*` words with single inner hyphens on each side
(semantics 9). A table replaces `::` by `__` and `-` by `_`. Neither side can hold `_`, and hyphens
are single and inner, so `__` stands exactly once and `group_name` undoes the mapping: it is
injective, and a table never has the name of a keyword or of a table of our own.
"""

from __future__ import annotations

import re
from typing import Final, Literal

GROUP_NAME_LENGTH_MAX: Final = 44
"""CQL ends table names at 48 characters; four are left for a suffix of a rebuilt table."""

FIELD_NAME_LENGTH_MAX: Final = 48

_SIDE: Final = r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*"
GROUP_NAME: Final = re.compile(rf"{_SIDE}::{_SIDE}\Z")
SERVICE_NAME: Final = re.compile(rf"(?:{_SIDE}::)?{_SIDE}-v[1-9][0-9]*\Z")
FIELD_NAME: Final = re.compile(r"[a-z][a-z0-9_]*\Z")

RESERVED_KEY_NAMES: Final = frozenset({"record", "patch", "event", "event_time", "event_id"})
"""Columns of our own in the tables of the online store."""

CATALOG_GENERATION: Final = "catalog/generation"
"""Named value of an embedded store: the live generation in decimal digits."""

CATALOG_DOCUMENT: Final = "catalog/document"
"""Named value of an embedded store: the live catalog document."""

Role = Literal["writer", "downsync"]
Topic = Literal["realtime", "bulk", "dead-letters"]


def is_group_name(text: str) -> bool:
    return len(text) <= GROUP_NAME_LENGTH_MAX and GROUP_NAME.match(text) is not None


def is_service_name(text: str) -> bool:
    return len(text) <= GROUP_NAME_LENGTH_MAX and SERVICE_NAME.match(text) is not None


def is_field_name(text: str) -> bool:
    return len(text) <= FIELD_NAME_LENGTH_MAX and FIELD_NAME.match(text) is not None


def table_name(group: str) -> str:
    """`live::host-stat-v1` → `live__host_stat_v1`: CQL table, offline table and offline folder."""
    return group.replace("::", "__").replace("-", "_")


def group_name(table: str) -> str:
    """The inverse of `table_name`."""
    return table.replace("__", "::").replace("_", "-")


def avro_name(group: str, ordinal: int) -> str:
    """`headrace.live.s3.host_stat_v1`: the full name of a group's record schema (semantics 6)."""
    domain, _, name = group.partition("::")
    return f"headrace.{domain.replace('-', '_')}.s{ordinal}.{name.replace('-', '_')}"


def topic_name(prefix: str, topic: Topic) -> str:
    """`headrace.realtime`: a topic of the command log; all groups share it."""
    return f"{prefix}.{topic}"


def consumer_group(prefix: str, role: Role) -> str:
    """`headrace.writer`: the consumer group of one role; never equal to a topic."""
    return f"{prefix}.{role}"


def quoted(identifier: str) -> str:
    """An identifier for CQL, BigQuery's ANSI parts and DuckDB: a field may be called `order`.

    Only names that passed the rules reach here; the check is the last door before a statement.
    """
    if re.match(r"[a-z_][a-z0-9_]*\Z", identifier) is None:
        raise ValueError(f"`{identifier!r}` is not a physical name")
    return f'"{identifier}"'

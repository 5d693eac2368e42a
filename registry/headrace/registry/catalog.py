"""The catalog document: the compiled registry as it is published, one JSON text a generation.

`apply` writes it, the online store keeps it, gateways and workers read it, and the Rust
`headrace.codec.Catalog` compiles it. Times are integers in milliseconds. Default values take the
form answers print: Bytes as base64, Date and Timestamp as ISO 8601.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Literal, TypeVar

import msgspec

FeatureType = Literal["Object", "History"]

DOCUMENT_FORMAT = 1
"""Version of this document's layout; a reader refuses a newer one."""

DEFAULT_MAX_EVENTS = 100
DEFAULT_CACHE_TTL_MS = 600_000


class Document(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=False,
    forbid_unknown_fields=False,
    gc=False,  # A document has no cycles, and a big one would be walked again and again.
):
    """Base of all parts of the document; a newer minor writer may add members that we ignore."""


class KeyField(Document, frozen=True, kw_only=True):
    """One key field, in schema order. `type` is Text, Integer or Long."""

    name: str
    type: str
    description: str = ""
    pii: str | None = None


class ValueField(Document, frozen=True, kw_only=True):
    """One value field of one schema. `id` is given once by `apply` and never used again."""

    id: int
    name: str
    type: str
    nullable: bool = False
    default: object = None
    description: str = ""
    pii: str | None = None
    deprecated: str | None = None
    feast_name: str | None = None


class Schema(Document, frozen=True, kw_only=True):
    """A record schema as registered; `ordinal` starts at 1 and is part of its Avro namespace."""

    ordinal: int
    fields: tuple[ValueField, ...]


class RetiredField(Document, frozen=True, kw_only=True):
    """A removed field: neither its id nor its name may come back."""

    id: int
    name: str


class RetiredGroup(Document, frozen=True, kw_only=True):
    """A removed group: its name may not come back, its table may still hold rows of old schemas."""

    id: int
    name: str


class CachePolicy(Document, frozen=True, kw_only=True):
    """How long blocks may live in Redis and in the process; 0 turns a tier off."""

    ttl_ms: int = DEFAULT_CACHE_TTL_MS
    local_ttl_ms: int = 0


class Upsync(Document, frozen=True, kw_only=True):
    """Warehouse to online. `updated_at` names the offline column of the high-water mark."""

    enabled: bool = False
    incremental_update: bool = False
    updated_at: str | None = None


class Downsync(Document, frozen=True, kw_only=True):
    """Real time to warehouse: at most one row per key and interval, a sample of them."""

    enabled: bool = False
    min_interval_ms: int = 0
    random_sampling_ratio: float = 1.0


class Group(Document, frozen=True, kw_only=True):
    """One feature group. `schemas` holds every schema ever registered; the last one is current."""

    id: int
    name: str
    feature_type: FeatureType
    owner: str
    description: str = ""
    keys: tuple[KeyField, ...]
    schemas: tuple[Schema, ...]
    retired: tuple[RetiredField, ...] = ()
    ttl_ms: int | None = None
    max_age_ms: int | None = None
    max_events: int = DEFAULT_MAX_EVENTS
    cache: CachePolicy = CachePolicy()
    upsync: Upsync = Upsync()
    downsync: Downsync = Downsync()
    offline_retention_ms: int | None = None
    feast_name: str | None = None

    @property
    def fields(self) -> tuple[ValueField, ...]:
        """Value fields of the current schema, in schema order."""
        return self.schemas[-1].fields


class ServiceRead(Document, frozen=True, kw_only=True):
    """One read of a service. `keys` maps each key field of the group to a request key."""

    feature_group: str
    fields: tuple[str, ...] | None = None
    alias: str | None = None
    keys: dict[str, str] = {}
    limit: int | None = None


class Service(Document, frozen=True, kw_only=True):
    """A named set of reads that one model makes. `fields` None means all value fields."""

    name: str
    owner: str
    description: str = ""
    reads: tuple[ServiceRead, ...]
    feast_name: str | None = None


class CatalogDocument(Document, frozen=True, kw_only=True):
    """The whole registry at one generation."""

    format: int = DOCUMENT_FORMAT
    generation: int
    published_at_ms: int
    groups: tuple[Group, ...] = ()
    services: tuple[Service, ...] = ()
    next_group_id: int = 1
    retired_groups: tuple[RetiredGroup, ...] = ()


def encode_document(document: CatalogDocument) -> bytes:
    """The published JSON text; equal documents give equal bytes."""
    return msgspec.json.encode(document, order="deterministic")


class DocumentText(Document, frozen=True, kw_only=True):
    """The document with groups and services still as text."""

    format: int = DOCUMENT_FORMAT
    generation: int
    published_at_ms: int
    groups: tuple[msgspec.Raw, ...] = ()
    services: tuple[msgspec.Raw, ...] = ()
    next_group_id: int = 1
    retired_groups: tuple[RetiredGroup, ...] = ()


PORTION_BYTES = 16 * 1024
"""Text decoded in one turn of `decode_in_portions`: some tenths of a millisecond."""


def decode_in_portions(text: bytes) -> Generator[None, None, CatalogDocument]:
    """`decode_document` in steps that take well below a millisecond; the document is returned."""
    try:
        parts = msgspec.json.decode(text, type=DocumentText)
        groups = yield from _decode_each(parts.groups, Group)
        services = yield from _decode_each(parts.services, Service)
    except msgspec.ValidationError:
        return decode_document(text)  # raises the same, naming the place in the whole text
    return CatalogDocument(
        format=parts.format,
        generation=parts.generation,
        published_at_ms=parts.published_at_ms,
        groups=tuple(groups),
        services=tuple(services),
        next_group_id=parts.next_group_id,
        retired_groups=parts.retired_groups,
    )


Part = TypeVar("Part", bound=Document)


def _decode_each(
    texts: tuple[msgspec.Raw, ...], kind: type[Part]
) -> Generator[None, None, list[Part]]:
    decoder = msgspec.json.Decoder(kind)
    decoded: list[Part] = []
    waiting_bytes = 0
    for text in texts:
        decoded.append(decoder.decode(text))
        waiting_bytes += len(memoryview(text))
        if waiting_bytes >= PORTION_BYTES:
            waiting_bytes = 0
            yield
    return decoded


def decode_document(text: bytes) -> CatalogDocument:
    """Read a published document; raises `msgspec.ValidationError` naming the place."""
    return msgspec.json.decode(text, type=CatalogDocument)

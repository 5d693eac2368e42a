"""Ports of the catalog: narrow, asynchronous, separate for reading and writing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from headrace.registry.catalog import CatalogDocument, Group


class CatalogReader(Protocol):
    """Where a running process looks for the newest generation."""

    async def generation(self) -> int:
        """The live generation, 0 when none was ever published; cheap enough to ask every 250 ms."""
        ...

    async def load(self) -> bytes | None:
        """The live catalog document, None when none was ever published."""
        ...


class CatalogWriter(Protocol):
    """Publishing, by compare-and-set on the generation (semantics 21)."""

    async def publish(self, document: CatalogDocument) -> bool:
        """Publish `document` if the live generation is exactly one less; False when it is not."""
        ...


class TableAdmin(Protocol):
    """Tables of an online store, one per feature group."""

    async def create(self, groups: Sequence[Group]) -> None:
        """Create what is missing for these groups; existing tables are left as they are."""
        ...

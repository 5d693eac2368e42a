"""The catalog in a dict, for tests and for composing a process without a disk."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.registry.physical import CATALOG_DOCUMENT, CATALOG_GENERATION


class MemoryCatalogReader:
    """`CatalogReader` over the named values that a memory store's writing side fills."""

    def __init__(self, named: Mapping[str, bytes]) -> None:
        self._named = named

    async def generation(self) -> int:
        """The live generation, 0 when none was ever published."""
        return int(self._named.get(CATALOG_GENERATION, b"0"))

    async def load(self) -> bytes | None:
        """The live catalog document, None when none was ever published."""
        return self._named.get(CATALOG_DOCUMENT)

"""The catalog as the embedded store keeps it: two named values, written in one transaction."""

from __future__ import annotations

import asyncio

from headrace.codec import LmdbStore
from headrace.registry.physical import CATALOG_DOCUMENT, CATALOG_GENERATION


class LmdbCatalogReader:
    """`CatalogReader` over the process' one store handle; a read takes microseconds."""

    def __init__(self, store: LmdbStore) -> None:
        self._store = store

    async def generation(self) -> int:
        """The live generation, 0 when none was ever published."""
        return int(self._store.get(CATALOG_GENERATION) or b"0")

    async def load(self) -> bytes | None:
        """The live catalog document, None when none was ever published."""
        # It may be tens of megabytes: copied in a thread, without the interpreter.
        return await asyncio.to_thread(self._store.get, CATALOG_DOCUMENT)

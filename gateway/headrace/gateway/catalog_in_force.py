"""The catalog in force, as the control routes see it, and why a newer one was rejected."""

from __future__ import annotations

from typing import Protocol

from headrace.codec import Catalog
from headrace.gateway.errors import CatalogMissing
from headrace.registry.catalog import CatalogDocument, Group, Service


class CatalogWatch(Protocol):
    """What brings new generations here; `headrace.registry.watch.CatalogWatcher` is one."""

    problem: str | None
    """Why the newest generation is not in force; None when it is."""

    async def refresh(self) -> object:
        """Look for a newer generation now and put it into force; never raises, single flight."""
        ...


class CatalogInForce:
    """One generation at a time: `install` swaps the compiled catalog and its document together."""

    def __init__(self, watch: CatalogWatch) -> None:
        self._watch = watch
        self._catalog: Catalog | None = None
        self._document: CatalogDocument | None = None
        self._groups: dict[str, Group] = {}
        self._services: dict[str, Service] = {}
        self.generation_text = b"0"
        """The generation as response headers carry it."""

    def install(self, catalog: Catalog, document: CatalogDocument) -> None:
        """Put a generation into force."""
        self._catalog, self._document = catalog, document
        self._groups = {group.name: group for group in document.groups}
        self._services = {service.name: service for service in document.services}
        self.generation_text = b"%d" % document.generation

    @property
    def loaded(self) -> bool:
        return self._catalog is not None

    @property
    def rejected(self) -> str | None:
        """Why a newer generation could not be loaded; the one in force stays."""
        return self._watch.problem

    @property
    def generation(self) -> int:
        """0 before the first catalog."""
        return 0 if self._document is None else self._document.generation

    @property
    def catalog(self) -> Catalog:
        """Raises `CatalogMissing` before the first one."""
        if self._catalog is None:
            raise CatalogMissing(self.why_missing())
        return self._catalog

    @property
    def document(self) -> CatalogDocument:
        """Raises `CatalogMissing` before the first one."""
        if self._document is None:
            raise CatalogMissing(self.why_missing())
        return self._document

    def group(self, name: str) -> Group | None:
        return self._groups.get(name)

    def service(self, name: str) -> Service | None:
        return self._services.get(name)

    def group_names(self) -> list[str]:
        return list(self._groups)

    def service_names(self) -> list[str]:
        return list(self._services)

    async def refresh(self) -> None:
        """Look for a newer generation; callers that come meanwhile share one look."""
        await self._watch.refresh()

    def why_missing(self) -> str:
        """One sentence for callers that come before the first catalog."""
        if self.rejected is not None:
            return f"no catalog is in force: {self.rejected}"
        return "no catalog was ever published; run `headrace apply` first"

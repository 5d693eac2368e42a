"""The live catalog, for commands that work on its groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from headrace.registry.errors import CatalogMissing
from headrace.registry.names import did_you_mean

if TYPE_CHECKING:
    from headrace.cli.engines import OnlineEngine
    from headrace.codec import Catalog
    from headrace.registry.catalog import CatalogDocument, Group


async def live_catalog(engine: OnlineEngine) -> tuple[Catalog, CatalogDocument]:
    """The newest generation, compiled and as a document; raises `CatalogMissing`."""
    from headrace.registry.watch import compile_document

    text = await engine.catalog_reader().load()
    if text is None:
        raise CatalogMissing("no catalog was ever published; run `headrace apply` first")
    return compile_document(text)


def group_named(document: CatalogDocument, name: str) -> Group:
    """The group of this name; a usage error naming the nearest one when there is none."""
    groups = {group.name: group for group in document.groups}
    if name not in groups:
        hint = did_you_mean(name, groups)
        raise click.UsageError(f"there is no group `{name}` in the live catalog{hint}")
    return groups[name]

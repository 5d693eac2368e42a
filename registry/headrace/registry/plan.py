"""Model × live catalog → a plan: typed changes, breaches, and ordered inert steps.

Steps do nothing by themselves: `explain` prints them and `apply` walks them, so that the two cannot
say different things.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, TypeAlias

import msgspec

from headrace.registry.catalog import CatalogDocument, Group
from headrace.registry.compatibility import Breach, find_breaches
from headrace.registry.compile import compile_registry
from headrace.registry.diff import Change, GroupAdded, diff_documents
from headrace.registry.model import Registry
from headrace.registry.physical import table_name

Risk = Literal["none", "compatible", "breaking"]


class CreateTables(msgspec.Struct, frozen=True, tag="create_tables", tag_field="step"):
    """Tables of new groups. Nobody reads or writes them before the catalog is published."""

    groups: tuple[Group, ...]

    def __str__(self) -> str:
        tables = ", ".join(f"`{table_name(group.name)}`" for group in self.groups)
        return f"create {'table' if len(self.groups) == 1 else 'tables'} {tables}"


class PublishCatalog(msgspec.Struct, frozen=True, tag="publish_catalog", tag_field="step"):
    """The commit point: processes swap to this document within a second."""

    document: CatalogDocument

    def __str__(self) -> str:
        return f"publish catalog generation {self.document.generation}"


Step: TypeAlias = CreateTables | PublishCatalog


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What `apply` would do to the catalog of `base_generation` (0: there is none)."""

    base_generation: int
    changes: tuple[Change, ...]
    breaches: tuple[Breach, ...]
    steps: tuple[Step, ...]

    @property
    def risk(self) -> Risk:
        if not self.changes:
            return "none"
        return "breaking" if self.breaches else "compatible"

    def refused(self, accepted: Collection[str] = ()) -> list[Breach]:
        """Breaches that stand against this plan when these rules are accepted; WIRE always does."""
        return [
            breach
            for breach in self.breaches
            if breach.level == "WIRE" or breach.rule not in accepted
        ]


def make_plan(registry: Registry, base: CatalogDocument | None, *, now_ms: int) -> Plan:
    """Plan the way from the live catalog to a registry that passed `check`."""
    document = compile_registry(registry, base, now_ms=now_ms)
    changes = diff_documents(base, document)
    new = tuple(change.group for change in changes if isinstance(change, GroupAdded))
    steps: list[Step] = []
    if new:
        steps.append(CreateTables(new))
    if changes:
        steps.append(PublishCatalog(document))
    return Plan(
        base_generation=0 if base is None else base.generation,
        changes=tuple(changes),
        breaches=tuple(find_breaches(changes)),
        steps=tuple(steps),
    )

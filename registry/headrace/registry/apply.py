"""Walks a plan's steps. Idempotent and resumable: killed anywhere, it is simply run again.

Tables are created only where they are missing, and the one step that anybody notices is a
compare-and-set of the generation (semantics 21). Before it nothing has changed; after it all has.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from headrace.registry.errors import PlanRefused, PublishConflict
from headrace.registry.plan import CreateTables, Plan, Step
from headrace.registry.ports import CatalogWriter, TableAdmin


def _quiet(_: Step) -> None:
    """Reports nothing."""


async def apply_plan(
    plan: Plan,
    tables: TableAdmin,
    catalog: CatalogWriter,
    *,
    accepted: Collection[str] = (),
    report: Callable[[Step], None] = _quiet,
) -> int:
    """Make the plan real and return the live generation; `report` hears of each step once done.

    Raises `PlanRefused` for a breach that `accepted` does not cover, before any step, and
    `PublishConflict` when the live catalog is not the one that was planned on.
    """
    refused = plan.refused(accepted)
    if refused:
        rules = ", ".join(dict.fromkeys(breach.rule for breach in refused))
        raise PlanRefused(f"refused as breaking: {rules}")
    generation = plan.base_generation
    for step in plan.steps:
        if isinstance(step, CreateTables):
            await tables.create(step.groups)
        else:
            generation = step.document.generation
            if not await catalog.publish(step.document):
                raise PublishConflict(
                    f"generation {generation} was published by somebody else meanwhile; "
                    "run `headrace plan` again and look at what is left to change"
                )
        report(step)
    return generation

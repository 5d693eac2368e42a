"""`headrace apply`: create tables and publish the next generation of the catalog."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from headrace.cli.options import json_option, print_json, with_settings
from headrace.registry.settings import Settings

if TYPE_CHECKING:
    from headrace.cli.engines import OnlineEngine
    from headrace.registry.compatibility import Breach
    from headrace.registry.model import Registry
    from headrace.registry.plan import Plan, Step

EXIT_REFUSED: Final = 3


@click.command()
@click.argument("directory", required=False, type=click.Path(path_type=Path))
@click.option(
    "--accept",
    "accepted",
    multiple=True,
    metavar="RULE_ID",
    help="Make changes that break this rule all the same. Not for rules that protect stored bytes.",
)
@json_option
@with_settings("online", "commands")
def command(
    directory: Path | None, accepted: tuple[str, ...], as_json: bool, settings: Settings
) -> int:
    """Bring the live catalog to the registry in DIRECTORY.

    Exits 0 when done or nothing is to do, 3 when a change is breaking and not accepted.
    """
    from headrace.cli.plan import checked_registry

    _check_accepted(accepted)
    registry = checked_registry(directory or Path(settings.registry))
    plan, refused = asyncio.run(_apply(registry, settings, accepted))
    _print_outcome(plan, refused, registry, as_json=as_json)
    return EXIT_REFUSED if refused else 0


async def _apply(
    registry: Registry, settings: Settings, accepted: Collection[str]
) -> tuple[Plan, list[Breach]]:
    from headrace.cli.engines import create_command_topics, open_online

    engine = await open_online(settings.online, create=True)
    try:
        plan, refused = await apply_registry(registry, engine, accepted=accepted)
    finally:
        await engine.close()
    if not refused:
        for topic in await create_command_topics(settings.commands):
            click.echo(f"done: create topic `{topic}`", err=True)
    return plan, refused


async def apply_registry(
    registry: Registry, engine: OnlineEngine, *, accepted: Collection[str] = ()
) -> tuple[Plan, list[Breach]]:
    """Plan on the live catalog and apply; with a breach that is not accepted nothing is done.

    Returns the plan and those breaches. Raises `PublishConflict` when somebody else was faster.
    """
    from headrace.cli.plan import plan_live
    from headrace.registry.apply import apply_plan

    plan = await plan_live(registry, engine)
    refused = plan.refused(accepted)
    if not refused:
        await apply_plan(
            plan,
            engine.table_admin(),
            engine.catalog_writer(),
            accepted=accepted,
            report=_report,
        )
    return plan, refused


def _report(step: Step) -> None:
    click.echo(f"done: {step}", err=True)


def _print_outcome(plan: Plan, refused: list[Breach], registry: Registry, *, as_json: bool) -> None:
    from headrace.cli.plan import print_breaches
    from headrace.registry.explain import plan_as_json

    if as_json:
        print_json(plan_as_json(plan, registry) | {"applied": not refused})
    elif refused:
        print_breaches(refused, registry)
        click.echo("refused as breaking; nothing was changed", err=True)
    elif not plan.changes:
        click.echo(f"nothing to do: generation {plan.base_generation} is live")
    else:
        click.echo(f"generation {plan.base_generation + 1} is live")


def _check_accepted(accepted: tuple[str, ...]) -> None:
    from headrace.registry.compatibility import COMPATIBILITY_RULES
    from headrace.registry.names import did_you_mean

    levels = {rule.id: rule.level for rule in COMPATIBILITY_RULES}
    for rule in accepted:
        if rule not in levels:
            hint = did_you_mean(rule, levels)
            raise click.UsageError(f"`--accept {rule}`: there is no such rule{hint}")
        if levels[rule] == "WIRE":
            raise click.UsageError(
                f"`--accept {rule}`: stored bytes depend on this rule; it cannot be accepted"
            )

"""`headrace plan`: what `apply` would change, and what stands against it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from headrace.cli.options import json_option, print_json, with_settings
from headrace.registry.settings import Settings

if TYPE_CHECKING:
    from headrace.cli.engines import OnlineEngine
    from headrace.registry.model import Registry
    from headrace.registry.plan import Plan

EXIT_CHANGES: Final = 2
EXIT_BREAKING: Final = 3


@click.command()
@click.argument("directory", required=False, type=click.Path(path_type=Path))
@json_option
@with_settings("online")
def command(directory: Path | None, as_json: bool, settings: Settings) -> int:
    """Compare the registry in DIRECTORY with the live catalog.

    Exits 0 when nothing would change, 2 for compatible changes, 3 for breaking ones.
    """
    from headrace.cli.engines import open_online_if_there
    from headrace.registry.explain import explain_plan, plan_as_json

    registry = checked_registry(directory or Path(settings.registry))
    engine = open_online_if_there(settings.online)
    plan = live_plan(registry, engine)
    if as_json:
        print_json(plan_as_json(plan, registry))
    else:
        for line in explain_plan(plan):
            click.echo(line)
        print_breaches(plan, registry)
    return {"none": 0, "compatible": EXIT_CHANGES, "breaking": EXIT_BREAKING}[plan.risk]


def checked_registry(folder: Path) -> Registry:
    """The model of a folder without errors; with any, prints them and exits 1."""
    from headrace.cli.check import print_findings, summary
    from headrace.registry.load import load_registry

    loaded = load_registry(folder)
    if loaded.errors:
        print_findings(loaded.errors, "text")
        raise click.ClickException(f"{summary(loaded.errors)}; `headrace check` must pass first")
    return loaded.registry


def live_plan(registry: Registry, engine: OnlineEngine | None) -> Plan:
    """The plan from the live catalog to `registry`; without an online store there is none yet."""
    import asyncio

    from headrace.registry.catalog import decode_document
    from headrace.registry.plan import make_plan

    text = None if engine is None else asyncio.run(_load(engine))
    base = None if text is None else decode_document(text)
    return make_plan(registry, base, now_ms=time.time_ns() // 1_000_000)


async def _load(engine: OnlineEngine) -> bytes | None:
    return await engine.catalog_reader().load()


def print_breaches(plan: Plan, registry: Registry) -> None:
    """Each breach with its place, rule, sentence and what to do instead."""
    from headrace.registry.explain import place_breaches

    for placed in place_breaches(plan.breaches, registry):
        click.echo(placed)

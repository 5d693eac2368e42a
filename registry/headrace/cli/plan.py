"""`headrace plan`: what `apply` would change, and what stands against it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from headrace.cli.options import json_option, print_json, with_settings
from headrace.registry.settings import Settings

if TYPE_CHECKING:
    from headrace.cli.engines import OnlineEngine
    from headrace.registry.compatibility import Breach
    from headrace.registry.model import Registry
    from headrace.registry.plan import Plan

EXIT_OF_RISK: Final = {"none": 0, "compatible": 2, "breaking": 3}


@click.command()
@click.argument("directory", required=False, type=click.Path(path_type=Path))
@json_option
@with_settings("online")
def command(directory: Path | None, as_json: bool, settings: Settings) -> int:
    """Compare the registry in DIRECTORY with the live catalog.

    Exits 0 when nothing would change, 2 for compatible changes, 3 for breaking ones.
    """
    from headrace.registry.explain import explain_plan, plan_as_json

    registry = checked_registry(directory or Path(settings.registry))
    plan = asyncio.run(_plan(registry, settings.online))
    if as_json:
        print_json(plan_as_json(plan, registry))
    else:
        click.echo("\n".join(explain_plan(plan)))
        print_breaches(plan.breaches, registry)
    return EXIT_OF_RISK[plan.risk]


async def _plan(registry: Registry, online_url: str) -> Plan:
    from headrace.cli.engines import open_online_if_there

    engine = await open_online_if_there(online_url)
    try:
        return await plan_live(registry, engine)
    finally:
        if engine is not None:
            await engine.close()


def checked_registry(folder: Path) -> Registry:
    """The model of a folder without errors; with any, prints them and exits 1."""
    from headrace.cli.check import print_findings, summary
    from headrace.registry.load import load_registry

    loaded = load_registry(folder)
    if loaded.errors:
        print_findings(loaded.errors, "text", folder)
        raise click.ClickException(f"{summary(loaded.errors)}; `headrace check` must pass first")
    return loaded.registry


async def plan_live(registry: Registry, engine: OnlineEngine | None) -> Plan:
    """The plan from the live catalog to `registry`; without an online store there is none yet."""
    from headrace.registry.catalog import decode_document
    from headrace.registry.plan import make_plan

    text = None if engine is None else await engine.catalog_reader().load()
    base = None if text is None else decode_document(text)
    return make_plan(registry, base, now_ms=time.time_ns() // 1_000_000)


def print_breaches(breaches: Sequence[Breach], registry: Registry) -> None:
    """Each breach with its place, rule, sentence and what to do instead."""
    from headrace.registry.explain import place_breaches

    for placed in place_breaches(breaches, registry):
        click.echo(placed)

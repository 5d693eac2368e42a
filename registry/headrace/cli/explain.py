"""`headrace explain`: where an answer comes from and why, step by step."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import click
import msgspec

from headrace.cli.options import json_option, print_json, with_settings
from headrace.registry.settings import Settings

if TYPE_CHECKING:
    from headrace.gateway.wire import ExplanationShape, TierShape

EXIT_MISSING = 1


@click.command()
@click.argument("group")
@click.argument("keys", nargs=-1, required=True, metavar="KEY=VALUE...")
@json_option
@with_settings("online", "cache")
def command(group: str, keys: tuple[str, ...], as_json: bool, settings: Settings) -> int:
    """Say which tier answers for the row of GROUP at KEY=VALUE, how old it is and why so.

    Exits 1 when there is no such row.
    """
    explanation = asyncio.run(_explain(settings, group, _parameters(keys)))
    if as_json:
        print_json(explanation)
    else:
        _print(explanation)
    return EXIT_MISSING if explanation.decision == "MISSING" else 0


async def _explain(settings: Settings, group: str, parameters: dict[str, str]) -> ExplanationShape:
    from headrace.cli.engines import cache_of, open_online
    from headrace.cli.gateway_role import now_ms
    from headrace.gateway.catalog_in_force import CatalogInForce
    from headrace.gateway.errors import CallerError
    from headrace.gateway.explain import Explainer
    from headrace.registry.watch import CatalogWatcher

    cache = cache_of(settings)
    async with contextlib.AsyncExitStack() as opened:
        engine = await open_online(settings.online, read_only=True)
        opened.push_async_callback(engine.close)
        tiers = None
        if cache is not None:
            from headrace.gateway.cached.tiers import open_tiers

            tiers = await opened.enter_async_context(open_tiers(cache, now_ms))
        watcher = CatalogWatcher(engine.catalog_reader(), now_ms)
        in_force = CatalogInForce(watcher)
        watcher.subscribe(lambda live: in_force.install(live.compiled, live.document))
        await watcher.refresh()
        explainer = Explainer(in_force, engine.inspector(), now_ms, tiers)
        try:
            return await explainer.explain(group, parameters)
        except CallerError as error:
            raise click.UsageError(str(error)) from None


def _held(tier: TierShape) -> str:
    """One line: what is held, and the facts that are known of it."""
    facts = {name: getattr(tier, name) for name in tier.__struct_fields__[1:] if name != "holds"}
    known = [f"{name} {value}" for name, value in facts.items() if value is not None]
    return f"{tier.holds} ({', '.join(known)})" if known else tier.holds


def _parameters(pairs: tuple[str, ...]) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator:
            raise click.UsageError(f"expected KEY=VALUE, got `{pair}`")
        if name in parameters:
            raise click.UsageError(f"key `{name}` is given twice")
        parameters[name] = text
    return parameters


def _print(explanation: ExplanationShape) -> None:
    shown = {
        name: getattr(explanation, name)
        for name in explanation.__struct_fields__
        if name not in ("tiers", "stages")
    }
    shown |= {f"in {tier.tier}": _held(tier) for tier in explanation.tiers}
    shown |= {f"took {stage.stage}": f"{stage.microseconds:.1f} µs" for stage in explanation.stages}
    width = max(len(name) for name in shown)
    for name, value in shown.items():
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        click.echo(f"{name:<{width}}  {text}")

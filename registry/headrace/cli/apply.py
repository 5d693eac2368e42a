"""`headrace apply`: create tables and publish the next generation of the catalog."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from headrace.cli.options import json_option, print_json, with_settings
from headrace.registry.settings import Settings

if TYPE_CHECKING:
    from headrace.registry.plan import Step

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
@with_settings("online")
def command(
    directory: Path | None, accepted: tuple[str, ...], as_json: bool, settings: Settings
) -> int:
    """Bring the live catalog to the registry in DIRECTORY.

    Exits 0 when done or nothing is to do, 3 when a change is breaking and not accepted.
    """
    from headrace.cli.plan import checked_registry

    _check_accepted(accepted)
    registry = checked_registry(directory or Path(settings.registry))
    return apply_registry(registry, settings.online, accepted=accepted, as_json=as_json)


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

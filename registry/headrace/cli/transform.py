"""`headrace transform`: a registry's SQL, run in the offline store."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec

from headrace.cli.options import json_option, print_json, with_settings
from headrace.registry.settings import Settings

if TYPE_CHECKING:
    from headrace.registry.catalog import CatalogDocument, Group
    from headrace.sync.offline.ports import OfflineTransformer

PRELUDE: Final = "sources.sql"


class TransformReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one transform did."""

    feature_group: str
    rows: int
    appended: int


@click.command()
@click.argument("groups", nargs=-1, metavar="[GROUP...]")
@click.option(
    "--sources",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of raw tables: each .csv and .parquet file in it is a view of its name.",
)
@json_option
@with_settings("registry", "online", "offline")
def command(
    groups: tuple[str, ...], sources: Path | None, as_json: bool, settings: Settings
) -> None:
    """Run transforms/NAME.sql of the registry for each GROUP, or for all that have one.

    New rows are appended to the offline store; rows it already holds are not.
    `transforms/sources.sql` runs before each of them and may make views; the SQL variable `sources`
    holds the folder of raw tables.
    """
    folder = Path(settings.registry) / "transforms"
    reports = asyncio.run(_transform(settings, folder, groups, sources or folder))
    if as_json:
        print_json(reports)


async def _transform(
    settings: Settings, folder: Path, names: tuple[str, ...], sources: Path
) -> list[TransformReport]:
    from headrace.cli.engines import open_offline, open_online
    from headrace.cli.live import live_catalog

    online = await open_online(settings.online, read_only=True)
    offline = open_offline(settings.offline)
    try:
        _, document = await live_catalog(online)
        reports: list[TransformReport] = []
        for group, path in _chosen(document, folder, names):
            reports.append(await _run(offline, group, path, sources))
        return reports
    finally:
        offline.close()
        await online.close()


def _chosen(
    document: CatalogDocument, folder: Path, names: tuple[str, ...]
) -> list[tuple[Group, Path]]:
    from headrace.cli.live import group_named

    if names:
        return [
            (group, _file_of(group, folder) or _refuse(group, folder))
            for group in (group_named(document, name) for name in dict.fromkeys(names))
        ]
    chosen = [(group, path) for group in document.groups if (path := _file_of(group, folder))]
    known = {path for _, path in chosen} | {folder / PRELUDE}
    for stray in sorted(set(folder.glob("*.sql")) - known):
        raise click.UsageError(
            f"`{stray}` belongs to no group of the live catalog; name it after a group, such as "
            "`host-stat-v1.sql` or `live__host_stat_v1.sql`, or run `headrace apply` first"
        )
    if not chosen:
        raise click.UsageError(f"there is no transform in `{folder}`")
    return chosen


def _file_of(group: Group, folder: Path) -> Path | None:
    """`live__host_stat_v1.sql` where two domains share a name, else `host-stat-v1.sql`."""
    from headrace.registry.physical import table_name

    stems = (table_name(group.name), group.name.partition("::")[2])
    paths = (folder / f"{stem}.sql" for stem in stems)
    return next((path for path in paths if path.exists()), None)


def _refuse(group: Group, folder: Path) -> Path:
    name = group.name.partition("::")[2]
    raise click.UsageError(f"`{group.name}` has no transform; expected `{folder / name}.sql`")


def _texts(path: Path) -> tuple[str, str]:
    """The transform and what runs before it."""
    prelude = path.with_name(PRELUDE)
    before = prelude.read_text(encoding="utf-8") if prelude.exists() else ""
    return path.read_text(encoding="utf-8"), before


async def _run(
    offline: OfflineTransformer, group: Group, path: Path, sources: Path
) -> TransformReport:
    from headrace.sync.clock import wall_clock_ms
    from headrace.sync.offline.ports import TransformRun

    query, prelude = _texts(path)
    now_ms = wall_clock_ms()
    run = TransformRun(
        run_id=f"{now_ms}-{secrets.token_hex(4)}",
        query=query,
        prelude=prelude,
        sources=sources,
        now_ms=now_ms,
    )
    outcome = await offline.transform(group, run)
    click.echo(f"{group.name}: {outcome.rows:,} rows, {outcome.appended:,} new", err=True)
    return TransformReport(feature_group=group.name, rows=outcome.rows, appended=outcome.appended)

"""The checks of the embedded engines: folders and files on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.cli.doctor_finding import Finding, judged

if TYPE_CHECKING:
    from headrace.cli.engines import EngineUrl


async def examine_embedded(part: str, url: EngineUrl) -> list[Finding]:
    """Whether its place can be read and written, or made; of `online` also the catalog."""
    findings = [_permission(part, Path(url.rest))]
    if url.scheme == "lmdb":
        findings.append(await _catalog(part, f"lmdb:{url.rest}"))
    return findings


def _permission(part: str, place: Path) -> Finding:
    existing = next(each for each in (place, *place.absolute().parents) if each.exists())
    where = f"`{place}`" if existing == place else f"`{place}`, to be made in `{existing}`"
    ok = os.access(existing, os.R_OK | os.W_OK)
    return judged(part, "permission", where, ok=ok, fix=f"let this user write to `{existing}`")


async def _catalog(part: str, url: str) -> Finding:
    from headrace.cli.engines import load_catalog
    from headrace.codec import StoreError
    from headrace.registry.errors import RegistryError

    try:
        catalog = await load_catalog(url)
    except (RegistryError, StoreError) as error:
        fix = "run `headrace apply`"
        return Finding(part=part, check="catalog", ok=False, detail=str(error), fix=fix)
    detail = f"generation {catalog.generation}"
    return Finding(part=part, check="catalog", ok=True, detail=detail)

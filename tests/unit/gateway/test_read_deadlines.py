"""From when the deadline of a request runs, and over what: rows of a store that is in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from headrace.codec import Catalog, ReadEngine, encode_commands
from headrace.gateway.cached.reads import StoreReads
from headrace.gateway.catalog_in_force import CatalogInForce
from headrace.gateway.ports import Cells, Unreachable
from headrace.registry.catalog import (
    CatalogDocument,
    Group,
    KeyField,
    Schema,
    ValueField,
    encode_document,
)

NOW_MS = 1_700_000_000_000
GROUP = "live::users"
LEVEL = ValueField(id=1, name="level", type="Long", default=0)
SCORE = ValueField(id=2, name="score", type="Long", default=0)
SLACK_MS = 15_000
"""How long a loaded machine may take between the request and the question to the store."""


def document(generation: int) -> CatalogDocument:
    """The second generation knows one field more."""
    schemas = (Schema(ordinal=1, fields=(LEVEL,)), Schema(ordinal=2, fields=(LEVEL, SCORE)))
    group = Group(
        id=1,
        name=GROUP,
        feature_type="Object",
        owner="o",
        keys=(KeyField(name="user_id", type="Long"),),
        schemas=schemas[:generation],
    )
    return CatalogDocument(generation=generation, published_at_ms=0, groups=(group,))


@dataclass
class NewerRows:
    """Every row as the second generation writes it; notes how long each question may take."""

    cells: list[tuple[int, bytes]]
    limits_ms: list[int] = field(default_factory=list)

    async def fetch(
        self, catalog: Catalog, wanted: Sequence[tuple[bytes, int | None]], *, limit_ms: int
    ) -> list[Cells | Unreachable]:
        del catalog
        self.limits_ms.append(limit_ms)
        return [Cells(self.cells) for _ in wanted]


class SecondGeneration:
    """A catalog that is found to be newer as soon as somebody looks."""

    problem: str | None = None

    def __init__(self, engine: ReadEngine) -> None:
        self._engine = engine
        self.in_force = CatalogInForce(self)
        self.load(1)

    def load(self, generation: int) -> None:
        loaded = document(generation)
        catalog = Catalog(encode_document(loaded))
        self._engine.install(catalog)
        self.in_force.install(catalog, loaded)

    async def refresh(self) -> None:
        self.load(2)


def newer_rows() -> NewerRows:
    command = {
        "feature_name": GROUP,
        "method": "UPDATE",
        "keys": {"user_id": 1},
        "values": {"level": 3, "score": 4, "_last_updated_at_ms": NOW_MS},
    }
    catalog = Catalog(encode_document(document(2)))
    batch = encode_commands(catalog, [json.dumps(command).encode()], now_ms=NOW_MS)
    return NewerRows([(each.field_id, each.cell) for each in batch.mutations()])


@pytest.mark.parametrize(("asked_ms", "default_ms"), [(20_000, 60_000), (60_000, 20_000)])
async def test_a_request_started_again_with_a_newer_catalog_keeps_its_deadline(
    asked_ms: int, default_ms: int
) -> None:
    """Semantics 20: it is answered from the catalog loaded meanwhile, within its own time."""
    engine, rows = ReadEngine(), newer_rows()
    watch = SecondGeneration(engine)
    reads = StoreReads(
        engine, watch.in_force, rows, None, lambda: NOW_MS, default_deadline_ms=default_ms
    )
    delivered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    asked = {"feature_group": GROUP, "keys": {"user_id": [1]}}
    body = json.dumps({"reads": [asked], "deadline_ms": asked_ms}).encode()
    reads.start(body, 0, b"test", keep_alive=True, deliver=delivered.set_result)
    async with asyncio.timeout(60):
        answer = json.loads((await delivered).partition(b"\r\n\r\n")[2])
    await reads.close()
    assert answer["generation"] == 2
    assert answer["results"][0]["rows"] == [[3, 4]]
    assert answer["results"][0]["statuses"] == []
    assert len(rows.limits_ms) == 2
    assert all(asked_ms - SLACK_MS < limit_ms <= asked_ms for limit_ms in rows.limits_ms)

"""Every example of `docs/client.md` runs, in its order, against a real gateway."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from types import CodeType, FunctionType

import msgspec
import pytest
from gateway_over_lmdb import served
from running_gateway import NOW_MS, document, make_app

from headrace.codec import Catalog, LmdbStore, ReadEngine, encode_commands
from headrace.gateway.catalog_in_force import CatalogInForce
from headrace.gateway.stores.lmdb import LmdbCatalogReader
from headrace.gateway.stores.lmdb_reads import LmdbReads
from headrace.registry.catalog import encode_document
from headrace.registry.physical import CATALOG_DOCUMENT, CATALOG_GENERATION
from headrace.registry.watch import CatalogWatcher

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "client.md"
EXAMPLE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SAID = re.compile(r"^([a-z][^\n#]+?)  # (\[[\[\]\w\"', ()=]+\])", re.MULTILINE)
ADDRESS = "http://127.0.0.1:6566"
COMMANDS = [
    ("live::host-stat-v1", "UPDATE", 1001, {"level": 3, "country_code": "KR"}),
    ("live::host-history", "APPEND", 2001, {"level": 1, "country_code": "US"}),
    ("live::host-history", "APPEND", 2002, {"level": 2, "country_code": "JP"}),
]


@pytest.fixture
async def port(tmp_path: Path) -> AsyncGenerator[int]:
    store = LmdbStore(str(tmp_path / "online"))
    text = encode_document(document())
    store.put(CATALOG_DOCUMENT, text)
    store.put(CATALOG_GENERATION, b"%d" % document().generation)
    payloads = [
        msgspec.json.encode(
            {
                "feature_name": name,
                "method": method,
                "keys": {"user_id": key},
                "values": {**values, "_last_updated_at_ms": NOW_MS - 1},
            }
        )
        for name, method, key, values in COMMANDS
    ]
    batch = encode_commands(Catalog(text), payloads, now_ms=NOW_MS)
    assert not batch.rejections
    store.apply(batch, Catalog(text), now_ms=NOW_MS)
    watcher = CatalogWatcher(LmdbCatalogReader(store), lambda: NOW_MS)
    app = make_app(LmdbReads(ReadEngine(), store), CatalogInForce(watcher), watcher)
    await watcher.refresh()
    async with served(app) as given:
        yield given
    store.close()


async def test_every_example_runs_and_says_what_the_document_says(port: int) -> None:
    examples = EXAMPLE.findall(DOCUMENT.read_text())
    names: dict[str, object] = {"__name__": "examples"}
    for example in examples:
        code = compile(
            example.replace(ADDRESS, f"http://127.0.0.1:{port}"),
            str(DOCUMENT),
            "exec",
            flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
            dont_inherit=True,
        )
        await run(code, names)
    assert len(examples) == 6
    said = SAID.findall("".join(examples))
    assert len(said) == 3
    for statement, expected in said:
        expression = statement.rpartition(" = ")[2]
        assert repr(eval(expression, names)) == expected.replace('"', "'"), statement


async def run(code: CodeType, names: dict[str, object]) -> None:
    """In this loop when it awaits, and else in a thread, because the gateway runs in this loop."""
    runs = FunctionType(code, names)
    if code.co_flags & inspect.CO_COROUTINE:
        await runs()
    else:
        await asyncio.to_thread(runs)

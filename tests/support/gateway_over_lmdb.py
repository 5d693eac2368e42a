"""The gateway's application over a real engine and store, with rows in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from litestar import Litestar
from running_gateway import ListAppender, make_app, until

from headrace.codec import Catalog, LmdbStore, ReadEngine
from headrace.gateway.catalog_in_force import CatalogInForce
from headrace.gateway.limits import Limits
from headrace.gateway.serve import GatewayServer, listen
from headrace.gateway.stores.lmdb import LmdbCatalogReader
from headrace.gateway.stores.lmdb_reads import LmdbInspector, LmdbReads
from headrace.loadtest import feature_data
from headrace.registry.catalog import encode_document
from headrace.registry.physical import CATALOG_DOCUMENT, CATALOG_GENERATION
from headrace.registry.watch import CatalogWatcher

ROWS = 200
HISTORIES = 3
NOW_MS = 1_700_000_000_000


@dataclass
class StoreGateway:
    """The application and what stands behind it."""

    app: Litestar
    store: LmdbStore
    watcher: CatalogWatcher
    appender: ListAppender

    def publish(self, generation: int) -> None:
        """Publish the same groups as another generation."""
        put_catalog(self.store, generation)


def put_catalog(store: LmdbStore, generation: int) -> Catalog:
    """What `apply` does to the store."""
    document = feature_data.catalog_document(generation)
    text = encode_document(document)
    store.put(CATALOG_DOCUMENT, text)
    store.put(CATALOG_GENERATION, b"%d" % generation)
    return Catalog(text)


async def store_gateway(folder: Path, bounds: Limits | None = None) -> StoreGateway:
    """An application over a new store in `folder`."""
    store = LmdbStore(str(folder))
    catalog = put_catalog(store, 1)
    feature_data.apply_commands(store, catalog, feature_data.sample(rows=ROWS, histories=HISTORIES))
    watcher = CatalogWatcher(LmdbCatalogReader(store), lambda: NOW_MS)
    appender = ListAppender()
    app = make_app(
        LmdbReads(ReadEngine(), store),
        CatalogInForce(watcher),
        watcher,
        bounds=bounds,
        appender=appender,
        inspector=LmdbInspector(store),
    )
    await watcher.refresh()
    return StoreGateway(app, store, watcher, appender)


@asynccontextmanager
async def served(app: Litestar) -> AsyncGenerator[int]:
    """Serve an application on a free loopback port; the port is what is given."""
    server = GatewayServer(app)
    listener = listen("127.0.0.1", 0)
    port: int = listener.getsockname()[1]
    task = asyncio.create_task(server.serve_on(listener))
    await until(lambda: server.started or task.done())
    try:
        yield port
    finally:
        server.stop()
        await task

"""URL → engine: the only place that knows which class serves which scheme.

Every adapter is imported when it is asked for and not before, so that a role installs and loads
only the clients it uses. An engine is opened once a process and shared by all its ports
(semantics 29).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from headrace.registry.errors import CatalogMissing, SettingsError
from headrace.registry.names import did_you_mean

if TYPE_CHECKING:
    from headrace.codec import Catalog, LmdbStore
    from headrace.registry.ports import CatalogReader, CatalogWriter, TableAdmin
    from headrace.sync.offline.duckdb import DuckdbOfflineStore
    from headrace.sync.ports import (
        CommandConsumer,
        CommandProducer,
        DeadLetters,
        MergedRecordReader,
        OnlineWriter,
        SyncStateStore,
        Topic,
    )

ONLINE_SCHEMES: Final = {"lmdb": "lmdb:FOLDER"}
CACHE_SCHEMES: Final = {"none": "none"}
COMMAND_SCHEMES: Final = {
    "sqlite": "sqlite:FILE",
    "kafka": "kafka://HOST:PORT?prefix=headrace",
}
OFFLINE_SCHEMES: Final = {"duckdb": "duckdb:FOLDER"}


class EngineUrl(NamedTuple):
    """A URL taken apart at its first colon; `rest` is the scheme's own business."""

    scheme: str
    rest: str


class CommandEngine(Protocol):
    """A command log, opened once: its ports share connections and close together."""

    def producer(self) -> CommandProducer: ...

    def consumer(self, topic: Topic, group: str) -> CommandConsumer: ...

    def dead_letters(self) -> DeadLetters: ...

    async def close(self) -> None: ...


class OnlineEngine:
    """The embedded online store and all its ports over one handle."""

    def __init__(self, store: LmdbStore) -> None:
        self.store = store

    def catalog_reader(self) -> CatalogReader:
        from headrace.gateway.stores.lmdb import LmdbCatalogReader

        return LmdbCatalogReader(self.store)

    def catalog_writer(self) -> CatalogWriter:
        from headrace.sync.stores.lmdb import LmdbCatalogWriter

        return LmdbCatalogWriter(self.store)

    def table_admin(self) -> TableAdmin:
        from headrace.sync.stores.lmdb import LmdbTableAdmin

        return LmdbTableAdmin(self.store)

    def writer(self) -> OnlineWriter:
        from headrace.sync.stores.lmdb import LmdbOnlineWriter

        return LmdbOnlineWriter(self.store)

    def merged_records(self) -> MergedRecordReader:
        from headrace.sync.stores.lmdb import LmdbMergedRecords

        return LmdbMergedRecords(self.store)

    def sync_state(self) -> SyncStateStore:
        from headrace.sync.stores.lmdb import LmdbSyncState

        return LmdbSyncState(self.store)

    def close(self) -> None:
        self.store.close()


def parse_url(setting: str, url: str, schemes: dict[str, str]) -> EngineUrl:
    """Check the scheme of an engine's URL; raises `SettingsError` with the valid ones."""
    scheme, _, rest = url.partition(":")
    if scheme not in schemes:
        valid = _listed(f"`{form}`" for form in schemes.values())
        hint = did_you_mean(scheme, schemes)
        raise SettingsError(f"`{setting}: {url}` names no engine; expected {valid}{hint}")
    if not rest and schemes[scheme] != scheme:
        raise SettingsError(f"`{setting}: {url}` lacks its place; expected `{schemes[scheme]}`")
    return EngineUrl(scheme, rest)


def open_online(url: str, *, read_only: bool = False) -> OnlineEngine:
    """The online store. A read-only one must exist; several processes may read while one writes."""
    folder = Path(parse_url("online", url, ONLINE_SCHEMES).rest)
    if read_only and not folder.is_dir():
        raise SettingsError(f"`online: {url}` does not exist yet; `headrace apply` makes it")
    from headrace.codec import LmdbStore

    if not read_only:
        folder.mkdir(parents=True, exist_ok=True)
    return OnlineEngine(LmdbStore(str(folder), read_only=read_only))


def open_online_if_there(url: str) -> OnlineEngine | None:
    """The online store for reading, None when nothing was ever written there."""
    folder = Path(parse_url("online", url, ONLINE_SCHEMES).rest)
    # LMDB's own name of its file; an empty folder is no store yet.
    return open_online(url, read_only=True) if (folder / "data.mdb").is_file() else None


def check_cache(url: str) -> None:
    """Refuse a cache that this version cannot use; `none` needs no adapter."""
    parse_url("cache", url, CACHE_SCHEMES)


def open_commands(url: str) -> CommandEngine:
    """The command log, made when it is an embedded one that is not there yet."""
    parsed = parse_url("commands", url, COMMAND_SCHEMES)
    if parsed.scheme == "kafka":
        from headrace.sync.logs.kafka import KafkaCommandLog
        from headrace.sync.logs.kafka_url import KafkaUrl

        return KafkaCommandLog(KafkaUrl.parse(url))
    from headrace.sync.logs.sqlite import SqliteCommandLog

    path = Path(parsed.rest)
    path.parent.mkdir(parents=True, exist_ok=True)
    return SqliteCommandLog(path)


def open_offline(url: str) -> DuckdbOfflineStore:
    """The offline store, its folder made."""
    folder = Path(parse_url("offline", url, OFFLINE_SCHEMES).rest)
    from headrace.sync.offline.duckdb import DuckdbOfflineStore

    folder.mkdir(parents=True, exist_ok=True)
    return DuckdbOfflineStore(folder)


async def load_catalog(online_url: str) -> Catalog:
    """The live catalog, compiled, for a command that needs nothing else of the online store."""
    from headrace.cli.live import live_catalog

    engine = open_online_if_there(online_url)
    if engine is None:
        raise CatalogMissing("no catalog was ever published; run `headrace apply` first")
    try:
        return (await live_catalog(engine))[0]
    finally:
        engine.close()


def _listed(words: Iterable[str]) -> str:
    *head, last = words
    return f"{', '.join(head)} or {last}" if head else last

"""URL → engine: the only place that knows which class serves which scheme.

Every adapter is imported when it is asked for and not before, so that a role installs and loads
only the clients it uses. An engine is opened once a process and shared by all its ports
(semantics 29).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from headrace.registry.errors import CatalogMissing, OnlineStoreMissing, SettingsError
from headrace.registry.names import did_you_mean
from headrace.registry.url_options import without_credentials

if TYPE_CHECKING:
    from headrace.cli.lmdb import LmdbEngine
    from headrace.cli.scylla import ScyllaEngine
    from headrace.codec import Catalog
    from headrace.gateway.ports import RowInspector
    from headrace.registry.cache_url import CacheUrl
    from headrace.registry.ports import CatalogReader, CatalogWriter, TableAdmin
    from headrace.registry.settings import Settings
    from headrace.sync.logs.kafka_url import KafkaUrl
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

ONLINE_SCHEMES: Final = {
    "lmdb": "lmdb:FOLDER",
    "scylla": "scylla://HOST:PORT/KEYSPACE",
}
CACHE_SCHEMES: Final = {"none": "none", "redis": "redis://HOST:PORT/0"}
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


class OnlineEngine(Protocol):
    """An online store, opened once a process: all its ports share what it holds."""

    def catalog_reader(self) -> CatalogReader: ...

    def catalog_writer(self) -> CatalogWriter: ...

    def table_admin(self) -> TableAdmin: ...

    def inspector(self) -> RowInspector: ...

    def writer(self) -> OnlineWriter: ...

    def merged_records(self) -> MergedRecordReader: ...

    def sync_state(self) -> SyncStateStore: ...

    async def close(self) -> None: ...


def parse_url(setting: str, url: str, schemes: dict[str, str]) -> EngineUrl:
    """Check the scheme of an engine's URL; raises `SettingsError` with the valid ones."""
    scheme, _, rest = url.partition(":")
    shown = without_credentials(url)
    if scheme not in schemes:
        valid = _listed(f"`{form}`" for form in schemes.values())
        hint = did_you_mean(scheme, schemes)
        raise SettingsError(f"`{setting}: {shown}` names no engine; expected {valid}{hint}")
    if not rest and schemes[scheme] != scheme:
        raise SettingsError(f"`{setting}: {shown}` lacks its place; expected `{schemes[scheme]}`")
    return EngineUrl(scheme, rest)


async def open_online(
    url: str, *, read_only: bool = False, create: bool = False
) -> LmdbEngine | ScyllaEngine:
    """The online store, for a command that cannot go on without it.

    `create` makes what is missing of a networked one; any writer makes an embedded one. Several
    processes may read an embedded store while one writes. Raises `SettingsError` when it cannot be
    reached, and `OnlineStoreMissing` when it was never made.
    """
    parsed = parse_url("online", url, ONLINE_SCHEMES)
    if parsed.scheme == "scylla":
        from headrace.cli.scylla import ScyllaEngine

        return await ScyllaEngine.open(url, create=create)
    return _open_lmdb(parsed, read_only=read_only)


def open_online_when_up(url: str, *, read_only: bool = False) -> LmdbEngine | ScyllaEngine:
    """The online store, for a role: it may be down now and is connected once it is there.

    Until then its ports answer that it cannot be reached. Call it from within the event loop.
    """
    parsed = parse_url("online", url, ONLINE_SCHEMES)
    if parsed.scheme == "scylla":
        from headrace.cli.scylla import ScyllaEngine

        return ScyllaEngine.open_when_up(url)
    return _open_lmdb(parsed, read_only=read_only)


def _open_lmdb(parsed: EngineUrl, *, read_only: bool) -> LmdbEngine:
    from headrace.cli.lmdb import LmdbEngine

    return LmdbEngine.open(Path(parsed.rest), read_only=read_only)


def open_lmdb(url: str) -> LmdbEngine:
    """The embedded online store, for the role that is made for it; refuses any other."""
    parsed = parse_url("online", url, ONLINE_SCHEMES)
    if parsed.scheme != "lmdb":
        raise SettingsError(
            f"`online: {parsed.scheme}:…`: `headrace up` is for the embedded store; run "
            "`headrace serve`, `headrace worker write` and `headrace worker downsync`"
        )
    return _open_lmdb(parsed, read_only=False)


async def open_online_if_there(url: str) -> OnlineEngine | None:
    """The online store for reading, None when nothing was ever written there."""
    parsed = parse_url("online", url, ONLINE_SCHEMES)
    # LMDB's own name of its file; an empty folder is no store yet.
    if parsed.scheme == "lmdb" and not (Path(parsed.rest) / "data.mdb").is_file():
        return None
    try:
        return await open_online(url, read_only=True)
    except OnlineStoreMissing:
        return None


def cache_of(settings: Settings) -> CacheUrl | None:
    """Where the cache is, None for none; raises `SettingsError` for one that cannot be used."""
    parsed = parse_url("cache", settings.cache, CACHE_SCHEMES)
    if parsed.scheme == "none":
        return None
    if settings.online.startswith("lmdb:"):
        raise SettingsError(
            f"`cache: {parsed.scheme}:…` in front of `online: lmdb:…`: the embedded store is "
            "nearer than any cache; set `cache: none`"
        )
    from headrace.registry.cache_url import CacheUrl

    return CacheUrl.parse(settings.cache)


async def create_command_topics(url: str) -> list[str]:
    """Create what the command log needs before its first record; the names of what was missing."""
    if parse_url("commands", url, COMMAND_SCHEMES).scheme != "kafka":
        return []
    from headrace.sync.logs.kafka_topics import create_topics

    return await create_topics(kafka_url(url))


def open_commands(url: str) -> CommandEngine:
    """The command log, made when it is an embedded one that is not there yet."""
    parsed = parse_url("commands", url, COMMAND_SCHEMES)
    if parsed.scheme == "kafka":
        from headrace.sync.logs.kafka import KafkaCommandLog

        return KafkaCommandLog(kafka_url(url))
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


def kafka_url(url: str) -> KafkaUrl:
    """Parse the URL of a Kafka command log; raises `SettingsError`."""
    from headrace.sync.logs.kafka_url import KafkaUrl

    try:
        return KafkaUrl.parse(url)
    except ValueError as error:
        raise SettingsError(f"`commands`: {error}") from None


async def load_catalog(online_url: str) -> Catalog:
    """The live catalog, compiled, for a command that needs nothing else of the online store."""
    from headrace.cli.live import live_catalog

    engine = await open_online_if_there(online_url)
    if engine is None:
        raise CatalogMissing("no catalog was ever published; run `headrace apply` first")
    try:
        return (await live_catalog(engine))[0]
    finally:
        await engine.close()


def _listed(words: Iterable[str]) -> str:
    *head, last = words
    return f"{', '.join(head)} or {last}" if head else last

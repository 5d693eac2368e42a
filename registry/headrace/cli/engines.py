"""URL → engine: the only place that knows which class serves which scheme.

Every adapter is imported when it is asked for and not before, so that a role installs and loads
only the clients it uses. An engine is opened once a process and shared by all its ports
(semantics 29).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from headrace.registry.errors import SettingsError
from headrace.registry.names import did_you_mean

if TYPE_CHECKING:
    from headrace.codec import LmdbStore
    from headrace.registry.ports import CatalogReader, CatalogWriter, TableAdmin
    from headrace.sync.ports import MergedRecordReader, OnlineWriter, SyncStateStore

ONLINE_SCHEMES: Final = {"lmdb": "lmdb:FOLDER"}
CACHE_SCHEMES: Final = {"none": "none"}
COMMAND_SCHEMES: Final = {"sqlite": "sqlite:FILE"}
OFFLINE_SCHEMES: Final = {"duckdb": "duckdb:FOLDER"}


class EngineUrl(NamedTuple):
    """A URL taken apart at its first colon; `rest` is the scheme's own business."""

    scheme: str
    rest: str


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


class LmdbEngine:
    """The embedded online store and all its ports over one handle."""

    def __init__(self, folder: Path, *, read_only: bool) -> None:
        from headrace.codec import LmdbStore

        if read_only and not folder.is_dir():
            raise SettingsError(
                f"`online: lmdb:{folder}` does not exist yet; `headrace apply` makes it"
            )
        folder.mkdir(parents=True, exist_ok=True)
        self.store: LmdbStore = LmdbStore(str(folder), read_only=read_only)

    def catalog_reader(self) -> CatalogReader:
        return cast("CatalogReader", self._port("headrace.gateway.stores.lmdb:LmdbCatalogReader"))

    def catalog_writer(self) -> CatalogWriter:
        return cast("CatalogWriter", self._port("headrace.sync.stores.lmdb:LmdbCatalogWriter"))

    def table_admin(self) -> TableAdmin:
        return cast("TableAdmin", self._port("headrace.sync.stores.lmdb:LmdbTableAdmin"))

    def writer(self) -> OnlineWriter:
        return cast("OnlineWriter", self._port("headrace.sync.stores.lmdb:LmdbOnlineWriter"))

    def merged_records(self) -> MergedRecordReader:
        return cast("MergedRecordReader", self._port("headrace.sync.stores.lmdb:LmdbMergedRecords"))

    def sync_state(self) -> SyncStateStore:
        return cast("SyncStateStore", self._port("headrace.sync.stores.lmdb:LmdbSyncState"))

    def close(self) -> None:
        self.store.close()

    def _port(self, place: str) -> Any:
        return _load(place)(self.store)


def open_online(url: str, *, read_only: bool = False) -> LmdbEngine:
    """The online store. A read-only one must exist; several processes may read while one writes."""
    parsed = parse_url("online", url, ONLINE_SCHEMES)
    return LmdbEngine(Path(parsed.rest), read_only=read_only)


def check_cache(url: str) -> None:
    """Refuse a cache that this version cannot use; `none` needs no adapter."""
    parse_url("cache", url, CACHE_SCHEMES)


def commands_file(url: str) -> Path:
    """The file of the embedded command log, its folder made."""
    path = Path(parse_url("commands", url, COMMAND_SCHEMES).rest)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def offline_folder(url: str) -> Path:
    """The folder of the embedded offline store, made."""
    folder = Path(parse_url("offline", url, OFFLINE_SCHEMES).rest)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _load(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _listed(words: Iterable[str]) -> str:
    *head, last = words
    return f"{', '.join(head)} or {last}" if head else last

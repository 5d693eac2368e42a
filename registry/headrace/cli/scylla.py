"""`scylla://…`: one driver session a process, and the ports over it."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import acsylla
import msgspec
from acsylla.errors import CassException

from headrace.registry.cql import CATALOG, create_own_tables
from headrace.registry.errors import OnlineStoreMissing, SettingsError

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from headrace.gateway.ports import RowInspector
    from headrace.gateway.stores.scylla import ScyllaRows
    from headrace.registry.ports import CatalogReader, CatalogWriter, TableAdmin
    from headrace.sync.ports import MergedRecordReader, OnlineWriter, SyncStateStore

DEFAULT_PORT = 9042
REQUEST_LIMIT_MS = 1_000
KEYSPACE = re.compile(r"[a-z][a-z0-9_]{0,47}")
"""Unquoted in CQL, which folds to lower case; 48 characters are what both engines take."""
KNOWN_OPTIONS = {"dc", "user", "password", "tls", "ca", "replication"}


class ScyllaUrl(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed online URL. `dc` is the local data center; without it, that of the first host."""

    hosts: tuple[str, ...]
    port: int
    keyspace: str
    dc: str | None = None
    user: str | None = None
    password: str | None = None
    tls: bool = False
    ca: str | None = None
    replication: int = 3

    @classmethod
    def parse(cls, text: str) -> ScyllaUrl:
        """Parse a URL; raises `SettingsError` with one sentence."""
        parts = urlsplit(text)
        keyspace = parts.path.strip("/")
        if parts.scheme != "scylla" or not parts.netloc or not KEYSPACE.fullmatch(keyspace):
            form = "scylla://host1,host2:9042/keyspace?dc=dc1"
            shown = f"{parts.scheme}://{parts.netloc}{parts.path}"
            raise SettingsError(f"`online: {shown}` is no ScyllaDB URL; expected `{form}`")
        options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        unknown = sorted(options.keys() - KNOWN_OPTIONS)
        if unknown:
            known = ", ".join(sorted(KNOWN_OPTIONS))
            raise SettingsError(f"`online`: unknown option `{unknown[0]}`; known are {known}")
        names, _, port = parts.netloc.partition(":")
        return cls(
            hosts=tuple(names.split(",")),
            port=_whole("port", port or str(DEFAULT_PORT)),
            keyspace=keyspace,
            dc=options.get("dc"),
            user=options.get("user"),
            password=options.get("password"),
            tls=options.get("tls", "false") == "true",
            ca=options.get("ca"),
            replication=_whole("replication", options.get("replication", "3")),
        )


def _whole(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65_536):
        raise SettingsError(f"`online`: {name} `{text}` is no whole number above 0")
    return int(text)


def cluster(url: ScyllaUrl, *, request_limit_ms: int) -> Any:
    """The driver's cluster with every default that matters chosen on purpose.

    LOCAL_QUORUM both ways, since a read may fill a cache and must see what was written. Client
    timestamps come with each statement. Speculative execution stays off: it helps a slow disk and
    multiplies an overload. The driver's own log goes through `logging` at warning.
    """
    logging.getLogger("acsylla").addFilter(_without_shard_notice)
    return acsylla.create_cluster(
        list(url.hosts),
        port=url.port,
        username=url.user,
        password=url.password,
        connect_timeout=2.0,
        request_timeout=request_limit_ms / 1000,
        ssl_enabled=url.tls,
        ssl_trusted_cert=_authority(url),
        consistency="LOCAL_QUORUM",
        serial_consistency="LOCAL_SERIAL",
        num_threads_io=1,
        core_connections_per_host=1,
        exponential_reconnect_base_delay_ms=100,
        exponential_reconnect_max_delay_ms=2_000,
        load_balance_dc_aware=url.dc,
        token_aware_routing=True,
        heartbeat_interval_sec=5,
        idle_timeout_sec=15,
        application_name="headrace",
    )


def _authority(url: ScyllaUrl) -> str | None:
    """The certificates of `ca`: the driver wants their text, not their place."""
    if url.ca is None:
        return None
    try:
        return Path(url.ca).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"`online`: `ca` {url.ca} cannot be read: {error}") from None


def _without_shard_notice(record: logging.LogRecord) -> bool:
    """Cassandra has no shards; the driver says so at every connection, as an error."""
    return "SHARD-AWARENESS" not in record.getMessage()


class ScyllaEngine:
    """The production online store and all its ports over one session."""

    def __init__(self, url: ScyllaUrl, session: Any) -> None:
        self.url = url
        self.session = session

    @classmethod
    async def open(
        cls, text: str, *, create: bool = False, request_limit_ms: int = REQUEST_LIMIT_MS
    ) -> ScyllaEngine:
        """Connect, or say why not; with `create`, first make keyspace and own tables.

        Raises `SettingsError`, and `OnlineStoreMissing` where `apply` never was.
        """
        url = ScyllaUrl.parse(text)
        return cls(url, await connect(url, create=create, request_limit_ms=request_limit_ms))

    @classmethod
    def open_when_up(cls, text: str, *, request_limit_ms: int = REQUEST_LIMIT_MS) -> ScyllaEngine:
        """An engine that connects once its cluster is there, in the running event loop."""
        from headrace.cli.scylla_session import LateSession

        url = ScyllaUrl.parse(text)

        async def attempt() -> Any:
            return await connect(url, create=False, request_limit_ms=request_limit_ms)

        return cls(url, LateSession(attempt))

    def catalog_reader(self) -> CatalogReader:
        from headrace.gateway.stores.scylla import ScyllaCatalogReader

        return ScyllaCatalogReader(self.session, self.url.keyspace)

    def catalog_writer(self) -> CatalogWriter:
        from headrace.sync.stores.scylla_tables import ScyllaCatalogWriter

        return ScyllaCatalogWriter(self.session, self.url.keyspace)

    def table_admin(self) -> TableAdmin:
        from headrace.sync.stores.scylla_tables import ScyllaTableAdmin

        return ScyllaTableAdmin(self.session, self.url.keyspace)

    def inspector(self) -> RowInspector:
        from headrace.gateway.stores.scylla_reads import ScyllaInspector

        return ScyllaInspector(self.rows())

    def rows(self) -> ScyllaRows:
        """Rows by key, for reads that a cache may stand before."""
        from headrace.gateway.stores.scylla import ScyllaRows

        return ScyllaRows(self.session, self.url.keyspace)

    def writer(self) -> OnlineWriter:
        from headrace.sync.stores.scylla import ScyllaOnlineWriter

        return ScyllaOnlineWriter(self.session, self.url.keyspace)

    def merged_records(self) -> MergedRecordReader:
        from headrace.sync.stores.scylla import ScyllaMergedRecords

        return ScyllaMergedRecords(self.session, self.url.keyspace)

    def sync_state(self) -> SyncStateStore:
        from headrace.sync.stores.scylla_tables import ScyllaSyncState

        return ScyllaSyncState(self.session, self.url.keyspace)

    def collectors(self) -> tuple[Collector, ...]:
        """What this engine adds to a process's metrics."""
        from headrace.cli.scylla_metrics import DriverCollector

        return (DriverCollector(self.session.metrics),)

    async def close(self) -> None:
        await self.session.close()


async def connect(url: ScyllaUrl, *, create: bool, request_limit_ms: int) -> Any:
    """A session on an existing keyspace; raises `SettingsError` and `OnlineStoreMissing`."""
    driver = cluster(url, request_limit_ms=request_limit_ms)
    session: Any = None
    try:
        session = await driver.create_session()
        if create:
            for text in (_create_keyspace(url), *create_own_tables(url.keyspace)):
                await session.query(text)
        await _check_made(session, url.keyspace)
    except CassException as error:
        if session is not None:
            await session.close()
        raise SettingsError(
            f"`online`: no session with {','.join(url.hosts)}:{url.port}: "
            f"{error or type(error).__name__}; is the server up?"
        ) from error
    except SettingsError:
        await session.close()
        raise
    return session


async def _check_made(session: Any, keyspace: str) -> None:
    select = await session.create_prepared(
        "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ? AND table_name = ?"
    )
    if (await session.execute(select.bind([keyspace, CATALOG]))).first() is None:
        raise OnlineStoreMissing(
            f"`online`: there is no keyspace `{keyspace}` with a catalog; `headrace apply` makes it"
        )


def _create_keyspace(url: ScyllaUrl) -> str:
    strategy = (
        f"'class': 'NetworkTopologyStrategy', '{url.dc}': {url.replication}"
        if url.dc and url.dc.replace("-", "").replace("_", "").isalnum()
        else f"'class': 'SimpleStrategy', 'replication_factor': {url.replication}"
    )
    return f"CREATE KEYSPACE IF NOT EXISTS {url.keyspace} WITH replication = {{{strategy}}}"

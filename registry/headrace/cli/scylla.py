"""`scylla://…`: one driver session a process, and the ports over it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import acsylla
import msgspec
from acsylla.errors import (
    CassErrorServerBadCredentials,
    CassErrorServerUnauthorized,
    CassErrorSourceSsl,
    CassException,
)

from headrace.registry.cql import CATALOG, create_own_tables
from headrace.registry.errors import OnlineStoreMissing, OnlineStoreUnreachable, SettingsError
from headrace.registry.url_options import (
    flag,
    parse_options,
    port,
    without_credentials,
    without_login_before_host,
)

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from headrace.gateway.ports import RowInspector
    from headrace.gateway.stores.scylla import ScyllaRows
    from headrace.registry.ports import CatalogReader, CatalogWriter, TableAdmin
    from headrace.sync.ports import MergedRecordReader, OnlineWriter, SyncStateStore

DEFAULT_PORT = 9042
REQUEST_LIMIT_MS = 1_000
DRIVER_QUEUE_REQUESTS = 8_192
"""Far above all that one process has in flight (512 writes, or 256 reads) and what looks at many
rows at once beside them; a power of two."""
SCHEMA_WAIT_MS = 10_000
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
        try:
            return cls._parse(text)
        except ValueError as error:
            raise SettingsError(f"`online`: {error}") from None

    @classmethod
    def _parse(cls, text: str) -> ScyllaUrl:
        parts = urlsplit(text)
        keyspace = parts.path.strip("/")
        if parts.scheme != "scylla" or not parts.netloc or not KEYSPACE.fullmatch(keyspace):
            form = "scylla://host1,host2:9042/keyspace?dc=dc1"
            shown = without_credentials(text)
            raise ValueError(f"`{shown}` is no ScyllaDB URL; expected `{form}`")
        options = parse_options(parts.query, KNOWN_OPTIONS)
        names, _, number = without_login_before_host(parts.netloc).partition(":")
        return cls(
            hosts=tuple(names.split(",")),
            port=port(number or str(DEFAULT_PORT)),
            keyspace=keyspace,
            dc=options.get("dc"),
            user=options.get("user"),
            password=options.get("password"),
            tls=flag(options, "tls"),
            ca=options.get("ca"),
            replication=_replication(options.get("replication", "3")),
        )


def _replication(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 256):
        raise ValueError(f"replication `{text}` is no whole number above 0")
    return int(text)


def cluster(url: ScyllaUrl, *, request_limit_ms: int) -> Any:
    """The driver's cluster with every default that matters chosen on purpose.

    LOCAL_QUORUM both ways, since a read may fill a cache and must see what was written. Client
    timestamps come with each statement. `request_limit_ms` is for statements that bring no limit
    of their own; a gateway's reads bring what is left of their deadline. The driver's own log goes
    through `logging`, at the level that its logger has: what is told of each attempt is the
    caller's to say.
    """
    logger = logging.getLogger("acsylla")
    logger.addFilter(_without_shard_notice)
    level = logger.level
    made = acsylla.create_cluster(
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
        # Never tried again by the driver: it would ask the next node at once when one is
        # overloaded. Who asked decides, with fewer in flight (writer) or what is left (reader).
        retry_policy="fallthrough",
        # Helps against a slow disk, and multiplies an overload.
        speculative_execution_policy=None,
        num_threads_io=1,
        # Refused at once rather than waited for: what is in flight is bounded by whoever asks.
        queue_size_io=DRIVER_QUEUE_REQUESTS,
        core_connections_per_host=1,
        # At the first use of a statement, so that no node's first read has to wait for it.
        prepare_on_all_hosts=True,
        # Of live nodes, after each change, so that two changes never cross.
        max_schema_wait_time_ms=SCHEMA_WAIT_MS,
        exponential_reconnect_base_delay_ms=100,
        exponential_reconnect_max_delay_ms=2_000,
        load_balance_dc_aware=url.dc,
        # Needs the schema; replicas take turns, since a quorum reads from two of them anyway.
        token_aware_routing=True,
        token_aware_routing_shuffle_replicas=True,
        use_schema=True,
        # A node's past would decide where a burst goes, all of it to the same place.
        latency_aware_routing=False,
        timestamp_gen="monotonic",
        tcp_nodelay=True,
        heartbeat_interval_sec=5,
        idle_timeout_sec=15,
        application_name="headrace",
    )
    logger.setLevel(level)  # The driver has set its own.
    return made


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
        session = await _session_of(driver)
        if create:
            await _make_missing(session, url)
        await _check_made(session, url.keyspace)
    except CassException as error:
        if session is not None:
            await session.close()
        place = f"{','.join(url.hosts)}:{url.port}"
        reason = f"no session with {place}: {str(error) or type(error).__name__}"
        raise OnlineStoreUnreachable(reason, fix=_next_step(url, error)) from error
    except SettingsError:
        await session.close()
        raise
    return session


async def _session_of(driver: Any) -> Any:
    """The driver's session; one that nobody waits for any more is awaited and closed all the same.

    To free a session that still connects, the driver (acsylla 1.2.0) waits in the event loop's own
    thread until it has closed, which it never does. `connect_timeout` bounds the wait here.
    """
    creating = asyncio.ensure_future(driver.create_session())
    try:
        return await asyncio.shield(creating)
    except asyncio.CancelledError:
        while not creating.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({creating})
        if creating.exception() is None:
            await creating.result().close()
        raise


async def _make_missing(session: Any, url: ScyllaUrl) -> None:
    """Keyspace and own tables; what is there is not asked for, since that takes a grant as well."""
    keyspaces = await session.create_prepared(
        "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = ?"
    )
    if (await session.execute(keyspaces.bind([url.keyspace]))).first() is None:
        await session.query(_create_keyspace(url))
    tables = await session.create_prepared(
        "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?"
    )
    present = {
        row.as_tuple()[0] for row in (await session.execute(tables.bind([url.keyspace]))).all()
    }
    for name, text in create_own_tables(url.keyspace).items():
        if name not in present:
            await session.query(text)


def _next_step(url: ScyllaUrl, error: Exception) -> str:
    """What mends a session that was not made."""
    if isinstance(error, CassErrorServerBadCredentials):
        return (
            "mend `user` and `password` of the URL of `online`"
            if url.user
            else "give the URL of `online` a `user` and a `password`"
        )
    if isinstance(error, CassErrorServerUnauthorized):
        return f"GRANT it to `{url.user}`, or run `headrace apply` as a role that may"
    if isinstance(error, CassErrorSourceSsl):
        return "mend `tls` and `ca` of the URL of `online`"
    return "start the server, or mend the URL of `online`"


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

"""`scylla://…`: one driver session a process, and the ports over it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import acsylla
import msgspec
from acsylla.errors import CassException

from headrace.registry.errors import SettingsError

if TYPE_CHECKING:
    from headrace.registry.ports import CatalogReader, CatalogWriter, TableAdmin
    from headrace.sync.ports import MergedRecordReader, OnlineWriter, SyncStateStore

DEFAULT_PORT = 9042
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
        if parts.scheme != "scylla" or not parts.netloc or not keyspace.isidentifier():
            form = "scylla://host1,host2:9042/keyspace?dc=dc1"
            raise SettingsError(f"`online: {text}` is no ScyllaDB URL; expected `{form}`")
        options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        unknown = sorted(options.keys() - KNOWN_OPTIONS)
        if unknown:
            known = ", ".join(sorted(KNOWN_OPTIONS))
            raise SettingsError(f"`online`: unknown option `{unknown[0]}`; known are {known}")
        names, _, port = parts.netloc.partition(":")
        return cls(
            hosts=tuple(names.split(",")),
            port=int(port) if port.isdigit() else DEFAULT_PORT,
            keyspace=keyspace,
            dc=options.get("dc"),
            user=unquote(options["user"]) if "user" in options else None,
            password=unquote(options["password"]) if "password" in options else None,
            tls=options.get("tls", "false") == "true",
            ca=options.get("ca"),
            replication=int(options.get("replication", "3")),
        )


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
        ssl_trusted_cert=url.ca,
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
        cls, text: str, *, create_keyspace: bool = False, request_limit_ms: int = 1_000
    ) -> ScyllaEngine:
        """Connect; with `create_keyspace`, make a missing keyspace first (as `apply` does)."""
        url = ScyllaUrl.parse(text)
        driver = cluster(url, request_limit_ms=request_limit_ms)
        try:
            session = await driver.create_session()
            if create_keyspace:
                await session.query(_create_keyspace(url))
            await _check_keyspace(session, url.keyspace)
        except CassException as error:
            raise SettingsError(
                f"`online`: no session with {','.join(url.hosts)}:{url.port}: "
                f"{error or type(error).__name__}; is the server up?"
            ) from error
        return cls(url, session)

    def catalog_reader(self) -> CatalogReader:
        from headrace.gateway.stores.scylla import ScyllaCatalogReader

        return ScyllaCatalogReader(self.session, self.url.keyspace)

    def catalog_writer(self) -> CatalogWriter:
        from headrace.sync.stores.scylla_tables import ScyllaCatalogWriter

        return ScyllaCatalogWriter(self.session, self.url.keyspace)

    def table_admin(self) -> TableAdmin:
        from headrace.sync.stores.scylla_tables import ScyllaTableAdmin

        return ScyllaTableAdmin(self.session, self.url.keyspace)

    def writer(self) -> OnlineWriter:
        from headrace.sync.stores.scylla import ScyllaOnlineWriter

        return ScyllaOnlineWriter(self.session, self.url.keyspace)

    def merged_records(self) -> MergedRecordReader:
        from headrace.sync.stores.scylla import ScyllaMergedRecords

        return ScyllaMergedRecords(self.session, self.url.keyspace)

    def sync_state(self) -> SyncStateStore:
        from headrace.sync.stores.scylla_tables import ScyllaSyncState

        return ScyllaSyncState(self.session, self.url.keyspace)

    async def close(self) -> None:
        await self.session.close()


async def _check_keyspace(session: Any, keyspace: str) -> None:
    select = await session.create_prepared(
        "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = ?"
    )
    if (await session.execute(select.bind([keyspace]))).first() is None:
        raise SettingsError(
            f"`online`: there is no keyspace `{keyspace}`; `headrace apply` makes it"
        )


def _create_keyspace(url: ScyllaUrl) -> str:
    strategy = (
        f"'class': 'NetworkTopologyStrategy', '{url.dc}': {url.replication}"
        if url.dc and url.dc.replace("-", "").replace("_", "").isalnum()
        else f"'class': 'SimpleStrategy', 'replication_factor': {url.replication}"
    )
    return f"CREATE KEYSPACE IF NOT EXISTS {url.keyspace} WITH replication = {{{strategy}}}"

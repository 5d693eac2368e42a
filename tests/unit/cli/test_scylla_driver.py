"""What the driver is told: each choice on purpose, and only what may be repeated is idempotent."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import acsylla
import pytest
from acsylla.errors import CassErrorLibRequestTimedOut
from room_commands import OBJECT, START_MS, Command, document

from headrace.cli.scylla import ScyllaUrl, cluster
from headrace.codec import Catalog, encode_commands
from headrace.gateway.ports import Cells
from headrace.gateway.stores.scylla import ScyllaRows
from headrace.registry.catalog import encode_document
from headrace.registry.watch import compile_document
from headrace.sync.errors import StoreUnavailable
from headrace.sync.stores.scylla_tables import ScyllaCatalogWriter, ScyllaSyncState

CHOSEN: dict[str, object] = {
    "port": 9042,
    "username": "u",
    "password": "p",
    "connect_timeout": 2.0,
    "request_timeout": 0.75,
    "ssl_enabled": False,
    "ssl_trusted_cert": None,
    "consistency": "LOCAL_QUORUM",
    "serial_consistency": "LOCAL_SERIAL",
    "retry_policy": "fallthrough",
    "speculative_execution_policy": None,
    "num_threads_io": 1,
    "queue_size_io": 8_192,
    "core_connections_per_host": 1,
    "prepare_on_all_hosts": True,
    "max_schema_wait_time_ms": 10_000,
    "exponential_reconnect_base_delay_ms": 100,
    "exponential_reconnect_max_delay_ms": 2_000,
    "load_balance_dc_aware": "dc1",
    "token_aware_routing": True,
    "token_aware_routing_shuffle_replicas": True,
    "use_schema": True,
    "latency_aware_routing": False,
    "timestamp_gen": "monotonic",
    "tcp_nodelay": True,
    "heartbeat_interval_sec": 5,
    "idle_timeout_sec": 15,
    "application_name": "headrace",
}

OF_NO_USE_HERE = (
    *("local_address", "local_port_range_min", "local_port_range_max", "resolve_timeout"),
    *("log_level", "logging_callback", "retry_policy_logging", "host_listener_callback"),
    *("ssl_cert", "ssl_private_key", "ssl_private_key_password", "ssl_verify_flags"),
    *("protocol_version", "use_beta_protocol_version", "constant_reconnect_delay_ms"),
    *("coalesce_delay_us", "new_request_ratio", "max_reusable_write_objects", "no_compact"),
    *("tracing_max_wait_time_ms", "tracing_retry_wait_time_ms", "tracing_consistency"),
    *("load_balance_round_robin", "load_balance_rack_aware_dc", "load_balance_rack_aware_rack"),
    *("latency_aware_routing_settings", "tcp_keepalive_sec"),
    *("whitelist_dc", "blacklist_dc", "whitelist_hosts", "blacklist_hosts"),
    *("hostname_resolution", "randomized_contact_points"),
    *("application_version", "client_id", "monitor_reporting_interval_sec"),
    *("cloud_secure_connection_bundle", "dse_gssapi_authenticator"),
    *("dse_gssapi_authenticator_proxy", "dse_plaintext_authenticator"),
    "dse_plaintext_authenticator_proxy",
)
"""Options whose default suits us. One that a new driver brings is in neither list."""


def told(monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], dict[str, object]]:
    """The contact points and the options that `cluster` gives to the driver."""
    calls: list[tuple[list[str], dict[str, object]]] = []

    def create_cluster(contact_points: list[str], **options: object) -> object:
        calls.append((contact_points, options))
        return object()

    monkeypatch.setattr(acsylla, "create_cluster", create_cluster)
    url = ScyllaUrl.parse("scylla://h1,h2/k?dc=dc1&user=u&password=p")
    cluster(url, request_limit_ms=750)
    [call] = calls
    return call


def test_what_the_driver_is_told_is_what_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(monkeypatch) == (["h1", "h2"], CHOSEN)


def test_every_option_of_the_driver_was_looked_at() -> None:
    options = set(inspect.signature(acsylla.create_cluster).parameters) - {"contact_points"}
    assert options == set(CHOSEN) | set(OF_NO_USE_HERE)


async def test_the_driver_takes_what_it_is_told() -> None:
    """No server is needed to make a cluster: a name or a value it does not know is refused."""
    url = ScyllaUrl.parse("scylla://127.0.0.1/k?dc=dc1")
    assert cluster(url, request_limit_ms=750) is not None


class Row:
    """A row of one answer."""

    def __init__(self, columns: dict[str, object]) -> None:
        self._columns = columns

    def column_value(self, name: str) -> object:
        return self._columns[name]


class Result:
    """An answer with at most one row."""

    def __init__(self, row: Row | None) -> None:
        self._row = row

    def first(self) -> Row | None:
        return self._row


class Statement:
    """A statement that remembers its limit, and whether it may be sent more than once."""

    def __init__(self, text: str, limit_s: float | None = None) -> None:
        self.text = text
        self.limit_s = limit_s
        self.idempotent: bool | None = None

    def bind(
        self,
        parameters: list[object],
        page_size: int | None = None,
        page_state: bytes | None = None,
        timeout: float | None = None,
    ) -> Statement:
        return Statement(self.text, timeout)

    def set_is_idempotent(self, idempotent: bool) -> None:
        self.idempotent = idempotent


class Session:
    """Answers every statement with one row, or with an error; keeps what it was sent."""

    def __init__(self, row: Row | None = None, error: Exception | None = None) -> None:
        self.sent: list[Statement] = []
        self._row = row
        self._error = error

    async def create_prepared(self, text: str) -> Statement:
        return Statement(text)

    async def execute(self, statement: Statement) -> Result:
        self.sent.append(statement)
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(answered.set_result, None)
        await answered
        if self._error is not None:
            raise self._error
        return Result(self._row)


@pytest.mark.parametrize("generation", [1, 2])
async def test_the_driver_never_sends_a_compare_and_set_twice(generation: int) -> None:
    """After a lost answer the second meets the first, as if by another (semantics 21)."""
    session: Any = Session(Row({"[applied]": True}))
    assert await ScyllaCatalogWriter(session, "k").publish(document(generation))
    [statement] = session.sent
    assert " IF " in statement.text
    assert statement.idempotent is False


async def test_a_lost_answer_to_a_compare_and_set_is_no_conflict() -> None:
    session: Any = Session(error=CassErrorLibRequestTimedOut("lost"))
    with pytest.raises(StoreUnavailable, match="lost"):
        await ScyllaCatalogWriter(session, "k").publish(document(2))
    assert len(session.sent) == 1


async def test_a_sync_state_may_be_written_and_read_twice() -> None:
    session: Any = Session(Row({"value": b"v"}))
    state = ScyllaSyncState(session, "k")
    await state.put("n", b"v")
    assert await state.get("n") == b"v"
    assert [statement.idempotent for statement in session.sent] == [True, True]


async def test_a_read_may_be_sent_twice_and_ends_with_its_deadline() -> None:
    catalog: Catalog = compile_document(encode_document(document()))[0]
    payload = Command(OBJECT, "UPDATE", 1, START_MS, {"viewers": 1}).payload
    [key] = encode_commands(catalog, [payload], now_ms=START_MS).touched_keys()
    session: Any = Session()
    [cells] = await ScyllaRows(session, "k").fetch(catalog, [(key, None)], limit_ms=400)
    assert cells == Cells([])
    [statement] = session.sent
    assert statement.idempotent is True
    assert 0 < statement.limit_s <= 0.4

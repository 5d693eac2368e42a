"""What the store's driver tells of itself, as /metrics shows it: over a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector
from store_reads import Store, command, open_store

from headrace.cli.scylla_metrics import DriverCollector
from headrace.cli.scylla_session import LateSession
from headrace.gateway.ports import Unreachable
from headrace.gateway.stores.scylla import ScyllaRows
from headrace.loadtest.fault_proxy import BlackHole, FaultProxy
from headrace.loadtest.servers import Server
from headrace.registry.errors import SettingsError


@pytest.fixture
async def proxy(cassandra_server: Server) -> AsyncGenerator[FaultProxy]:
    async with FaultProxy(cassandra_server.host, cassandra_server.port) as opened:
        yield opened


@pytest.fixture
async def store(cassandra_server: Server, proxy: FaultProxy) -> AsyncGenerator[Store]:
    """A store whose driver reaches its server through the proxy."""
    async with open_store(cassandra_server, port=proxy.port) as opened:
        yield opened


def scraped(*collectors: Collector) -> dict[str, float]:
    """Every sample of a scrape, by name and labels."""
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    lines = generate_latest(registry).decode().splitlines()
    samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}


async def test_connections_and_times_of_requests_are_told(store: Store) -> None:
    await store.write(*(command(user, level=user, name="x") for user in range(50)))
    samples = scraped(*store.engine.collectors())
    assert samples["headrace_store_driver_connections"] >= 1
    assert samples["headrace_store_driver_request_timeouts_total"] == 0
    assert samples["headrace_store_driver_connection_timeouts_total"] == 0
    names = [
        f'headrace_store_driver_request_seconds{{quantile="{q}"}}' for q in ("0.5", "0.99", "1")
    ]
    median, p99, longest = (samples[name] for name in names)
    assert 0 < median <= p99 <= longest < 30
    assert {
        f'headrace_store_driver_requests_per_second{{window="{window}"}}'
        for window in ("1m", "5m", "15m")
    } <= samples.keys()


async def test_requests_that_were_not_answered_in_time_are_counted(
    store: Store, proxy: FaultProxy
) -> None:
    rows = ScyllaRows(store.engine.session, store.engine.url.keyspace)
    keys = [(store.catalog.encode_key("live::users", {"user_id": user}), None) for user in range(3)]
    await rows.fetch(store.catalog, keys, limit_ms=5_000)
    proxy.fault = BlackHole()
    outcomes = await rows.fetch(store.catalog, keys, limit_ms=50)
    assert all(isinstance(outcome, Unreachable) for outcome in outcomes)
    samples = scraped(*store.engine.collectors())
    assert samples["headrace_store_driver_request_timeouts_total"] == 3


async def test_without_a_session_there_are_no_connections_and_no_times() -> None:
    attempted = asyncio.Event()

    async def nobody() -> Any:
        attempted.set()
        raise SettingsError("no cluster is there")

    session = LateSession(nobody)
    await attempted.wait()
    assert scraped(DriverCollector(session.metrics)) == {"headrace_store_driver_connections": 0}
    await session.close()

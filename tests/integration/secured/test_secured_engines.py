"""Engines behind TLS and passwords, reached by what their URLs say and by nothing else."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from certificate import Certificate
from guarded_servers import ESCAPED, GuardedServers
from store_reads import command, open_gateway, open_store, until

from headrace.cli.doctor_cache import examine_cache
from headrace.cli.scylla import ScyllaEngine
from headrace.loadtest.fault_proxy import FaultProxy
from headrace.loadtest.servers import Server
from headrace.registry.cache_url import CacheUrl
from headrace.registry.errors import SettingsError
from headrace.sync.errors import CacheUnavailable
from headrace.sync.stores.redis import RedisInvalidator


@pytest.fixture
async def cache_port(guarded: GuardedServers, certificate: Certificate) -> AsyncGenerator[int]:
    """Where TLS ends before the guarded Valkey."""
    context = certificate.server_context()
    async with FaultProxy(guarded.valkey.host, guarded.valkey.port, tls=context) as proxy:
        yield proxy.port


@pytest.mark.parametrize("resp", [2, 3])
@pytest.mark.parametrize("user", ["", "gateway"], ids=["password only", "user of the ACL"])
async def test_a_cache_behind_tls_and_a_password_is_filled_read_and_invalidated(
    cassandra_server: Server, cache_port: int, certificate: Certificate, user: str, resp: int
) -> None:
    url = CacheUrl.parse(
        f"redis://{user}:{ESCAPED}@127.0.0.1:{cache_port}/3"
        f"?tls=true&ca={certificate.authority}&resp={resp}&epoch={cache_port}"
    )
    async with open_store(cassandra_server) as store:
        store.invalidator = RedisInvalidator(url)
        await store.write(command(1, level=10, name="a"))
        async with open_gateway(store, url) as gateway:
            assert await gateway.rows(1) == [[10, "a"]]
            await until(lambda: gateway.reads.counters()["keys_under_way"] == 0)
            assert await gateway.rows(1) == [[10, "a"]]
            assert gateway.reads.counters()["cache_hits"] == 1
            await store.write(command(1, level=11))
            assert await gateway.rows(1) == [[11, "a"]]
            assert gateway.reads.counters()["store_reads"] == 2
        await store.invalidator.close()
    findings = await examine_cache(url)
    assert [finding for finding in findings if finding.check == "reachable" and finding.ok]


@pytest.mark.parametrize(
    ("credentials", "words"),
    [("", "NOAUTH"), (":wrong", "WRONGPASS"), (f"nobody:{ESCAPED}", "WRONGPASS")],
    ids=["no password", "wrong password", "unknown user"],
)
@pytest.mark.parametrize("resp", [2, 3])
async def test_a_cache_that_refuses_us_is_a_miss_and_says_why(
    cassandra_server: Server, guarded: GuardedServers, credentials: str, words: str, resp: int
) -> None:
    at = f"{credentials}@" if credentials else ""
    url = CacheUrl.parse(f"redis://{at}127.0.0.1:{guarded.valkey.port}/0?resp={resp}")
    async with open_store(cassandra_server) as store:
        await store.write(command(1, level=10, name="a"))
        async with open_gateway(store, url, wait_for_cache=False) as gateway:
            await until(lambda: words in str(gateway.reads.parts()))
            assert await gateway.rows(1) == [[10, "a"]]
    invalidator = RedisInvalidator(url)
    with pytest.raises(CacheUnavailable):
        await invalidator.invalidate([b"key"])
    await invalidator.close()


async def test_a_cache_whose_certificate_nobody_vouches_for_is_not_spoken_to(
    cassandra_server: Server, cache_port: int, stranger: Certificate
) -> None:
    url = CacheUrl.parse(
        f"redis://:{ESCAPED}@127.0.0.1:{cache_port}/0?tls=true&ca={stranger.authority}"
    )
    async with (
        open_store(cassandra_server) as store,
        open_gateway(store, url, wait_for_cache=False) as gateway,
    ):
        await until(lambda: "certificate verify failed" in str(gateway.reads.parts()))
    invalidator = RedisInvalidator(url)
    with pytest.raises(CacheUnavailable, match="certificate verify failed"):
        await invalidator.invalidate([b"key"])
    await invalidator.close()
    [finding] = await examine_cache(url)
    assert "certificate verify failed" in finding.detail
    assert finding.fix == "mend `tls` and `ca` in the URL of `cache`"


@pytest.fixture
async def store_port(cassandra_server: Server, certificate: Certificate) -> AsyncGenerator[int]:
    """Where TLS ends before the store."""
    context = certificate.server_context()
    async with FaultProxy(cassandra_server.host, cassandra_server.port, tls=context) as proxy:
        yield proxy.port


async def test_a_store_behind_tls_is_written_and_read(
    cassandra_server: Server, store_port: int, certificate: Certificate
) -> None:
    options = f"&tls=true&ca={certificate.authority}"
    async with open_store(cassandra_server, port=store_port, options=options) as store:
        await store.write(command(1, level=10, name="a"))
        async with open_gateway(store, None) as gateway:
            assert await gateway.rows(1) == [[10, "a"]]


async def test_a_store_whose_certificate_nobody_vouches_for_is_not_spoken_to(
    store_port: int, stranger: Certificate, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    url = f"scylla://127.0.0.1:{store_port}/store_reads?tls=true&ca={stranger.authority}"
    with pytest.raises(SettingsError, match=r"no session with.*; mend `tls` and `ca` of the URL"):
        await ScyllaEngine.open(url)


async def test_an_authority_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    url = f"scylla://127.0.0.1:1/store_reads?tls=true&ca={tmp_path}/none.pem"
    with pytest.raises(SettingsError, match=r"`ca` .* cannot be read"):
        await ScyllaEngine.open(url)

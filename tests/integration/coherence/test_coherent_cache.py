"""The cache and the store, read and written at once: a checker that knows every write."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Generator
from pathlib import Path

import pytest
from coherence_workload import Faults, Workload, fresh_keys
from coherent_cluster import Cluster, open_cluster, open_engine

from headrace.loadtest.servers import Server, start_valkey

SEED = random.SystemRandom().randrange(1_000_000)
"""Another run each time; a failure prints it."""


@pytest.fixture
def node(tmp_path: Path) -> Generator[Server]:
    """A cache node of this test's own, to be flushed and killed."""
    started = start_valkey(tmp_path / "valkey")
    yield started
    started.stop()


async def quiet_audit(cluster: Cluster, keys: list[tuple[str, int]]) -> None:
    """At quiescence: what is cached, what every gateway reads, and what is cached after that."""
    await cluster.audit(keys)
    for gateway in range(len(cluster.gateways)):
        await cluster.read("auditor", keys, gateway)
    await cluster.settled()
    assert await cluster.audit(keys) > 0


async def test_healthy_reads_are_never_older_than_an_acknowledged_write(
    cassandra_server: Server, node: Server
) -> None:
    """Semantics 18 and 19 without any fault, at a race's pace."""
    keys = fresh_keys()
    async with (
        open_engine(cassandra_server) as engine,
        open_cluster(engine, node, seed=SEED) as cluster,
    ):
        await Workload(cluster, keys, operations=4_000).run()
        await quiet_audit(cluster, keys)
        assert cluster.verdict(SEED) == ""
        hits = sum(gateway.reads.counters()["cache_hits"] for gateway in cluster.gateways)
        assert hits > 0
        assert cluster.checker.counts["UNAVAILABLE"] == 0


async def faulty_run(cluster: Cluster, keys: list[tuple[str, int]], operations: int) -> Faults:
    faults = Faults(cluster)
    workload = Workload(cluster, keys, operations=operations)
    async with asyncio.TaskGroup() as both:
        both.create_task(workload.run())
        both.create_task(faults.run(workload))
    await quiet_audit(cluster, keys)
    return faults


async def test_ten_thousand_operations_under_faults_break_no_promise(
    cassandra_server: Server, node: Server
) -> None:
    """Connections cut, nodes flushed and killed, leases lost, replies swapped and garbled."""
    keys = fresh_keys()
    async with (
        open_engine(cassandra_server) as engine,
        open_cluster(engine, node, seed=SEED) as cluster,
    ):
        faults = await faulty_run(cluster, keys, 10_000)
        assert cluster.verdict(SEED) == ""
        assert len(faults.made) == 13


@pytest.mark.stress
async def test_a_million_operations_under_faults_break_no_promise(
    cassandra_server: Server, node: Server
) -> None:
    """Rounds of new keys and seeds, so that histories stay short and faults differ."""
    done = 0
    seed = SEED
    async with open_engine(cassandra_server) as engine:
        while done < 1_000_000:
            keys = fresh_keys(16)
            async with open_cluster(engine, node, seed=seed) as cluster:
                await faulty_run(cluster, keys, 50_000)
                assert cluster.verdict(seed) == ""
                done += cluster.checker.counts["reads"] + cluster.checker.counts["writes"]
            seed += 1

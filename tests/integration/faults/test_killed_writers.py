"""Writers over Kafka, the store and the cache, killed, frozen and rebalanced (W2, W3).

Waves of real processes: some kill themselves at a point of their loop, some freeze there and wake
when others have long taken over, some are killed wherever they are, and each that comes or goes is
a rebalance. After every wave, what is committed must be durable; in the end the store must equal
the reference and the dead letters must be the hostile commands with their coordinates.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import uuid
from collections.abc import AsyncGenerator
from multiprocessing.context import ForkServerProcess

import pytest
from production_writer_process import Servers
from production_writer_stage import Stage, is_stopped, open_stage, waited
from writer_process import POINTS, Plan

from headrace.loadtest.servers import Server

SESSION_MS = 300
WRITERS = 5
FREEZE_RATIO = 0.5
BACKLOG_MAX = 600
LOOK_S = 0.02
LOOKS_MAX = 50
"""Looks at a wave until those who are not dead by themselves are killed."""


@pytest.fixture
async def stage(
    cassandra_server: Server, kafka_server: Server, valkey_server: Server
) -> AsyncGenerator[Stage]:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    name = f"killed_{uuid.uuid4().hex[:12]}"
    servers = Servers(
        online=f"scylla://{cassandra_server.host}:{cassandra_server.port}/{name}?replication=1",
        commands=f"kafka://{kafka_server.host}:{kafka_server.port}?prefix={name}&partitions=5",
        cache=f"redis://{valkey_server.host}:{valkey_server.port}/0?epoch={seed % 2**31}",
    )
    async with open_stage(servers, seed) as opened:
        yield opened


class Waves:
    """Runs writers to their end and counts what was done to them."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.kills = 0
        self.freezes = 0
        self.joins = 0
        self.struck_inside = 0
        """How many of the kills came at a planned point."""
        self._frozen: list[ForkServerProcess] = []

    @property
    def faults(self) -> int:
        """Each writer that comes, and each that is frozen or killed, upsets the group."""
        return self.kills + self.freezes + self.joins

    def start(self) -> ForkServerProcess:
        draw = self.stage.draw
        freezes = draw.random() < FREEZE_RATIO
        self.joins += 1
        return self.stage.start(
            Plan(
                point=draw.choice(POINTS),
                visit=draw.choice([1, 1, 2]),
                delay_us=draw.randrange(3_000),
                signal_number=signal.SIGSTOP if freezes else signal.SIGKILL,
                rows_max=draw.choice([5, 20, 60]),
                session_ms=SESSION_MS,
            )
        )

    async def run_one(self) -> None:
        """A wave: new writers beside those that wake from the wave before."""
        writers = [self.start() for _ in range(WRITERS)]
        woken, self._frozen = self._frozen, []
        for look in range(LOOKS_MAX):
            if all(not writer.is_alive() or is_stopped(writer) for writer in writers):
                break
            if look == LOOKS_MAX // 2:
                self.wake(woken)
            await self.feed()
            await asyncio.sleep(LOOK_S)
        self.wake(woken)
        for writer in writers:
            if writer.is_alive() and is_stopped(writer):
                self.freezes += 1
                self._frozen.append(writer)
            else:
                self.struck_inside += not writer.is_alive()
                await self.kill(writer)
        for writer in woken:
            await self.kill(writer)

    async def feed(self) -> None:
        if await self.stage.backlog() < BACKLOG_MAX:
            await self.stage.append(30)

    def wake(self, frozen: list[ForkServerProcess]) -> None:
        for writer in frozen:
            if writer.pid is not None and writer.is_alive():
                os.kill(writer.pid, signal.SIGCONT)

    async def kill(self, writer: ForkServerProcess) -> None:
        writer.kill()
        assert await waited(writer) == -signal.SIGKILL, "the writer ended by itself"
        self.kills += 1

    async def finish(self) -> None:
        """Wake who is frozen, for late writes, and let one writer do the rest in peace."""
        last = self.stage.start(Plan(rows_max=2_000))
        self.wake(self._frozen)
        async with asyncio.timeout(40):
            while await self.stage.backlog():
                assert last.is_alive()
                await asyncio.sleep(LOOK_S)
        last.terminate()
        # It may still be on its way up when those that woke have done everything.
        assert await waited(last) in (0, -signal.SIGTERM)
        for writer in self._frozen:
            await self.kill(writer)


async def run_waves(stage: Stage, *, faults: int) -> None:
    waves = Waves(stage)
    await stage.append(100)
    while waves.faults < faults:
        await waves.run_one()
        await stage.check_nothing_is_committed_that_is_not_durable()
    await waves.finish()
    print(f"{waves.kills} kills, {waves.struck_inside} of them inside, {waves.freezes} freezes")
    print(f"{len(stage.good)} commands, {len(stage.hostile)} hostile")
    assert min(waves.freezes, waves.struck_inside) >= faults // 20
    await stage.check_the_store_equals_the_reference()


async def test_two_hundred_faults_lose_nothing_double_nothing_and_commit_nothing_early(
    stage: Stage,
) -> None:
    await run_waves(stage, faults=200)


@pytest.mark.stress
async def test_two_thousand_faults_lose_nothing_double_nothing_and_commit_nothing_early(
    stage: Stage,
) -> None:
    await run_waves(stage, faults=2_000)

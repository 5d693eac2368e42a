"""Whatever members of a group join, leave and fail to commit: every record comes, none too early.

Random histories of appends, polls, commits, joins, leaves and ended sessions over each log. At any
moment a commit covers only what some member was given; in the end one member left alone has seen
to it that every record was delivered at least once.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.sync.errors import CommitRefused
from headrace.sync.logs.memory import MemoryCommandLog
from headrace.sync.logs.sqlite import SqliteCommandLog
from headrace.sync.ports import CommandConsumer, CommandLog, Coordinates, PartitionId

GROUP = "readers"
PARTITION_COUNT = 3
STEPS = 60
MEMBERS_MAX = 4
ACTS = ["append", "append", "poll", "poll", "poll", "commit", "join", "leave", "age"]
SESSION_MS = 1_000


class Clock:
    """Wall and steady clock at once, moved by the test."""

    def __init__(self) -> None:
        self.ms = 1_700_000_000_000

    def __call__(self) -> int:
        return self.ms


class Member:
    """A consumer and what it was given since it last committed."""

    def __init__(self, consumer: CommandConsumer) -> None:
        self.consumer = consumer
        self.given: dict[PartitionId, int] = {}


class History:
    """One random history of one log."""

    def __init__(self, log: CommandLog, join: Callable[[], CommandConsumer], clock: Clock) -> None:
        self.log = log
        self.join = join
        self.clock = clock
        self.appended: set[Coordinates] = set()
        self.delivered: set[Coordinates] = set()
        self.members: list[Member] = []

    async def step(self, draw: random.Random) -> None:
        act = draw.choice(ACTS)
        member = draw.choice(self.members) if self.members else None
        if act == "append":
            keys = [b"%d" % draw.randrange(20) for _ in range(draw.randint(1, 8))]
            placed = await self.log.producer().append("realtime", [(key, b"v") for key in keys])
            self.appended.update(placed)
        elif act == "age":
            self.clock.ms += draw.choice([SESSION_MS // 4, SESSION_MS // 2, SESSION_MS + 1])
        elif act == "join" and len(self.members) < MEMBERS_MAX:
            self.members.append(Member(self.join()))
        elif act == "poll" and member is not None:
            await self.poll(member)
        elif act == "commit" and member is not None:
            await self.commit(member)
            await self.check()
        elif act == "leave" and member is not None:
            await self.leave(member)

    async def poll(self, member: Member) -> int:
        records = await member.consumer.poll(rows_max=5, wait_ms=0)
        for record in records:
            place = record.coordinates
            member.given[place.topic, place.partition] = place.offset + 1
            self.delivered.add(place)
        return len(records)

    async def commit(self, member: Member) -> None:
        try:
            await member.consumer.commit(member.given)
        except CommitRefused:
            member.given = {}

    async def leave(self, member: Member) -> None:
        await member.consumer.close()
        self.members.remove(member)

    async def check(self) -> None:
        """Everything below a committed offset was given to somebody."""
        committed = await self.log.consumer("realtime", GROUP).committed(GROUP)
        for place in self.appended:
            if place.offset < committed.get((place.topic, place.partition), 0):
                assert place in self.delivered

    async def finish(self) -> None:
        """All leave; a last member reads to the end."""
        for member in tuple(self.members):
            await self.leave(member)
        last = Member(self.join())
        while await self.poll(last):
            continue
        assert self.delivered == self.appended


async def _run(seed: int, history: History) -> None:
    draw = random.Random(seed)
    for _ in range(STEPS):
        await history.step(draw)
    await history.finish()
    await history.log.close()


@pytest.mark.parametrize("seed", range(20))
async def test_every_record_is_delivered_on_the_memory_log(seed: int) -> None:
    clock = Clock()
    log = MemoryCommandLog(partition_count=PARTITION_COUNT, now_ms=clock)
    await _run(seed, History(log, lambda: log.consumer("realtime", GROUP), clock))


@pytest.mark.parametrize("seed", range(20))
async def test_every_record_is_delivered_on_the_sqlite_log(seed: int, tmp_path: Path) -> None:
    clock = Clock()
    log = SqliteCommandLog(tmp_path / "commands.db", partition_count=PARTITION_COUNT, now_ms=clock)

    def join() -> CommandConsumer:
        return log.consumer("realtime", GROUP, session_ms=SESSION_MS, steady_ms=clock)

    await _run(seed, History(log, join, clock))

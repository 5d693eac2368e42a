"""A rebalance drains: partitions are given up when all that was handed out is committed."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import pytest
from aiokafka import TopicPartition

from headrace.sync.errors import CommitRefused
from headrace.sync.logs import kafka
from headrace.sync.logs.kafka import KafkaConsumer
from headrace.sync.logs.kafka_url import KafkaUrl

TOPIC = "headrace.realtime"


@dataclass
class Record:
    topic: str
    partition: int
    offset: int
    key: bytes = b"k"
    value: bytes = b"v"
    timestamp: int = 1


class Listener(Protocol):
    async def on_partitions_revoked(self, revoked: object) -> None: ...


class Coordinator:
    """What a member of a group sees of its client: two partitions, records, rebalances."""

    def __init__(self) -> None:
        self.places = {TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)}
        self.records: defaultdict[TopicPartition, list[Record]] = defaultdict(list)
        self.commits: dict[TopicPartition, int] = {}
        self.listener: Listener | None = None

    def subscribe(self, topics: list[str], listener: Listener) -> None:
        assert topics == [TOPIC]
        self.listener = listener

    def assignment(self) -> set[TopicPartition]:
        return self.places

    async def getmany(
        self, *places: TopicPartition, timeout_ms: int, max_records: int
    ) -> dict[TopicPartition, list[Record]]:
        del timeout_ms, max_records
        return {place: self.records.pop(place, []) for place in places or self.places}

    async def committed(self, place: TopicPartition) -> int | None:
        return self.commits.get(place)

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        self.commits |= offsets

    def produce(self, partition: int, *offsets: int) -> None:
        place = TopicPartition(TOPIC, partition)
        self.records[place] += [Record(TOPIC, partition, offset) for offset in offsets]

    async def revoke(self) -> asyncio.Task[None]:
        """Begin a rebalance; the task ends when the member gives its partitions up."""
        assert self.listener is not None
        revoked = asyncio.create_task(self.listener.on_partitions_revoked(self.places))
        for _ in range(5):
            await asyncio.sleep(0)
        return revoked


@dataclass
class Member:
    consumer: KafkaConsumer
    coordinator: Coordinator

    async def poll(self) -> list[tuple[int, int]]:
        records = await self.consumer.poll(rows_max=100, wait_ms=1)
        return [(item.coordinates.partition, item.coordinates.offset) for item in records]


@pytest.fixture
async def member(monkeypatch: pytest.MonkeyPatch) -> Member:
    coordinator = Coordinator()

    def client(**options: object) -> Coordinator:
        del options
        return coordinator

    async def begun(client: object) -> None:
        del client

    monkeypatch.setattr(kafka, "AIOKafkaConsumer", client)
    monkeypatch.setattr(kafka, "started", begun)
    url = KafkaUrl.parse("kafka://broker")
    consumer = KafkaConsumer(url, topic="realtime", group="writer", drain_ms=60_000)
    await consumer.heartbeat()
    return Member(consumer, coordinator)


async def test_a_rebalance_waits_for_a_batch_after_which_a_poll_came_back_empty(
    member: Member,
) -> None:
    member.coordinator.produce(0, 5, 6)
    assert await member.poll() == [(0, 5), (0, 6)]
    assert await member.poll() == []
    revoked = await member.coordinator.revoke()
    assert not revoked.done()
    await member.consumer.commit({(TOPIC, 0): 7})
    await revoked
    assert member.coordinator.commits == {TopicPartition(TOPIC, 0): 7}


async def test_a_rebalance_waits_for_every_batch_and_partition_in_hand(member: Member) -> None:
    member.coordinator.produce(0, 5)
    member.coordinator.produce(1, 8)
    await member.poll()
    member.coordinator.produce(0, 6)
    await member.poll()
    revoked = await member.coordinator.revoke()
    for offsets in ({(TOPIC, 0): 6}, {(TOPIC, 1): 9}):
        await member.consumer.commit(offsets)
        await asyncio.sleep(0)
        assert not revoked.done()
    await member.consumer.commit({(TOPIC, 0): 7})
    await revoked


async def test_nothing_new_is_handed_out_while_a_rebalance_waits(member: Member) -> None:
    member.coordinator.produce(0, 5)
    await member.poll()
    revoked = await member.coordinator.revoke()
    member.coordinator.produce(0, 6)
    assert await member.poll() == []
    await member.consumer.commit({(TOPIC, 0): 6})
    await revoked
    assert await member.poll() == [(0, 6)]


async def test_a_rebalance_with_nothing_in_hand_waits_for_nothing(member: Member) -> None:
    member.coordinator.produce(0, 5)
    await member.poll()
    await member.consumer.commit({(TOPIC, 0): 6})
    await (await member.coordinator.revoke())


async def test_what_is_refused_is_no_longer_in_hand(member: Member) -> None:
    member.coordinator.produce(1, 8)
    await member.poll()
    member.coordinator.places = {TopicPartition(TOPIC, 0)}
    revoked = await member.coordinator.revoke()
    with pytest.raises(CommitRefused):
        await member.consumer.commit({(TOPIC, 1): 9})
    await revoked

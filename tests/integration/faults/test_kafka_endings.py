"""Kafka clients that are given up while their broker is frozen or gone leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from own_kafka import frozen, killed

from headrace.loadtest.servers import Server
from headrace.sync.errors import LogUnavailable
from headrace.sync.logs import kafka, kafka_dead_letters
from headrace.sync.logs.kafka import KafkaCommandLog
from headrace.sync.logs.kafka_topics import create_topics
from headrace.sync.logs.kafka_url import KafkaUrl
from headrace.sync.ports import UNREADABLE_LETTER, Coordinates, DeadLetter

RECORDS = [(b"key", b"value")]


@pytest.fixture
async def url(own_kafka: Server) -> KafkaUrl:
    prefix = f"endings_{uuid.uuid4().hex[:12]}"
    made = KafkaUrl.parse(f"kafka://{own_kafka.host}:{own_kafka.port}?prefix={prefix}&partitions=1")
    await create_topics(made)
    return made


def connections_to(port: int) -> int:
    """TCP sockets of this machine, not closed by us, whose peer is `port` (proc(5))."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    peers = [(line.split()[2], line.split()[3]) for line in lines]
    established_or_half_closed = ("01", "02", "08")
    return sum(
        int(peer.partition(":")[2], 16) == port and state in established_or_half_closed
        for peer, state in peers
    )


async def leaves_nothing(own_kafka: Server, act: Callable[[], Awaitable[object]]) -> None:
    """Run `act`; then this process has no task more and no connection to the own_kafka."""
    await asyncio.sleep(0)
    before = asyncio.all_tasks()
    await act()
    await asyncio.sleep(0)  # Transports close their sockets at the next turn of the loop.
    assert asyncio.all_tasks() == before
    assert connections_to(own_kafka.port) == 0


@pytest.mark.parametrize("strike", [frozen, killed], ids=["frozen", "killed"])
async def test_a_producer_that_was_given_up_has_no_task_and_no_connection(
    own_kafka: Server,
    url: KafkaUrl,
    monkeypatch: pytest.MonkeyPatch,
    strike: Callable[[Server], contextlib.AbstractContextManager[None]],
) -> None:
    monkeypatch.setattr(kafka, "APPEND_LIMIT_MS", 300)
    log = KafkaCommandLog(url)

    async def give_up() -> None:
        producer = log.producer()
        await producer.append("realtime", RECORDS)
        with strike(own_kafka):
            with pytest.raises(LogUnavailable, match="did not acknowledge 1 records"):
                await producer.append("realtime", RECORDS)
            await log.close()

    await leaves_nothing(own_kafka, give_up)


@pytest.mark.parametrize("strike", [frozen, killed], ids=["frozen", "killed"])
async def test_a_consumer_closed_without_its_broker_has_no_task_and_no_connection(
    own_kafka: Server,
    url: KafkaUrl,
    strike: Callable[[Server], contextlib.AbstractContextManager[None]],
) -> None:
    log = KafkaCommandLog(url)

    async def give_up() -> None:
        await log.producer().append("realtime", RECORDS)
        consumer = log.consumer("realtime", "readers")
        assert await consumer.poll(rows_max=1, wait_ms=10_000)
        await consumer.committed("readers")
        with strike(own_kafka):
            await log.close()

    await leaves_nothing(own_kafka, give_up)


async def test_whoever_is_cancelled_while_closing_still_closes(
    own_kafka: Server, url: KafkaUrl
) -> None:
    log = KafkaCommandLog(url)

    async def give_up() -> None:
        consumer = log.consumer("realtime", "readers")
        await consumer.poll(rows_max=1, wait_ms=1)
        with frozen(own_kafka):
            closing = asyncio.create_task(consumer.close())
            await asyncio.sleep(0)
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing

    await leaves_nothing(own_kafka, give_up)


async def test_whoever_is_cancelled_while_starting_leaves_nothing(
    own_kafka: Server, url: KafkaUrl
) -> None:
    log = KafkaCommandLog(url)

    async def give_up() -> None:
        for turns in range(0, 3_000, 100):
            starting = asyncio.create_task(log.consumer("realtime", "readers").heartbeat())
            for _ in range(turns):
                await asyncio.sleep(0)
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await starting
        await log.close()

    await leaves_nothing(own_kafka, give_up)


async def test_reading_dead_letters_ends_when_the_broker_falls_silent(
    own_kafka: Server, url: KafkaUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_dead_letters, "QUIET_LIMIT_MS", 500)
    log = KafkaCommandLog(url)
    source = Coordinates("realtime", 0, 0)
    letters = [DeadLetter(source, "CODE", "why", b"k", os.urandom(400_000), 1) for _ in range(8)]
    for letter in letters:
        await log.dead_letters().append([letter])

    async def give_up() -> None:
        reading = log.dead_letters().read()
        await anext(reading)
        with frozen(own_kafka), pytest.raises(LogUnavailable, match="nothing more came"):
            async for _ in reading:
                pass

    await log.close()
    await leaves_nothing(own_kafka, give_up)


async def test_what_is_no_letter_is_told_as_such_among_the_others(url: KafkaUrl) -> None:
    log = KafkaCommandLog(url)
    letter = DeadLetter(Coordinates("realtime", 0, 0), "CODE", "why", b"k", b"v", 1)
    await log.dead_letters().append([letter])
    (place,) = await log.producer().send(url.dead_letter_topic, [(b"theirs", b"{\xff")])
    await log.dead_letters().append([letter])
    first, foreign, last = [found async for _, found in log.dead_letters().read()]
    await log.close()
    assert first == last == letter
    assert (foreign.code, foreign.source) == (UNREADABLE_LETTER, place)
    assert (foreign.key, foreign.value) == (b"theirs", b"{\xff")
    assert "no dead letter" in foreign.message

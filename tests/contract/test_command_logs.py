"""What every command log promises, over every adapter.

A further adapter is one more entry of `LOGS`: a function that opens a log with four partitions.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Protocol

import pytest

from headrace.loadtest.servers import Server
from headrace.sync.errors import CommitRefused
from headrace.sync.logs.kafka import KafkaCommandLog
from headrace.sync.logs.kafka_topics import create_topics
from headrace.sync.logs.kafka_url import KafkaUrl
from headrace.sync.logs.memory import MemoryCommandLog
from headrace.sync.logs.sqlite import SqliteCommandLog
from headrace.sync.ports import (
    CommandConsumer,
    CommandProducer,
    Coordinates,
    DeadLetter,
    DeadLetters,
    LogRecord,
    Topic,
)

PARTITION_COUNT = 4
GROUP = "readers"


class Log(Protocol):
    def producer(self) -> CommandProducer: ...
    def consumer(self, topic: Topic, group: str) -> CommandConsumer: ...
    def dead_letters(self) -> DeadLetters: ...
    async def close(self) -> None: ...


Open = Callable[[pytest.FixtureRequest, Path], Awaitable[Log]]


async def _memory(_request: pytest.FixtureRequest, _folder: Path) -> Log:
    return MemoryCommandLog(partition_count=PARTITION_COUNT)


async def _sqlite(_request: pytest.FixtureRequest, folder: Path) -> Log:
    return SqliteCommandLog(folder / "commands.db", partition_count=PARTITION_COUNT)


async def _kafka(request: pytest.FixtureRequest, _folder: Path) -> Log:
    server: Server = request.getfixturevalue("kafka_server")
    prefix = f"contract-{uuid.uuid4().hex}"
    url = KafkaUrl.parse(
        f"kafka://{server.host}:{server.port}?prefix={prefix}&partitions={PARTITION_COUNT}"
    )
    await create_topics(url)
    return KafkaCommandLog(url, drain_ms=500)  # Some tests hold what they polled for good.


LOGS: dict[str, Open] = {"memory": _memory, "sqlite": _sqlite, "kafka": _kafka}


@pytest.fixture(params=list(LOGS.values()), ids=list(LOGS))
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Log]:
    opened: Log = await request.param(request, tmp_path)
    yield opened
    await opened.close()


def _commands(count: int, *, keys: int = 16) -> list[tuple[bytes, bytes]]:
    return [(b"key-%d" % (number % keys), b"value-%d" % number) for number in range(count)]


async def _drain(consumer: CommandConsumer, *, wait_ms: int = 250) -> list[LogRecord]:
    """Poll until a poll comes back empty. The first may wait for the leaders of a new topic."""
    records = page = await consumer.poll(rows_max=1_000, wait_ms=10_000)
    while page:
        page = await consumer.poll(rows_max=1_000, wait_ms=wait_ms)
        records = records + page
    return records


def _next_offsets(records: list[LogRecord]) -> dict[tuple[str, int], int]:
    return {
        (record.coordinates.topic, record.coordinates.partition): record.coordinates.offset + 1
        for record in records
    }


async def _settle(*consumers: CommandConsumer) -> None:
    """Heartbeat until every partition is held once and the consumers' shares are even."""
    async with asyncio.timeout(10):
        while True:
            for consumer in consumers:
                await consumer.heartbeat()
            shares = [consumer.assignment() for consumer in consumers]
            held = frozenset[tuple[str, int]]().union(*shares)
            sizes = [len(share) for share in shares]
            if len(held) == sum(sizes) == PARTITION_COUNT and max(sizes) - min(sizes) <= 1:
                return


async def test_what_was_appended_is_polled_back_byte_for_byte(log: Log) -> None:
    commands = [(b"", b""), (b"\x00\xff", bytes(range(256))), (b"key", "żółw 🐢".encode())]
    await log.producer().append("realtime", commands)
    polled = await _drain(log.consumer("realtime", GROUP))
    assert sorted((record.key, record.value) for record in polled) == sorted(commands)


async def test_append_returns_the_coordinates_at_which_records_are_polled(log: Log) -> None:
    placed = await log.producer().append("realtime", _commands(100))
    polled = await _drain(log.consumer("realtime", GROUP))
    by_place = {record.coordinates: record.value for record in polled}
    assert [by_place[place] for place in placed] == [value for _, value in _commands(100)]


async def test_equal_keys_share_a_partition_and_keep_their_order(log: Log) -> None:
    producer = log.producer()
    for start in range(0, 100, 10):
        await producer.append("realtime", _commands(100)[start : start + 10])
    polled = await _drain(log.consumer("realtime", GROUP))
    for key in {record.key for record in polled}:
        of_key = [record for record in polled if record.key == key]
        assert len({record.coordinates.partition for record in of_key}) == 1
        numbers = [int(record.value.split(b"-")[1]) for record in of_key]
        assert numbers == sorted(numbers)


async def test_keys_are_spread_over_all_partitions(log: Log) -> None:
    placed = await log.producer().append("realtime", _commands(256, keys=256))
    assert {place.partition for place in placed} == set(range(PARTITION_COUNT))


async def test_offsets_of_a_partition_count_up_from_zero_without_gaps(log: Log) -> None:
    producer = log.producer()
    placed = [place for _ in range(3) for place in await producer.append("bulk", _commands(50))]
    for partition in range(PARTITION_COUNT):
        offsets = [place.offset for place in placed if place.partition == partition]
        assert offsets == list(range(len(offsets)))


async def test_topics_are_separate(log: Log) -> None:
    await log.producer().append("bulk", [(b"k", b"bulk")])
    await log.producer().append("realtime", [(b"k", b"realtime")])
    polled = await _drain(log.consumer("realtime", GROUP))
    assert [record.value for record in polled] == [b"realtime"]


async def test_concurrent_appends_all_arrive_once(log: Log) -> None:
    producer = log.producer()
    await asyncio.gather(
        *(producer.append("realtime", [(b"%d" % n, b"%d" % n)]) for n in range(500))
    )
    polled = await _drain(log.consumer("realtime", GROUP))
    assert sorted(int(record.value) for record in polled) == list(range(500))


async def test_a_poll_brings_no_more_rows_than_asked_for(log: Log) -> None:
    await log.producer().append("realtime", _commands(100))
    assert len(await log.consumer("realtime", GROUP).poll(rows_max=7, wait_ms=100)) == 7


async def test_a_poll_stops_at_its_bytes_but_always_brings_one_record(log: Log) -> None:
    await log.producer().append("realtime", [(b"k", bytes(1_000)) for _ in range(10)])
    consumer = log.consumer("realtime", GROUP)
    page = await consumer.poll(rows_max=100, wait_ms=10_000, bytes_max=2_500)
    oversize = await consumer.poll(rows_max=100, wait_ms=10_000, bytes_max=10)
    assert (len(page), len(oversize)) == (2, 1)


async def test_one_busy_partition_does_not_keep_another_from_being_polled(log: Log) -> None:
    producer = log.producer()
    await producer.append("realtime", [(b"busy", b"busy")] * 1_000)
    await producer.append("realtime", [(b"key-%d" % n, b"quiet") for n in range(64)])
    consumer = log.consumer("realtime", GROUP)
    seen: set[int] = set()
    for _ in range(PARTITION_COUNT):
        page = await consumer.poll(rows_max=20, wait_ms=100)
        seen |= {record.coordinates.partition for record in page}
    assert seen == set(range(PARTITION_COUNT))


async def test_a_poll_of_an_empty_topic_comes_back_empty(log: Log) -> None:
    assert await log.consumer("realtime", GROUP).poll(rows_max=10, wait_ms=1) == []


async def test_a_waiting_poll_is_woken_by_an_append(log: Log) -> None:
    consumer = log.consumer("realtime", GROUP)
    waiting = asyncio.create_task(consumer.poll(rows_max=10, wait_ms=60_000))
    await asyncio.wait([waiting], timeout=0.05)
    await log.producer().append("realtime", [(b"k", b"v")])
    async with asyncio.timeout(5):
        assert [record.value for record in await waiting] == [b"v"]


async def test_a_new_member_starts_at_the_committed_offset(log: Log) -> None:
    await log.producer().append("realtime", _commands(100))
    first = log.consumer("realtime", GROUP)
    page = await first.poll(rows_max=40, wait_ms=100)
    await first.commit(_next_offsets(page))
    await first.poll(rows_max=40, wait_ms=100)
    await first.close()
    rest = await _drain(log.consumer("realtime", GROUP))
    taken = {record.coordinates for record in page}
    assert len(rest) == 60
    assert not taken & {record.coordinates for record in rest}


async def test_without_a_commit_everything_comes_again(log: Log) -> None:
    await log.producer().append("realtime", _commands(20))
    first = log.consumer("realtime", GROUP)
    assert len(await _drain(first)) == 20
    await first.close()
    assert len(await _drain(log.consumer("realtime", GROUP))) == 20


async def test_a_commit_never_moves_back(log: Log) -> None:
    await log.producer().append("realtime", [(b"k", b"v")] * 10)
    consumer = log.consumer("realtime", GROUP)
    (partition,) = _next_offsets(await _drain(consumer))
    await consumer.commit({partition: 9})
    await consumer.commit({partition: 3})
    assert (await consumer.committed(GROUP))[partition] == 9


async def test_groups_do_not_move_each_others_offsets(log: Log) -> None:
    await log.producer().append("realtime", _commands(20))
    writer, downsync = log.consumer("realtime", "writer"), log.consumer("realtime", "downsync")
    await writer.commit(_next_offsets(await _drain(writer)))
    assert len(await _drain(downsync)) == 20
    assert sum((await downsync.committed("downsync")).values()) == 0
    assert sum((await downsync.committed("writer")).values()) == 20


async def test_lag_counts_what_is_not_committed_yet(log: Log) -> None:
    await log.producer().append("realtime", _commands(50))
    consumer = log.consumer("realtime", GROUP)
    assert sum((await consumer.lag()).values()) == 50
    page = await consumer.poll(rows_max=20, wait_ms=100)
    assert sum((await consumer.lag()).values()) == 50
    await consumer.commit(_next_offsets(page))
    assert sum((await consumer.lag()).values()) == 30


async def test_members_of_a_group_share_the_partitions(log: Log) -> None:
    consumers = [log.consumer("realtime", GROUP) for _ in range(3)]
    await _settle(*consumers)
    assert sorted(len(consumer.assignment()) for consumer in consumers) == [1, 1, 2]


async def test_every_record_reaches_exactly_one_settled_member(log: Log) -> None:
    first, second = log.consumer("realtime", GROUP), log.consumer("realtime", GROUP)
    await _settle(first, second)
    await log.producer().append("realtime", _commands(200))
    polled = await _drain(first) + await _drain(second)
    assert sorted(record.value for record in polled) == sorted(v for _, v in _commands(200))


async def test_a_closed_members_partitions_go_to_the_others(log: Log) -> None:
    first, second = log.consumer("realtime", GROUP), log.consumer("realtime", GROUP)
    await _settle(first, second)
    await first.close()
    await _settle(second)
    assert len(second.assignment()) == PARTITION_COUNT


async def test_a_commit_for_a_lost_partition_is_refused(log: Log) -> None:
    await log.producer().append("realtime", _commands(100))
    first = log.consumer("realtime", GROUP)
    offsets = _next_offsets(await _drain(first))
    second = log.consumer("realtime", GROUP)
    await _settle(first, second)
    with pytest.raises(CommitRefused, match="another member"):
        await first.commit(offsets)
    committed = await first.committed(GROUP)
    moved = {partition for partition in committed if committed[partition]}
    assert moved <= first.assignment()


def _letter(number: int) -> DeadLetter:
    source = Coordinates("realtime", number % PARTITION_COUNT, number)
    return DeadLetter(source, "WRONG_TYPE", "`level` wants Long", b"k", b"\xff%d" % number, 17)


async def test_dead_letters_are_read_back_whole_and_in_order(log: Log) -> None:
    dead_letters = log.dead_letters()
    letters = [_letter(number) for number in range(2_500)]
    await dead_letters.append(letters[:1_200])
    await dead_letters.append(letters[1_200:])
    assert [letter async for _, letter in dead_letters.read()] == letters


async def test_dead_letters_stand_at_distinct_places(log: Log) -> None:
    await log.dead_letters().append([_letter(number) for number in range(10)])
    places = [place async for place, _ in log.dead_letters().read()]
    assert len(set(places)) == 10


async def test_the_replay_mark_is_kept_and_never_moves_back(log: Log) -> None:
    dead_letters = log.dead_letters()
    await dead_letters.append([_letter(number) for number in range(10)])
    ((topic, partition), *_) = {(p.topic, p.partition) async for p, _ in dead_letters.read()}
    await dead_letters.mark_replayed({(topic, partition): 7})
    await dead_letters.mark_replayed({(topic, partition): 2})
    assert (await log.dead_letters().replayed())[topic, partition] == 7


async def test_appending_nothing_is_nothing(log: Log) -> None:
    assert await log.producer().append("realtime", []) == []
    await log.dead_letters().append([])
    assert [letter async for _, letter in log.dead_letters().read()] == []

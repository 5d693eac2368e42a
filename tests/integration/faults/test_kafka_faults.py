"""Commands over Kafka and the real store: poison, commands of others, bulk.

The writer runs in the test's own process, both of its loops as in production.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaProducer
from production_writer_process import Servers
from production_writer_stage import NOW_MS, Stage, open_stage
from prometheus_client import CollectorRegistry
from room_commands import HISTORY, OBJECT, START_MS, Command, document

from headrace.loadtest.servers import Server
from headrace.registry.catalog import CatalogDocument, encode_document
from headrace.registry.watch import CatalogWatcher
from headrace.sync.dead_letters import list_letters, replay
from headrace.sync.logs.kafka import KafkaCommandLog
from headrace.sync.logs.kafka_url import KafkaUrl
from headrace.sync.ports import Coordinates, DeadLetter, Topic
from headrace.sync.telemetry import SyncTelemetry
from headrace.sync.writer import WRITER_GROUP
from headrace.sync.writer_role import WriterRole

CONDITION_LIMIT_S = 20.0
BULK_COMMANDS = 40_000
BULK_ROWS_PER_S = 1_000
"""At this rate the bulk commands take twice as long as any condition is waited for."""
HOSTILE = b"\x00\xffnot json"


class ChangingCatalog:
    """A catalog that a test publishes anew."""

    def __init__(self, published: CatalogDocument) -> None:
        self.published = published

    async def generation(self) -> int:
        return self.published.generation

    async def load(self) -> bytes | None:
        return encode_document(self.published)


def servers_of(cassandra: Server, broker: Server) -> Servers:
    name = f"kafka_{uuid.uuid4().hex[:12]}"
    return Servers(
        online=f"scylla://{cassandra.host}:{cassandra.port}/{name}?replication=1",
        commands=f"kafka://{broker.host}:{broker.port}?prefix={name}&partitions=1",
        cache="",
    )


@pytest.fixture
async def stage(cassandra_server: Server, kafka_server: Server) -> AsyncGenerator[Stage]:
    async with open_stage(servers_of(cassandra_server, kafka_server), seed=1) as opened:
        yield opened


@asynccontextmanager
async def writing(
    stage: Stage,
    catalog: ChangingCatalog | None = None,
    *,
    bulk_rows_per_s: float | None = None,
) -> AsyncGenerator[asyncio.Task[None]]:
    """Both loops of a writer; leaving raises what ended them."""
    log = KafkaCommandLog(KafkaUrl.parse(stage.servers.commands))
    role = WriterRole(
        log,
        stage.engine.writer(),
        CatalogWatcher(catalog or ChangingCatalog(stage.document), lambda: NOW_MS),
        SyncTelemetry(CollectorRegistry()),
        bulk_rows_per_s=bulk_rows_per_s,
    )
    task = asyncio.create_task(role.run())
    try:
        yield task
    finally:
        role.stop()
        await task
        await log.close()


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(CONDITION_LIMIT_S):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.02)


async def until_committed(stage: Stage, *places: Coordinates) -> None:
    async def holds() -> bool:
        committed = await stage.committed()
        return all(committed.get((at.topic, at.partition), 0) > at.offset for at in places)

    await until(holds)


async def append(stage: Stage, *payloads: bytes, topic: Topic = "realtime") -> list[Coordinates]:
    return await stage.log.producer().append(topic, [(b"room", each) for each in payloads])


async def letters_of(stage: Stage) -> list[DeadLetter]:
    return [listed.letter async for listed in list_letters(stage.log.dead_letters())]


def viewers(room_id: int, count: int) -> bytes:
    return Command(OBJECT, "UPDATE", room_id, START_MS + count, {"viewers": count}).payload


def event(number: int) -> bytes:
    values: dict[str, object] = {"kind": "a", "amount": number}
    return Command(HISTORY, "APPEND", 1, START_MS + number, values).payload


async def viewers_in_store(stage: Stage) -> dict[int, object]:
    return {room: values["viewers"] for room, (_, values) in (await stage.objects()).items()}


async def test_poison_goes_to_the_dead_letters_as_it_came_and_its_partition_goes_on(
    stage: Stage,
) -> None:
    places = await append(stage, viewers(1, 1), HOSTILE, viewers(2, 2))
    async with writing(stage):
        await until_committed(stage, *places)
    (letter,) = await letters_of(stage)
    assert (letter.source, letter.code) == (places[1], "MALFORMED_JSON")
    assert (letter.key, letter.value) == (b"room", HOSTILE)
    assert await viewers_in_store(stage) == {1: 1, 2: 2}


async def test_replay_after_the_mend_applies_everything_once_however_often_it_is_repeated(
    stage: Stage,
) -> None:
    catalog = ChangingCatalog(document(1, groups=[OBJECT]))
    payloads = [event(number) for number in range(5)]
    expected = [(START_MS + number, {"kind": "a", "amount": number}) for number in range(5)]
    async with writing(stage, catalog):
        await until_committed(stage, *await append(stage, *payloads))
        assert {letter.code for letter in await letters_of(stage)} == {"UNKNOWN_GROUP"}
        catalog.published = document(2)
        assert await replay(stage.log.dead_letters(), stage.log.producer()) == 5
        await until_committed(stage, *await append(stage, viewers(1, 1)))
        assert await stage.events() == {1: expected[::-1]}
        assert await replay(stage.log.dead_letters(), stage.log.producer()) == 0
        # A crash before the mark moved: the same commands come once more.
        await until_committed(stage, *await append(stage, *payloads))
    assert await stage.events() == {1: expected[::-1]}
    assert len(await letters_of(stage)) == 5


async def test_commands_of_another_producer_are_applied_and_unknown_members_refused(
    stage: Stage,
) -> None:
    """The literal shape of a command, as Flink or ksqlDB write it, in any order of members."""
    good = [
        b'{"feature_name":"live::room-v1","method":"UPDATE","keys":{"room_id":7},'
        b'"values":{"viewers":3,"_last_updated_at_ms":1700000000000}}',
        b'{ "values": {"_last_updated_at_ms": 1700000000001, "score": 2, "viewers": 4},\n'
        b'  "keys": {"room_id": 8}, "method": "UPDATE", "feature_name": "live::room-v1" }',
    ]
    extra = good[0].replace(b"{", b'{"op":"u",', 1)
    url = KafkaUrl.parse(stage.servers.commands)
    async with AIOKafkaProducer(bootstrap_servers=url.servers) as producer:
        sent = [
            await producer.send_and_wait(url.topic("realtime"), each) for each in [*good, extra]
        ]
    places = [Coordinates(each.topic, each.partition, each.offset) for each in sent]
    async with writing(stage):
        await until_committed(stage, *places)
    rows = {room: values for room, (_, values) in (await stage.objects()).items()}
    assert rows == {
        7: {"viewers": 3, "score": 0.5, "title": "untitled"},
        8: {"viewers": 4, "score": 2.0, "title": "untitled"},
    }
    (letter,) = await letters_of(stage)
    assert (letter.source, letter.code, letter.value) == (places[2], "UNKNOWN_MEMBER", extra)


async def test_each_real_time_command_is_readable_while_a_limited_bulk_backlog_is_under_way(
    stage: Stage,
) -> None:
    """Were real time to wait for bulk, the condition's limit would pass long before bulk ends."""
    assert BULK_COMMANDS / BULK_ROWS_PER_S >= 2 * CONDITION_LIMIT_S
    backlog = [viewers(number % 20, number) for number in range(BULK_COMMANDS)]
    await append(stage, *backlog, topic="bulk")
    watcher = stage.log.consumer("bulk", WRITER_GROUP)

    async def bulk_done() -> int:
        return sum((await watcher.committed(WRITER_GROUP)).values())

    async def bulk_goes_on() -> bool:
        return await bulk_done() > seen

    async def is_readable() -> bool:
        return (await viewers_in_store(stage)).get(21) == number

    seen = 0
    async with writing(stage, bulk_rows_per_s=BULK_ROWS_PER_S), asyncio.timeout(CONDITION_LIMIT_S):
        for number in range(10):
            await until(bulk_goes_on)
            seen = await bulk_done()
            await append(stage, viewers(21, number))
            await until(is_readable)
            assert await bulk_done() < BULK_COMMANDS


@pytest.mark.stress  # How far bulk has come by then depends on the speed of the machine.
async def test_real_time_commands_are_committed_before_a_bulk_backlog_that_came_earlier(
    stage: Stage,
) -> None:
    backlog = [viewers(number % 20, number) for number in range(BULK_COMMANDS)]
    bulk = await append(stage, *backlog, topic="bulk")
    watcher = stage.log.consumer("bulk", WRITER_GROUP)

    async def bulk_done() -> int:
        return sum((await watcher.committed(WRITER_GROUP)).values())

    async def bulk_has_begun() -> bool:
        return await bulk_done() > 0

    async with writing(stage):
        await until(bulk_has_begun)
        await until_committed(stage, *await append(stage, *[viewers(21, n) for n in range(100)]))
        assert 0 < await bulk_done() < len(bulk)
    assert (await viewers_in_store(stage))[21] == 99

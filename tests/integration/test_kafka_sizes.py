"""Large records over a real Kafka: written, buried or refused, and never in anybody's way."""

from __future__ import annotations

import asyncio
import base64
import os
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from prometheus_client import CollectorRegistry
from room_commands import OBJECT, START_MS, Command, document

from headrace.cli.doctor_log import examine_kafka
from headrace.loadtest.servers import Server
from headrace.registry.catalog import CatalogDocument, ValueField, encode_document
from headrace.registry.watch import CatalogWatcher
from headrace.sync.dead_letters import list_letters
from headrace.sync.errors import RecordTooLarge
from headrace.sync.logs.kafka import KafkaCommandLog
from headrace.sync.logs.kafka_sizes import LETTER_CUTS_BYTES
from headrace.sync.logs.kafka_topics import create_topics, topic_bytes_max
from headrace.sync.logs.kafka_url import KafkaUrl
from headrace.sync.ports import COMMAND_BYTES_MAX, DeadLetter
from headrace.sync.stores.memory import MemoryOnlineStore, MemoryOnlineWriter
from headrace.sync.telemetry import SyncTelemetry
from headrace.sync.writer import WRITER_GROUP, Writer, WriterLimits, WriterPorts

CONDITION_LIMIT_S = 60.0
NOW_MS = START_MS + 1_000_000
TEXTS = tuple(f"text_{number}" for number in range(4))
PLAIN_BROKER_BYTES_MAX = 1_048_588
"""`max.message.bytes` of a topic that somebody made without saying it."""


class Scene:
    """One partition of a real log, a writer on it and a store in memory."""

    def __init__(self, url: KafkaUrl) -> None:
        self.url = url
        self.log = KafkaCommandLog(url)
        self.store = MemoryOnlineStore()

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator[None]:
        """A writer, until everything that was appended is committed."""
        writer = Writer(
            "realtime",
            WriterPorts(
                consumer=self.log.consumer("realtime", WRITER_GROUP),
                dead_letters=self.log.dead_letters(),
                store=MemoryOnlineWriter(self.store),
                catalog=CatalogWatcher(Texts(), lambda: NOW_MS),
                invalidator=None,
            ),
            SyncTelemetry(CollectorRegistry()).topic("realtime"),
            limits=WriterLimits(rows_max=500, age_max_ms=0),
            now_ms=lambda: NOW_MS,
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(writer.run())
            try:
                yield
                await until(self.is_committed)
            finally:
                writer.stop()

    async def is_committed(self) -> bool:
        return await self.log.behind("realtime", WRITER_GROUP) == 0

    async def append(self, *payloads: bytes) -> None:
        await self.log.producer().append("realtime", [(b"room", each) for each in payloads])

    async def letters(self) -> list[DeadLetter]:
        return [listed.letter async for listed in list_letters(self.log.dead_letters())]


class Texts:
    """A catalog whose Object has some Text fields more."""

    async def generation(self) -> int:
        return 1

    async def load(self) -> bytes | None:
        return encode_document(texts_document())


def texts_document() -> CatalogDocument:
    published = document(groups=[OBJECT])
    (group,) = published.groups
    (schema,) = group.schemas
    more = tuple(
        ValueField(id=4 + number, name=name, type="Text", default="")
        for number, name in enumerate(TEXTS)
    )
    wider = msgspec.structs.replace(schema, fields=schema.fields + more)
    wide = msgspec.structs.replace(group, schemas=(wider,))
    return msgspec.structs.replace(published, groups=(wide,))


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(CONDITION_LIMIT_S):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.02)


def noise(size_bytes: int) -> str:
    """Text that takes about three quarters of its bytes however it is compressed."""
    return base64.b64encode(os.urandom(size_bytes * 3 // 4)).decode()


def update(room_id: int, **values: object) -> bytes:
    return Command(OBJECT, "UPDATE", room_id, START_MS, values).payload


def poison(size_bytes: int) -> bytes:
    """No group of this name exists; its bytes cannot be compressed."""
    return b'{"feature_name":"live::nobody","values":"' + os.urandom(size_bytes) + b'"}'


def url_of(server: Server) -> KafkaUrl:
    prefix = f"sizes-{uuid.uuid4().hex}"
    return KafkaUrl.parse(f"kafka://{server.host}:{server.port}?prefix={prefix}&partitions=1")


@pytest.fixture
async def scene(kafka_server: Server) -> AsyncGenerator[Scene]:
    """With the topics that `apply` makes."""
    made = Scene(url_of(kafka_server))
    await create_topics(made.url)
    yield made
    await made.log.close()


async def with_topics_of(server: Server, bytes_max: int) -> Scene:
    """With topics that somebody else made."""
    made = Scene(url_of(server))
    admin = AIOKafkaAdminClient(**made.url.client_options())
    await admin.start()
    settings = {"max.message.bytes": str(bytes_max)}
    names = topic_bytes_max(made.url)
    await admin.create_topics([NewTopic(name, 1, 1, topic_configs=settings) for name in names])
    await admin.close()
    return made


@pytest.fixture
async def foreign(kafka_server: Server) -> AsyncGenerator[Scene]:
    made = await with_topics_of(kafka_server, PLAIN_BROKER_BYTES_MAX)
    yield made
    await made.log.close()


@pytest.mark.parametrize("size_bytes", [1_500_000, COMMAND_BYTES_MAX])
async def test_large_poison_goes_to_the_dead_letters_whole_and_its_partition_goes_on(
    scene: Scene, size_bytes: int
) -> None:
    hostile = poison(size_bytes)
    async with scene.writing():
        await scene.append(hostile, update(1, viewers=7))
    (letter,) = await scene.letters()
    assert (letter.value, letter.command_bytes) == (hostile, None)
    assert len(scene.store.rows) == 1


async def test_a_command_of_three_mebibytes_is_written(scene: Scene) -> None:
    texts = {name: noise(800_000) for name in TEXTS}
    assert len(update(1, **texts)) > 3 << 20
    async with scene.writing():
        await scene.append(update(1, **texts))
    assert await scene.letters() == []
    assert len(scene.store.rows) == 1


async def test_a_letter_that_its_topic_does_not_take_is_cut_and_its_partition_goes_on(
    foreign: Scene,
) -> None:
    hostile = poison(900_000)
    async with foreign.writing():
        await foreign.append(b"not json", hostile, update(1, viewers=7))
    small, cut = await foreign.letters()
    assert (small.value, small.command_bytes) == (b"not json", None)
    assert (cut.value, cut.command_bytes) == (hostile[: LETTER_CUTS_BYTES[0]], len(hostile))
    assert (cut.source.offset, f"its {len(hostile)} bytes" in cut.message) == (1, True)
    assert len(foreign.store.rows) == 1


async def test_a_record_too_large_is_named_and_those_beside_it_are_durable(foreign: Scene) -> None:
    records = [(b"k", b"before"), (b"k", os.urandom(1_500_000)), (b"k", b"after")]
    with pytest.raises(RecordTooLarge, match=r"refuses 1 of 3 records.*1500000 bytes") as refused:
        await foreign.log.producer().append("realtime", records)
    assert [place is None for place in refused.value.places] == [False, True, False]
    polled = await foreign.log.consumer("realtime", "look").poll(rows_max=9, wait_ms=10_000)
    assert {record.value for record in polled} >= {b"before"}


async def test_a_record_too_large_fails_nobody_elses_append(foreign: Scene) -> None:
    producer = foreign.log.producer()
    await producer.append("realtime", [(b"k", b"first")])
    outcomes = await asyncio.gather(
        *(producer.append("realtime", [(b"k", b"%d" % number)]) for number in range(20)),
        producer.append("realtime", [(b"k", os.urandom(1_500_000))]),
        *(producer.append("realtime", [(b"k", b"%d" % number)]) for number in range(20, 40)),
        return_exceptions=True,
    )
    failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert [type(failure) for failure in failures] == [RecordTooLarge]


async def test_small_records_that_are_too_large_together_are_appended_apart(
    kafka_server: Server,
) -> None:
    small = await with_topics_of(kafka_server, 2_000)
    records = [(b"k", os.urandom(1_000)) for _ in range(20)]
    assert len(await small.log.producer().append("realtime", records)) == 20
    await small.log.close()


async def test_doctor_tells_topics_that_take_too_little(scene: Scene, foreign: Scene) -> None:
    ours, others = await examine_kafka(scene.url), await examine_kafka(foreign.url)
    assert [found.ok for found in ours if found.check == "topic"] == [True] * 3
    told = [found for found in others if found.check == "topic"]
    assert [found.ok for found in told] == [False] * 3
    for found, size_bytes in zip(told, topic_bytes_max(foreign.url).values(), strict=True):
        assert f"max.message.bytes={size_bytes} " in str(found.fix)

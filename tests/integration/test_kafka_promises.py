"""What the broker itself shows of our clients: replication waited for, no repeats, compression."""

from __future__ import annotations

import asyncio
import os
import struct
import uuid
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.protocol.group import LeaveGroupRequest

from headrace.loadtest.servers import Server
from headrace.sync.errors import CommitRefused, RecordTooLarge
from headrace.sync.logs import kafka
from headrace.sync.logs.kafka import KafkaCommandLog, KafkaConsumer
from headrace.sync.logs.kafka_clients import running
from headrace.sync.logs.kafka_topics import create_topics
from headrace.sync.logs.kafka_url import KafkaUrl
from headrace.sync.ports import LogRecord

NO_PRODUCER_ID = -1
CODECS = {"none": 0, "lz4": 3, "zstd": 4}
"""Bits 0-2 of a batch's attributes (Kafka message format v2)."""


def url_of(server: Server, **options: str) -> KafkaUrl:
    prefix = f"promises-{uuid.uuid4().hex}"
    told = "".join(f"&{name}={value}" for name, value in options.items())
    place = f"kafka://{server.host}:{server.port}"
    return KafkaUrl.parse(f"{place}?prefix={prefix}&partitions=1{told}")


def first_batch(server: Server, topic: str) -> tuple[int, int, int]:
    """Attributes, producer id and base sequence of the first batch of a topic, from its file."""
    segment = Path(server.folder) / "logs" / f"{topic}-0" / "00000000000000000000.log"
    header = segment.read_bytes()[:61]
    (attributes,) = struct.unpack_from(">h", header, 21)
    producer_id, _, base_sequence = struct.unpack_from(">qhi", header, 43)
    return attributes, producer_id, base_sequence


@pytest.mark.parametrize("compression", list(CODECS))
async def test_batches_are_compressed_as_the_url_says_and_numbered_against_repeats(
    kafka_server: Server, compression: str
) -> None:
    url = url_of(kafka_server, compression=compression)
    await create_topics(url)
    log = KafkaCommandLog(url)
    value = os.urandom(10) * 1_000
    await log.producer().append("realtime", [(b"k", value)])
    (record,) = await log.consumer("realtime", "look").poll(rows_max=1, wait_ms=30_000)
    await log.close()
    attributes, producer_id, base_sequence = first_batch(kafka_server, url.topic("realtime"))
    assert record.value == value
    assert attributes & 0b111 == CODECS[compression]
    assert (producer_id != NO_PRODUCER_ID, base_sequence) == (True, 0)


async def test_whatever_appends_waits_for_all_replicas_in_sync(
    kafka_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One broker cannot show it: the clients made for it are asked."""
    made: list[dict[str, Any]] = []

    class Noted(AIOKafkaProducer):  # type: ignore[misc]  # aiokafka ships no types for it
        def __init__(self, **options: Any) -> None:
            made.append(options)
            super().__init__(**options)

    monkeypatch.setattr(kafka, "AIOKafkaProducer", Noted)
    url = url_of(kafka_server)
    async with running(AIOKafkaAdminClient(**url.client_options())) as admin:
        settings = {"max.message.bytes": "1000"}
        await admin.create_topics([NewTopic(url.topic("realtime"), 1, 1, topic_configs=settings)])
    log = KafkaCommandLog(url)
    with pytest.raises(RecordTooLarge):
        await log.producer().append("realtime", [(b"k", os.urandom(2_000))])
    await log.close()
    assert [each["acks"] for each in made] == ["all"] * len(made)
    assert [each["enable_idempotence"] for each in made][:2] == [True, False]


async def put_out(member: Any) -> None:
    """Tell the group coordinator that a member left, without that member's knowledge."""
    coordinator = member._client._coordinator
    await coordinator._send_req(LeaveGroupRequest(coordinator.group_id, coordinator.member_id))


async def polled(member: KafkaConsumer) -> LogRecord:
    async with asyncio.timeout(60):
        while True:
            if records := await member.poll(rows_max=1, wait_ms=1_000):
                return records[0]


async def test_a_member_that_the_broker_put_out_is_refused_its_commit_and_polls_again(
    kafka_server: Server,
) -> None:
    url = url_of(kafka_server)
    await create_topics(url)
    log = KafkaCommandLog(url)
    await log.producer().append("realtime", [(b"k", b"v")])
    member = log.consumer("realtime", "readers")
    first = await polled(member)
    at = first.coordinates
    await put_out(member)
    with pytest.raises(CommitRefused):
        await member.commit({(at.topic, at.partition): at.offset + 1})
    again = await polled(member)
    await member.commit({(at.topic, at.partition): at.offset + 1})
    committed = await member.committed("readers")
    await log.close()
    assert again == first
    assert committed == {(at.topic, at.partition): at.offset + 1}

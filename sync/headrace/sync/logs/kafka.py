"""The command log on Kafka, through aiokafka.

Durability: the producer is idempotent with acks=all, so an acknowledged command is on every in-sync
replica once. Order: one key stays in one partition (the client's default murmur2 partitioner).
Consumers commit by hand, last handled + 1, and only what the caller says it has handled; a
rebalance waits for the batch in hand before it gives partitions up.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import CommitFailedError, KafkaError

from headrace.sync.errors import CommitRefused, LogUnavailable
from headrace.sync.logs.kafka_url import KafkaUrl
from headrace.sync.ports import Coordinates, DeadLetter, LogRecord, Topic

APPEND_LIMIT_MS = 10_000
CLOSE_LIMIT_MS = 2_000
REQUEST_LIMIT_MS = 5_000
LINGER_MS = 5
BATCH_BYTES = 128 * 1024
RECORD_BYTES_MAX = 4 * 1024 * 1024
FETCH_BYTES_MAX = 16 * 1024 * 1024
SESSION_LIMIT_MS = 10_000
HEARTBEAT_MS = 1_000
REBALANCE_LIMIT_MS = 30_000
"""How long a rebalance waits for a member that still has a batch in hand."""


class KafkaCommandLog:
    """Opens producers, consumers and the dead-letter topic of one Kafka cluster and prefix."""

    def __init__(self, url: KafkaUrl) -> None:
        self._url = url

    def producer(self) -> KafkaProducer:
        """A producer; it connects at its first append."""
        return KafkaProducer(self._url)

    def consumer(self, topic: Topic, group: str) -> KafkaConsumer:
        """A member of a consumer group on one topic; it connects at its first poll."""
        return KafkaConsumer(self._url, topic=topic, group=group)

    def dead_letters(self) -> KafkaDeadLetters:
        """The dead-letter topic."""
        return KafkaDeadLetters(self._url)


class KafkaProducer:
    """`CommandProducer` over one idempotent aiokafka producer."""

    def __init__(self, url: KafkaUrl) -> None:
        self._url = url
        self._client: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()

    async def append(
        self, topic: Topic, records: Sequence[tuple[bytes, bytes]]
    ) -> list[Coordinates]:
        """Append in order and wait until every record is acknowledged; raises `LogUnavailable`.

        After `LogUnavailable` some of the records may still arrive: appending them again is
        harmless, because commands are ordered by event time and repeat without effect.
        """
        return await self.send(self._url.topic(topic), records)

    async def send(self, topic: str, records: Sequence[tuple[bytes, bytes]]) -> list[Coordinates]:
        """The same by the topic's full name."""
        try:
            async with asyncio.timeout(APPEND_LIMIT_MS / 1000):
                client = await self._started()
                sent = [await client.send(topic, value=value, key=key) for key, value in records]
                stored = await asyncio.gather(*sent)
        except (KafkaError, OSError, TimeoutError) as error:
            await self._discard()
            raise LogUnavailable(
                f"Kafka at `{self._url.servers}` did not acknowledge {len(records)} records on "
                f"`{topic}`: {_reason(error)}; nothing that was acknowledged is lost, send again"
            ) from error
        return [Coordinates(topic, place.partition, place.offset) for place in stored]

    async def close(self) -> None:
        """Flush and close, within a limit: an idempotent producer would wait for ever."""
        await self._discard()

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._client is None:
                client = AIOKafkaProducer(
                    **self._url.client_options(),
                    acks="all",
                    enable_idempotence=True,
                    compression_type=self._url.compression,
                    linger_ms=LINGER_MS,
                    max_batch_size=BATCH_BYTES,
                    max_request_size=RECORD_BYTES_MAX,
                    request_timeout_ms=REQUEST_LIMIT_MS,
                )
                await client.start()
                self._client = client
            return self._client

    async def _discard(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await _stopped(client.stop())


class KafkaConsumer:
    """`CommandConsumer`: a group member that never gives up a partition with a batch in hand."""

    def __init__(self, url: KafkaUrl, *, topic: Topic, group: str) -> None:
        self._url = url
        self._topic = url.topic(topic)
        self._group = url.group(group)
        self._client: AIOKafkaConsumer | None = None
        self._admin: AIOKafkaAdminClient | None = None
        self._settled = asyncio.Event()
        self._settled.set()

    async def poll(self, *, rows_max: int, wait_ms: int) -> list[LogRecord]:
        """Records after the position. A batch is in hand until `commit` or the next poll."""
        self._settled.set()
        try:
            client = await self._started()
            fetched = await client.getmany(timeout_ms=wait_ms, max_records=rows_max)
        except (KafkaError, OSError) as error:
            raise self._unavailable("poll", error) from error
        records = [
            LogRecord(
                coordinates=Coordinates(place.topic, place.partition, record.offset),
                key=record.key or b"",
                value=record.value or b"",
                appended_at_ms=record.timestamp,
            )
            for place, batch in fetched.items()
            for record in batch
        ]
        if records:
            self._settled.clear()
        return records

    async def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Commit next offsets; raises `CommitRefused` when a rebalance took the partitions away."""
        client = await self._started()
        try:
            await client.commit(
                {TopicPartition(topic, partition): at for (topic, partition), at in offsets.items()}
            )
        except CommitFailedError as error:
            raise CommitRefused(
                f"partitions of `{self._topic}` went to another worker before this one committed; "
                "it will handle the same commands again, which changes nothing"
            ) from error
        except (KafkaError, OSError) as error:
            raise self._unavailable("commit", error) from error
        finally:
            self._settled.set()

    async def committed(self, group: str) -> dict[tuple[str, int], int]:
        """Committed next offsets of any group of this prefix, by (topic, partition)."""
        try:
            admin = await self._administration()
            offsets: dict[TopicPartition, Any] = await admin.list_consumer_group_offsets(
                self._url.group(group)
            )
        except (KafkaError, OSError) as error:
            raise self._unavailable("read committed offsets", error) from error
        return {
            (place.topic, place.partition): committed.offset
            for place, committed in offsets.items()
            if place.topic == self._topic and committed.offset >= 0
        }

    async def lag(self) -> dict[tuple[str, int], int]:
        """Records between the committed offset and the end, for the partitions of this member."""
        client = await self._started()
        try:
            places = list(client.assignment())
            ends = await client.end_offsets(places)
            starts = await client.beginning_offsets(places)
            lags = {}
            for place in places:
                committed = await client.committed(place)
                behind = ends[place] - (committed if committed is not None else starts[place])
                lags[place.topic, place.partition] = behind
        except (KafkaError, OSError) as error:
            raise self._unavailable("read lag", error) from error
        return lags

    async def close(self) -> None:
        """Leave the group at once, so that others take over without waiting for a time-out."""
        self._settled.set()
        client, self._client = self._client, None
        admin, self._admin = self._admin, None
        if client is not None:
            await _stopped(client.stop())
        if admin is not None:
            await _stopped(admin.close())

    async def _started(self) -> AIOKafkaConsumer:
        if self._client is None:
            client = AIOKafkaConsumer(
                **self._url.client_options(),
                group_id=self._group,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                fetch_max_bytes=FETCH_BYTES_MAX,
                max_partition_fetch_bytes=RECORD_BYTES_MAX,
                request_timeout_ms=REQUEST_LIMIT_MS,
                session_timeout_ms=SESSION_LIMIT_MS,
                heartbeat_interval_ms=HEARTBEAT_MS,
                rebalance_timeout_ms=REBALANCE_LIMIT_MS,
            )
            client.subscribe([self._topic], listener=_Drain(self._settled))
            await client.start()
            self._client = client
        return self._client

    async def _administration(self) -> AIOKafkaAdminClient:
        if self._admin is None:
            admin = AIOKafkaAdminClient(
                **self._url.client_options(), request_timeout_ms=REQUEST_LIMIT_MS
            )
            await admin.start()
            self._admin = admin
        return self._admin

    def _unavailable(self, act: str, error: Exception) -> LogUnavailable:
        return LogUnavailable(
            f"could not {act} on `{self._topic}` at `{self._url.servers}`: {_reason(error)}"
        )


class _Drain(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types for it
    """Holds a rebalance until the batch in hand is committed, or the limit passes."""

    def __init__(self, settled: asyncio.Event) -> None:
        self._settled = settled

    async def on_partitions_revoked(  # pyright: ignore[reportIncompatibleMethodOverride]  # awaited
        self, revoked: object
    ) -> None:
        # Late writes after the limit are harmless: cells are ordered by event time, not arrival.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REBALANCE_LIMIT_MS / 2 / 1000):
                await self._settled.wait()

    def on_partitions_assigned(self, assigned: object) -> None:
        """Nothing to prepare: positions start at the committed offsets."""


class KafkaDeadLetters:
    """`DeadLetters`: one topic, each letter a JSON text whose bytes are base64."""

    def __init__(self, url: KafkaUrl, *, clock_ms: Callable[[], int] | None = None) -> None:
        self._url = url
        self._producer = KafkaProducer(url)
        self._clock_ms = clock_ms or (lambda: time.time_ns() // 1_000_000)

    async def append(self, letters: Sequence[DeadLetter]) -> None:
        """Durable when it returns."""
        records = [(letter.key, msgspec.json.encode(letter)) for letter in letters]
        await self._producer.send(self._url.dead_letter_topic, records)

    async def read(self) -> AsyncIterator[tuple[Coordinates, DeadLetter]]:
        """All letters that lie on the topic now, oldest first within a partition."""
        client = AIOKafkaConsumer(
            self._url.dead_letter_topic,
            **self._url.client_options(),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        try:
            await client.start()  # Without a group it is given every partition of the topic.
            places = sorted(client.assignment())
            ends = await client.end_offsets(places)
            for place in places:
                while await client.position(place) < ends[place]:
                    fetched = await client.getmany(place, timeout_ms=REQUEST_LIMIT_MS)
                    for record in fetched.get(place, []):
                        at = Coordinates(place.topic, place.partition, record.offset)
                        yield at, msgspec.json.decode(record.value or b"", type=DeadLetter)
        except (KafkaError, OSError) as error:
            raise LogUnavailable(
                f"could not read dead letters at `{self._url.servers}`: {_reason(error)}"
            ) from error
        finally:
            await _stopped(client.stop())

    async def close(self) -> None:
        """Close the producer behind it."""
        await self._producer.close()


async def _stopped(stopping: Coroutine[Any, Any, object]) -> None:
    """Wait for a client to stop, within a limit and without caring how it ended.

    In a task of its own: with the broker gone, aiokafka lets the cancellation of its inner tasks
    escape from `stop`, which would look like a cancellation of ours.
    """
    task = asyncio.ensure_future(stopping)
    await asyncio.wait({task}, timeout=CLOSE_LIMIT_MS / 1000)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__

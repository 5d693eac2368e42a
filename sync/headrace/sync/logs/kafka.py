"""The command log on Kafka, through aiokafka.

Durability: the producer is idempotent with acks=all, so an acknowledged command is on every in-sync
replica once. Order: one key stays in one partition (the client's default murmur2 partitioner).
Consumers commit by hand, last handled + 1, and only what the caller says it has handled; a
rebalance waits for what is in hand before it gives partitions up.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    CommitFailedError,
    GroupCoordinatorNotAvailableError,
    IllegalStateError,
    KafkaError,
    MessageSizeTooLargeError,
)
from aiokafka.structs import ConsumerRecord

from headrace.sync.errors import CommitRefused, LogUnavailable, RecordTooLarge
from headrace.sync.logs.kafka_clients import (
    REQUEST_LIMIT_MS,
    reason_of,
    running,
    started,
    stopped,
)
from headrace.sync.logs.kafka_dead_letters import KafkaDeadLetters
from headrace.sync.logs.kafka_in_hand import InHand
from headrace.sync.logs.kafka_sizes import BATCH_BYTES, DEAD_LETTER_TOPIC_BYTES_MAX
from headrace.sync.logs.kafka_url import KafkaUrl
from headrace.sync.ports import (
    BATCH_BYTES_MAX,
    Coordinates,
    LogRecord,
    PartitionId,
    Topic,
)

Part = TypeVar("Part", "KafkaProducer", "KafkaConsumer", "KafkaDeadLetters")

APPEND_LIMIT_MS = 10_000
RECORD_LIMIT_MS = 10
"""How much longer for each record that may have to go alone."""
LINGER_MS = 5
RECORD_BYTES_MAX = 4 * 1024 * 1024
FETCH_BYTES_MAX = 16 * 1024 * 1024
LOOK_LIMIT_MS = 2_000
"""How long a broker may take to show that it is there."""
QUIET_LIMIT_S = 5.0
"""How long nothing may come from a topic until its brokers are asked whether they are there."""
SESSION_LIMIT_MS = 10_000
"""How long a silent member keeps its partitions."""
HEARTBEAT_MS = 1_000
HEARTBEAT_WAIT_S = 0.01
REBALANCE_LIMIT_MS = 30_000
"""How long the broker waits for a member to join again in a rebalance."""
DRAIN_LIMIT_MS = REBALANCE_LIMIT_MS // 2
"""How long a member keeps a rebalance waiting for what it has in hand."""


class KafkaCommandLog:
    """Opens producers, consumers and the dead-letter topic of one Kafka cluster and prefix."""

    def __init__(
        self,
        url: KafkaUrl,
        *,
        session_ms: int = SESSION_LIMIT_MS,
        drain_ms: int = DRAIN_LIMIT_MS,
    ) -> None:
        self._url = url
        self._session_ms = session_ms
        self._drain_ms = drain_ms
        self._opened: list[KafkaProducer | KafkaConsumer | KafkaDeadLetters] = []

    def producer(self) -> KafkaProducer:
        """A producer; it connects at its first append."""
        return self._kept(KafkaProducer(self._url))

    def consumer(self, topic: Topic, group: str) -> KafkaConsumer:
        """A member of a consumer group on one topic; it connects at its first poll."""
        return self._kept(
            KafkaConsumer(
                self._url,
                topic=topic,
                group=group,
                session_ms=self._session_ms,
                drain_ms=self._drain_ms,
            )
        )

    def dead_letters(self) -> KafkaDeadLetters:
        """The dead-letter topic."""
        return self._kept(KafkaDeadLetters(self._url, KafkaProducer(self._url)))

    async def behind(self, topic: Topic, group: str) -> int:
        """Commands of a topic that a consumer group has not committed, without joining it."""
        name = self._url.topic(topic)
        client = AIOKafkaConsumer(name, **self._url.client_options(), enable_auto_commit=False)
        consumer = KafkaConsumer(self._url, topic=topic, group=group)
        try:
            async with running(client):  # Without a group it is given all partitions.
                places = list(client.assignment())
                ends = await client.end_offsets(places)
                starts = await client.beginning_offsets(places)
        except (KafkaError, OSError) as error:
            raise LogUnavailable(f"could not look at `{name}`: {reason_of(error)}") from error
        try:
            committed = await consumer.committed(group)
        finally:
            await consumer.close()
        return sum(
            ends[place] - committed.get((place.topic, place.partition), starts[place])
            for place in places
        )

    async def close(self) -> None:
        """Close everything that was handed out."""
        await asyncio.gather(*(part.close() for part in self._opened))

    def _kept(self, part: Part) -> Part:
        self._opened.append(part)
        return part


class KafkaProducer:
    """`CommandProducer` over one idempotent aiokafka producer."""

    def __init__(self, url: KafkaUrl) -> None:
        self._url = url
        self._client: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._endings: set[asyncio.Task[None]] = set()
        self._refused_a_size: weakref.WeakSet[AIOKafkaProducer] = weakref.WeakSet()

    async def append(
        self, topic: Topic, records: Sequence[tuple[bytes, bytes]]
    ) -> list[Coordinates]:
        """Append in order and wait until every record is acknowledged; raises `LogUnavailable`.

        Raises `RecordTooLarge` when the topic takes all but some that are too large for it.
        Kafka has no all-or-nothing without transactions: after `LogUnavailable` some of the records
        may still arrive. Appending them again is harmless, since commands are ordered by event time
        and repeat without effect.
        """
        return await self.send(self._url.topic(topic), records)

    async def send(self, topic: str, records: Sequence[tuple[bytes, bytes]]) -> list[Coordinates]:
        """The same by the topic's full name."""
        client: AIOKafkaProducer | None = None
        sent: list[asyncio.Future[Any]] = []
        try:
            async with asyncio.timeout(APPEND_LIMIT_MS / 1000):
                client = await self._started()
                for key, value in records:
                    sent.append(await client.send(topic, value=value, key=key))
                stored = await asyncio.gather(*sent)
        except (KafkaError, OSError, TimeoutError) as error:
            if client is not None and isinstance(error, MessageSizeTooLargeError):
                self._refused_a_size.add(client)
            self._discard(client)
            if client is not None and client in self._refused_a_size:
                return await self._again(topic, records, sent)
            raise self._unacknowledged(topic, len(records), error) from error
        finally:
            _forget(sent)
        return [_place(topic, place) for place in stored]

    async def _again(
        self,
        topic: str,
        records: Sequence[tuple[bytes, bytes]],
        sent: Sequence[asyncio.Future[Any]],
    ) -> list[Coordinates]:
        """Send what was not acknowledged again, at last each record in a batch of its own.

        A record that is refused for its size takes those of its batch with it, and leaves a gap in
        the sequence of an idempotent producer, so that its partition takes nothing from it any
        more: whoever else was sending through it comes here too. No sequence, no gap: a record may
        come twice, which changes nothing.
        """
        places: list[Coordinates | None] = [None] * len(records)
        for index, future in enumerate(sent):
            if future.done() and not future.cancelled() and future.exception() is None:
                places[index] = _place(topic, future.result())
        try:
            for batch_bytes in (BATCH_BYTES, 1):
                await self._fill(places, topic, records, batch_bytes)
        except (KafkaError, OSError, TimeoutError) as error:
            raise self._unacknowledged(topic, len(records), error) from error
        appended = [place for place in places if place is not None]
        if len(appended) == len(places):
            return appended
        largest_bytes = max(
            len(value) for (_, value), place in zip(records, places, strict=True) if place is None
        )
        raise RecordTooLarge(
            f"topic `{topic}` refuses {len(places) - len(appended)} of {len(places)} records for "
            f"their size, the largest of {largest_bytes} bytes; make them smaller, or raise its "
            "`max.message.bytes` to what `headrace doctor` says",
            places,
        )

    async def _fill(
        self,
        places: list[Coordinates | None],
        topic: str,
        records: Sequence[tuple[bytes, bytes]],
        batch_bytes: int,
    ) -> None:
        """Send the records that have no place yet; those refused for their size stay without."""
        left = [index for index, place in enumerate(places) if place is None]
        if not left:
            return
        limit_ms = APPEND_LIMIT_MS + RECORD_LIMIT_MS * len(left)
        sent: dict[int, asyncio.Future[Any]] = {}
        try:
            async with (
                running(self._client_for(idempotent=False, batch_bytes=batch_bytes)) as client,
                asyncio.timeout(limit_ms / 1000),
            ):
                for index in left:
                    key, value = records[index]
                    with contextlib.suppress(MessageSizeTooLargeError):
                        sent[index] = await client.send(topic, value=value, key=key)
                for index, future in sent.items():
                    with contextlib.suppress(MessageSizeTooLargeError):
                        places[index] = _place(topic, await future)
        finally:
            _forget(sent.values())

    def _unacknowledged(self, topic: str, records: int, error: BaseException) -> LogUnavailable:
        return LogUnavailable(
            f"Kafka at `{self._url.servers}` did not acknowledge {records} records on "
            f"`{topic}`: {reason_of(error)}; nothing that was acknowledged is lost, send again"
        )

    async def reach(self) -> None:
        """Ask a broker for the cluster as it is now."""
        try:
            async with asyncio.timeout(LOOK_LIMIT_MS / 1000):
                client = await self._started()
                answered = await client.client.force_metadata_update()
        except (KafkaError, OSError) as error:
            raise self._silent(reason_of(error)) from error
        if not answered:
            raise self._silent("no broker tells where the topics are")

    def _silent(self, reason: str) -> LogUnavailable:
        return LogUnavailable(f"Kafka at `{self._url.servers}` does not answer: {reason}")

    async def close(self) -> None:
        """Flush and close, within a limit: an idempotent producer would wait for ever."""
        self._discard(self._client)
        await asyncio.gather(*self._endings)

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._client is None:
                client = self._client_for(idempotent=True, batch_bytes=BATCH_BYTES)
                await started(client)
                self._client = client
            return self._client

    def _client_for(self, *, idempotent: bool, batch_bytes: int) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            **self._url.client_options(),
            acks="all",
            enable_idempotence=idempotent,
            compression_type=self._url.compression,
            linger_ms=LINGER_MS if batch_bytes > 1 else 0,
            max_batch_size=batch_bytes,
            max_request_size=DEAD_LETTER_TOPIC_BYTES_MAX,
            request_timeout_ms=REQUEST_LIMIT_MS,
        )

    def _discard(self, client: AIOKafkaProducer | None) -> None:
        """Let a client end in the background: whoever waits for an append has waited enough.

        A later append may have brought a new client, which stays.
        """
        if client is None:
            return
        if self._client is client:
            self._client = None
        ending = asyncio.create_task(stopped(client))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)


def _forget(sent: Iterable[asyncio.Future[Any]]) -> None:
    """Nobody looks any more at what became of these."""
    for future in sent:
        if not future.cancel() and not future.cancelled():
            future.exception()  # Seen: asyncio would log it as never retrieved.


def _place(topic: str, stored: Any) -> Coordinates:
    """Of what aiokafka tells of a record that was acknowledged."""
    return Coordinates(topic, stored.partition, stored.offset)


class KafkaConsumer:
    """`CommandConsumer`: a group member that never gives up a partition with a batch in hand."""

    def __init__(
        self,
        url: KafkaUrl,
        *,
        topic: Topic,
        group: str,
        session_ms: int = SESSION_LIMIT_MS,
        drain_ms: int = DRAIN_LIMIT_MS,
    ) -> None:
        self._url = url
        self._session_ms = session_ms
        self._topic = url.topic(topic)
        self._group = url.group(group)
        self._client: AIOKafkaConsumer | None = None
        self._admin: AIOKafkaAdminClient | None = None
        self._starting = asyncio.Lock()
        self._drain_ms = drain_ms
        self._in_hand = InHand()
        self._turn = 0
        self._heard_s = time.monotonic()

    async def poll(
        self, *, rows_max: int, wait_ms: int, bytes_max: int = BATCH_BYTES_MAX
    ) -> list[LogRecord]:
        """Records after the position. They are in hand until committed; while a rebalance waits
        for what is in hand, nothing more comes."""
        if self._in_hand.draining:
            await self._in_hand.drained(wait_ms)
            return []
        try:
            client = await self._started()
            fetched = await self._fetch(client, rows_max, wait_ms)
            if fetched:
                self._heard_s = time.monotonic()
            elif time.monotonic() - self._heard_s > QUIET_LIMIT_S:
                await self._look(client)
        except (KafkaError, OSError) as error:
            raise self._unavailable("poll", error) from error
        records = self._within(client, fetched, bytes_max)
        self._in_hand.hand_out(records)
        return records

    async def heartbeat(self) -> None:
        """aiokafka keeps the membership alive by itself; this only makes sure that it has begun."""
        try:
            await self._started()
        except (KafkaError, OSError) as error:
            raise self._unavailable("join the group", error) from error
        await asyncio.sleep(HEARTBEAT_WAIT_S)

    def assignment(self) -> frozenset[PartitionId]:
        """Partitions that the group coordinator gave to this member."""
        if self._client is None:
            return frozenset()
        return frozenset((place.topic, place.partition) for place in self._client.assignment())

    async def commit(self, offsets: Mapping[PartitionId, int]) -> None:
        """Commit next offsets; raises `CommitRefused` when a rebalance took the partitions away."""
        held = self.assignment()
        ours = {place: at for place, at in offsets.items() if place in held}
        try:
            await self._commit_forward(await self._started(), ours)
        except (CommitFailedError, IllegalStateError) as error:
            self._in_hand.give_up(offsets)
            raise self._refused() from error
        except (KafkaError, OSError) as error:
            raise self._unavailable("commit", error) from error
        self._in_hand.commit(ours)
        if len(ours) < len(offsets):
            self._in_hand.give_up(offsets.keys() - held)
            raise self._refused()

    async def committed(self, group: str) -> dict[PartitionId, int]:
        """Committed next offsets of any group of this prefix, by (topic, partition)."""
        try:
            admin = await self._administration()
            offsets: dict[TopicPartition, Any] = await admin.list_consumer_group_offsets(
                self._url.group(group)
            )
        except GroupCoordinatorNotAvailableError:
            return {}  # Nothing is known to be committed: whoever follows the group waits.
        except (KafkaError, OSError) as error:
            raise self._unavailable("read committed offsets", error) from error
        return {
            (place.topic, place.partition): committed.offset
            for place, committed in offsets.items()
            if place.topic == self._topic and committed.offset >= 0
        }

    async def lag(self) -> dict[PartitionId, int]:
        """Records between the committed offset and the end, for the partitions of this member."""
        try:
            client = await self._started()
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
        self._in_hand.keep(())
        client, self._client = self._client, None
        admin, self._admin = self._admin, None
        if client is not None:
            await stopped(client)
        if admin is not None:
            await stopped(admin)

    async def _started(self) -> AIOKafkaConsumer:
        async with self._starting:
            if self._client is None:
                client = self._member()
                await started(client)
                self._client = client
            return self._client

    def _member(self) -> AIOKafkaConsumer:
        client = AIOKafkaConsumer(
            **self._url.client_options(),
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_bytes=FETCH_BYTES_MAX,
            max_partition_fetch_bytes=RECORD_BYTES_MAX,
            request_timeout_ms=REQUEST_LIMIT_MS,
            session_timeout_ms=self._session_ms,
            heartbeat_interval_ms=min(HEARTBEAT_MS, self._session_ms // 4),
            rebalance_timeout_ms=REBALANCE_LIMIT_MS,
        )
        client.subscribe([self._topic], listener=_Drain(self._in_hand, self._drain_ms))
        return client

    async def _administration(self) -> AIOKafkaAdminClient:
        async with self._starting:
            if self._admin is None:
                admin = AIOKafkaAdminClient(
                    **self._url.client_options(), request_timeout_ms=REQUEST_LIMIT_MS
                )
                await started(admin)
                self._admin = admin
            return self._admin

    async def _fetch(
        self, client: AIOKafkaConsumer, rows_max: int, wait_ms: int
    ) -> list[ConsumerRecord[bytes, bytes]]:
        """Up to `rows_max` records, a fair share from each partition first.

        aiokafka empties one partition's buffer before it looks at the next, so a busy partition
        would keep the others waiting.
        """
        records: list[ConsumerRecord[bytes, bytes]] = []
        places = sorted(client.assignment())
        self._turn += 1
        for position in range(len(places)):
            place = places[(position + self._turn) % len(places)]
            share = max(1, (rows_max - len(records)) // (len(places) - position))
            if len(records) < rows_max:
                batch = await client.getmany(place, timeout_ms=0, max_records=share)
                records += batch.get(place, [])
        if not records:
            waited = await client.getmany(timeout_ms=wait_ms, max_records=rows_max)
            records = [record for batch in waited.values() for record in batch]
        return records

    async def _look(self, client: AIOKafkaConsumer) -> None:
        """Find out why nothing comes: aiokafka goes on by itself and never says that it cannot."""
        places = list(client.assignment())
        async with asyncio.timeout(LOOK_LIMIT_MS / 1000):
            await (client.end_offsets(places) if places else client.topics())
        self._heard_s = time.monotonic()

    def _within(
        self, client: AIOKafkaConsumer, fetched: list[ConsumerRecord[bytes, bytes]], bytes_max: int
    ) -> list[LogRecord]:
        """The first records up to `bytes_max`, one at least; the rest are fetched again later."""
        taken: list[LogRecord] = []
        left_bytes = bytes_max
        returned: set[TopicPartition] = set()
        for record in fetched:
            value = record.value or b""
            place = TopicPartition(record.topic, record.partition)
            left_bytes -= len(value)
            if (left_bytes < 0 and taken) or place in returned:
                if place not in returned and place in client.assignment():
                    client.seek(place, record.offset)
                returned.add(place)
                continue
            at = Coordinates(record.topic, record.partition, record.offset)
            taken.append(LogRecord(at, record.key or b"", value, record.timestamp))
        return taken

    async def _commit_forward(
        self, client: AIOKafkaConsumer, offsets: Mapping[PartitionId, int]
    ) -> None:
        """Commit only what lies ahead of what was committed before."""
        ahead = {}
        for (topic, partition), at in offsets.items():
            place = TopicPartition(topic, partition)
            committed = await client.committed(place)
            if committed is None or at > committed:
                ahead[place] = at
        if ahead:
            await client.commit(ahead)

    def _refused(self) -> CommitRefused:
        return CommitRefused(
            f"partitions of `{self._topic}` went to another member before this one committed; "
            "its commands are handled again there, which changes nothing"
        )

    def _unavailable(self, act: str, error: Exception) -> LogUnavailable:
        return LogUnavailable(
            f"could not {act} on `{self._topic}` at `{self._url.servers}`: {reason_of(error)}"
        )


class _Drain(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types for it
    """Holds a rebalance until what is in hand is committed, or the limit passes."""

    def __init__(self, in_hand: InHand, limit_ms: int) -> None:
        self._in_hand = in_hand
        self._limit_ms = limit_ms

    async def on_partitions_revoked(  # pyright: ignore[reportIncompatibleMethodOverride]  # awaited
        self, revoked: object
    ) -> None:
        # Late writes after the limit are harmless: cells are ordered by event time, not arrival.
        await self._in_hand.drain(self._limit_ms)

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Positions start at the committed offsets; of what went elsewhere nothing is in hand."""
        self._in_hand.keep({(place.topic, place.partition) for place in assigned})

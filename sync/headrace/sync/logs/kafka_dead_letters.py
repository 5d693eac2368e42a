"""The dead-letter topic on Kafka: JSON letters with base64 bytes, and the mark of their replay.

The mark is the committed offset of a consumer group of its own, so any Kafka tool can show it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord

from headrace.sync.errors import LogUnavailable, RecordTooLarge
from headrace.sync.logs.kafka_clients import REQUEST_LIMIT_MS, reason_of, running
from headrace.sync.logs.kafka_sizes import (
    LETTER_CUTS_BYTES,
    LETTER_KEY_BYTES_MAX,
    LETTER_MESSAGE_CHARACTERS_MAX,
)
from headrace.sync.logs.kafka_url import KafkaUrl
from headrace.sync.logs.partitions import REPLAY_GROUP
from headrace.sync.ports import UNREADABLE_LETTER, Coordinates, DeadLetter, PartitionId

QUIET_LIMIT_MS = 10_000
"""How long letters that must be there may stay away."""


class Sender(Protocol):
    """Appends to a topic by its full name."""

    async def send(
        self, topic: str, records: Sequence[tuple[bytes, bytes]]
    ) -> list[Coordinates]: ...

    async def close(self) -> None: ...


class KafkaDeadLetters:
    """`DeadLetters` on one topic."""

    def __init__(self, url: KafkaUrl, sender: Sender) -> None:
        self._url = url
        self._sender = sender

    async def append(self, letters: Sequence[DeadLetter]) -> None:
        """Durable when it returns; a letter that is too large for the topic is cut until it fits.

        Only a topic whose limit is below a letter without any bytes (about 2 KiB) is refused: as
        retriable, since its letters would be lost.
        """
        refused = await self._send(letters)
        whole = [letters[index] for index in refused]
        for bytes_max in LETTER_CUTS_BYTES:
            refused = await self._send([_cut(letter, bytes_max) for letter in whole])
            whole = [whole[index] for index in refused]
        if whole:
            raise LogUnavailable(
                f"topic `{self._url.dead_letter_topic}` does not even take a dead letter without "
                "the bytes of its command; raise its `max.message.bytes`"
            )

    async def _send(self, letters: Sequence[DeadLetter]) -> list[int]:
        """Append; the positions of those that are too large for the topic."""
        if not letters:
            return []
        records = [(letter.key, msgspec.json.encode(letter)) for letter in letters]
        try:
            await self._sender.send(self._url.dead_letter_topic, records)
        except RecordTooLarge as error:
            return [index for index, place in enumerate(error.places) if place is None]
        return []

    async def read(self) -> AsyncIterator[tuple[Coordinates, DeadLetter]]:
        """All letters that lie on the topic now, oldest first within a partition."""
        client = self._client(self._url.dead_letter_topic)
        try:
            async with running(client):  # Without a group it is given all partitions.
                places = sorted(client.assignment())
                ends = await client.end_offsets(places)
                for place in places:
                    while records := await self._next(client, place, ends[place]):
                        for record in records:
                            at = Coordinates(place.topic, place.partition, record.offset)
                            yield at, _letter(at, record)
        except (KafkaError, OSError) as error:
            raise self._unavailable("read dead letters", error) from error

    async def _next(
        self, client: AIOKafkaConsumer, place: TopicPartition, end: int
    ) -> list[ConsumerRecord[bytes, bytes]]:
        """Some records, none at the end; aiokafka itself would wait for ever for a gone broker."""
        try:
            async with asyncio.timeout(QUIET_LIMIT_MS / 1000):
                while await client.position(place) < end:
                    fetched = await client.getmany(place, timeout_ms=QUIET_LIMIT_MS)
                    if place in fetched:
                        return list(fetched[place])
        except TimeoutError as error:
            raise LogUnavailable(
                f"nothing more came from `{place.topic}` at `{self._url.servers}` for "
                f"{QUIET_LIMIT_MS} ms, before offset {end}, where it ended; read it again"
            ) from error
        return []

    async def replayed(self) -> dict[PartitionId, int]:
        """Next offsets to replay."""
        client = self._client(group_id=self._url.group(REPLAY_GROUP))
        marks = {}
        try:
            async with running(client):
                client.assign(await self._places())
                for place in sorted(client.assignment()):
                    committed = await client.committed(place)
                    if committed is not None:
                        marks[place.topic, place.partition] = committed
        except (KafkaError, OSError) as error:
            raise self._unavailable("read the replay mark", error) from error
        return marks

    async def mark_replayed(self, offsets: Mapping[PartitionId, int]) -> None:
        """Remember that everything before these offsets was replayed; never moves back."""
        before = await self.replayed()
        ahead = {
            TopicPartition(*place): at for place, at in offsets.items() if at > before.get(place, 0)
        }
        if not ahead:
            return
        client = self._client(group_id=self._url.group(REPLAY_GROUP))
        try:
            async with running(client):
                client.assign(list(ahead))  # By hand: a mark needs no membership and no rebalance.
                await client.commit(ahead)
        except (KafkaError, OSError) as error:
            raise self._unavailable("keep the replay mark", error) from error

    async def close(self) -> None:
        """Close the producer behind it."""
        await self._sender.close()

    def _client(self, *topics: str, **options: Any) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            *topics,
            **self._url.client_options(),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            request_timeout_ms=REQUEST_LIMIT_MS,
            **options,
        )

    async def _places(self) -> list[TopicPartition]:
        """Partitions of the topic: a client without a group is given them all."""
        async with running(self._client(self._url.dead_letter_topic)) as client:
            return sorted(client.assignment())

    def _unavailable(self, act: str, error: Exception) -> LogUnavailable:
        return LogUnavailable(f"could not {act} at `{self._url.servers}`: {reason_of(error)}")


def _letter(at: Coordinates, record: ConsumerRecord[bytes, bytes]) -> DeadLetter:
    value = record.value or b""
    try:
        return msgspec.json.decode(value, type=DeadLetter)
    except msgspec.DecodeError as error:
        message = f"this record is no dead letter: {error}"
        key = record.key or b""
        return DeadLetter(at, UNREADABLE_LETTER, message, key, value, record.timestamp)


def _cut(letter: DeadLetter, bytes_max: int) -> DeadLetter:
    """The same with the first bytes of the command alone, and that said."""
    return msgspec.structs.replace(
        letter,
        key=letter.key[:LETTER_KEY_BYTES_MAX],
        value=letter.value[:bytes_max],
        message=(
            f"{letter.message[:LETTER_MESSAGE_CHARACTERS_MAX]} (the letters do not take "
            f"its {len(letter.value)} bytes: at most the first {bytes_max} are kept)"
        ),
        command_bytes=len(letter.value),
    )

"""Commands that could not be applied: list them, and replay them once their cause is mended.

Replay appends the original bytes to the topic they came from and only then moves the replay mark.
A crash between the two repeats some commands, which changes nothing; a command that still cannot be
applied comes back as a new dead letter.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import get_args

import msgspec

from headrace.sync.errors import UnknownSource
from headrace.sync.ports import (
    UNREADABLE_LETTER,
    CommandProducer,
    Coordinates,
    DeadLetter,
    DeadLetters,
    PartitionId,
    Topic,
)

REPLAY_ROWS = 500
"""Letters between two moves of the replay mark."""


class ListedLetter(msgspec.Struct, frozen=True):
    """A dead letter, its own place on the dead-letter topic, and whether it was replayed."""

    place: Coordinates
    letter: DeadLetter
    replayed: bool


async def list_letters(dead_letters: DeadLetters) -> AsyncIterator[ListedLetter]:
    """All dead letters, oldest first; one that a crash appended twice comes once."""
    marks = await dead_letters.replayed()
    seen: set[Coordinates] = set()
    async for place, letter in dead_letters.read():
        if letter.source not in seen:
            seen.add(letter.source)
            mark = marks.get((place.topic, place.partition), 0)
            yield ListedLetter(place, letter, replayed=place.offset < mark)


async def replay(
    dead_letters: DeadLetters,
    producer: CommandProducer,
    *,
    on_left_out: Callable[[ListedLetter], None] = lambda listed: None,
) -> int:
    """Append every letter after the replay mark to its own topic again; how many there were.

    A letter that does not hold its whole command, or is none, is told to `on_left_out`.
    Letters that die meanwhile wait for the next replay. Raises `LogUnavailable`; called again
    it goes on where it stopped.
    """
    batch: list[ListedLetter] = []
    replayed = 0
    async for listed in list_letters(dead_letters):
        if listed.replayed:
            continue
        if not _is_whole(listed.letter):
            on_left_out(listed)
        batch.append(listed)
        if len(batch) == REPLAY_ROWS:
            replayed += await _replay_batch(dead_letters, producer, batch)
            batch = []
    return replayed + await _replay_batch(dead_letters, producer, batch)


async def _replay_batch(
    dead_letters: DeadLetters,
    producer: CommandProducer,
    batch: list[ListedLetter],
) -> int:
    by_topic: dict[Topic, list[tuple[bytes, bytes]]] = {}
    marks: dict[PartitionId, int] = {}
    for listed in batch:
        marks[listed.place.topic, listed.place.partition] = listed.place.offset + 1
        letter = listed.letter
        if _is_whole(letter):
            topic = command_topic(letter.source)
            by_topic.setdefault(topic, []).append((letter.key, letter.value))
    for topic, records in by_topic.items():
        await producer.append(topic, records)
    if marks:
        await dead_letters.mark_replayed(marks)
    return sum(len(records) for records in by_topic.values())


def _is_whole(letter: DeadLetter) -> bool:
    return letter.command_bytes is None and letter.code != UNREADABLE_LETTER


def command_topic(source: Coordinates) -> Topic:
    """The topic of ours that a log's own topic name ends in, such as `headrace.realtime`."""
    topics: tuple[Topic, ...] = get_args(Topic)
    for topic in topics:
        if source.topic.endswith(topic):
            return topic
    raise UnknownSource(
        f"a dead letter came from topic `{source.topic}`, expected one of "
        f"{', '.join(f'`{topic}`' for topic in topics)}; it cannot be replayed"
    )

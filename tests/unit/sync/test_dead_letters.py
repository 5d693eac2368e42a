"""Listing and replaying dead letters: each once to see, harmless to repeat."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from headrace.sync.dead_letters import REPLAY_ROWS, ListedLetter, list_letters, replay
from headrace.sync.errors import LogUnavailable, UnknownSource
from headrace.sync.logs.memory import MemoryCommandLog, MemoryProducer
from headrace.sync.ports import UNREADABLE_LETTER, Coordinates, DeadLetter, Topic


def _letter(number: int, *, topic: str = "realtime") -> DeadLetter:
    source = Coordinates(topic, 0, number)
    return DeadLetter(source, "UNKNOWN_GROUP", "no such group", b"k%d" % number, b"v%d" % number, 5)


async def _values(log: MemoryCommandLog, topic: Topic) -> list[bytes]:
    records = await log.consumer(topic, "check").poll(rows_max=100_000, wait_ms=0)
    return sorted(record.value for record in records)


class FailingProducer(MemoryProducer):
    """Appends a number of times, then finds the log gone."""

    def __init__(self, log: MemoryCommandLog, appends: int) -> None:
        super().__init__(log)
        self._appends_left = appends

    async def append(
        self, topic: Topic, records: Sequence[tuple[bytes, bytes]]
    ) -> list[Coordinates]:
        if self._appends_left == 0:
            raise LogUnavailable("gone")
        self._appends_left -= 1
        return await super().append(topic, records)


async def test_a_letter_appended_twice_by_a_crash_is_listed_once() -> None:
    log = MemoryCommandLog()
    await log.dead_letters().append([_letter(1), _letter(2)])
    await log.dead_letters().append([_letter(1)])
    listed = [entry.letter async for entry in list_letters(log.dead_letters())]
    assert listed == [_letter(1), _letter(2)]


async def test_replay_appends_the_original_bytes_to_the_topic_they_came_from() -> None:
    log = MemoryCommandLog()
    await log.dead_letters().append([_letter(1), _letter(2, topic="bulk")])
    assert await replay(log.dead_letters(), log.producer()) == 2
    assert await _values(log, "realtime") == [b"v1"]
    assert await _values(log, "bulk") == [b"v2"]


async def test_replaying_again_appends_nothing() -> None:
    log = MemoryCommandLog()
    await log.dead_letters().append([_letter(number) for number in range(10)])
    await replay(log.dead_letters(), log.producer())
    assert await replay(log.dead_letters(), log.producer()) == 0
    assert len(await _values(log, "realtime")) == 10


async def test_replayed_letters_are_listed_as_replayed_and_later_ones_are_not() -> None:
    log = MemoryCommandLog()
    await log.dead_letters().append([_letter(1)])
    await replay(log.dead_letters(), log.producer())
    await log.dead_letters().append([_letter(2)])
    states = [entry.replayed async for entry in list_letters(log.dead_letters())]
    assert states == [True, False]


async def test_a_replay_that_was_cut_goes_on_where_it_stopped() -> None:
    log = MemoryCommandLog()
    count = 2 * REPLAY_ROWS + 7
    await log.dead_letters().append([_letter(number) for number in range(count)])
    with pytest.raises(LogUnavailable):
        await replay(log.dead_letters(), FailingProducer(log, appends=1))
    assert await replay(log.dead_letters(), log.producer()) == count - REPLAY_ROWS
    assert await _values(log, "realtime") == sorted(b"v%d" % number for number in range(count))


async def test_a_prefixed_topic_name_leads_back_to_its_topic() -> None:
    log = MemoryCommandLog()
    await log.dead_letters().append([_letter(1, topic="headrace.commands.bulk")])
    await replay(log.dead_letters(), log.producer())
    assert await _values(log, "bulk") == [b"v1"]


async def test_a_letter_of_a_foreign_topic_stops_the_replay_with_a_sentence() -> None:
    log = MemoryCommandLog()
    await log.dead_letters().append([_letter(1, topic="theirs")])
    with pytest.raises(UnknownSource, match="`theirs`"):
        await replay(log.dead_letters(), log.producer())


@pytest.mark.parametrize("change", [{"command_bytes": 9_000_000}, {"code": UNREADABLE_LETTER}])
async def test_a_letter_without_its_whole_command_is_told_and_never_replayed(
    change: dict[str, object],
) -> None:
    log = MemoryCommandLog()
    cut = msgspec.structs.replace(_letter(1), **change)
    await log.dead_letters().append([_letter(0), cut, _letter(2)])
    told: list[ListedLetter] = []
    assert await replay(log.dead_letters(), log.producer(), on_left_out=told.append) == 2
    assert await _values(log, "realtime") == [b"v0", b"v2"]
    assert await replay(log.dead_letters(), log.producer(), on_left_out=told.append) == 0
    assert [listed.letter for listed in told] == [cut]

"""The gateway's view of its command log: when it refuses at once, and what it says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from headrace.cli import log_appender
from headrace.cli.log_appender import LogAppender
from headrace.gateway.errors import LogUnavailable
from headrace.sync import errors
from headrace.sync.logs.memory import MemoryCommandLog, MemoryProducer
from headrace.sync.ports import Coordinates, Topic

RECORDS = [(b"key", b"value")]


class Silent(MemoryProducer):
    """A log that can fall silent: looks fail, appends hang."""

    def __init__(self) -> None:
        super().__init__(MemoryCommandLog())
        self.answers = asyncio.Event()
        self.answers.set()
        self.looked = asyncio.Condition()
        self.tries = 0

    async def append(
        self, topic: Topic, records: Sequence[tuple[bytes, bytes]]
    ) -> list[Coordinates]:
        self.tries += 1
        await self.answers.wait()
        return await super().append(topic, records)

    async def reach(self) -> None:
        async with self.looked:
            self.looked.notify_all()
        if not self.answers.is_set():
            raise errors.LogUnavailable("no answer")


@pytest.fixture
def log() -> Silent:
    return Silent()


@pytest.fixture
async def appender(log: Silent, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LogAppender]:
    for pause in ("LOOK_EVERY_S", "LOOK_AGAIN_S"):
        monkeypatch.setattr(log_appender, pause, 0.001)
    made = LogAppender(log)
    watching = asyncio.create_task(made.watch())
    yield made
    watching.cancel()
    await asyncio.wait({watching})


async def until_it_looked(log: Silent) -> None:
    """Two looks begin, so that one of them began and ended after now."""
    async with asyncio.timeout(10):
        for _ in range(2):
            async with log.looked:
                await log.looked.wait()


async def test_an_append_is_answered_with_its_place(appender: LogAppender) -> None:
    (place,) = await appender.append(RECORDS)
    assert place is not None
    assert (place.topic, place.offset) == ("realtime", 0)


async def test_a_log_that_falls_silent_ends_the_appends_under_way(
    appender: LogAppender, log: Silent
) -> None:
    await until_it_looked(log)
    log.answers.clear()
    with pytest.raises(LogUnavailable, match="cannot be reached: no answer"):
        await appender.append(RECORDS)
    assert appender.problem == "no answer"


async def test_while_the_log_is_silent_appends_are_refused_without_a_try(
    appender: LogAppender, log: Silent
) -> None:
    log.answers.clear()
    await until_it_looked(log)
    with pytest.raises(LogUnavailable):
        await appender.append(RECORDS)
    assert log.tries == 0


async def test_a_log_that_comes_back_takes_appends_again(
    appender: LogAppender, log: Silent
) -> None:
    log.answers.clear()
    await until_it_looked(log)
    log.answers.set()
    await until_it_looked(log)
    assert len(await appender.append(RECORDS)) == 1
    assert appender.problem is None


async def test_a_caller_that_goes_away_cancels_its_append_alone(
    appender: LogAppender, log: Silent
) -> None:
    log.answers.clear()
    gone = asyncio.create_task(appender.append(RECORDS))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    log.answers.set()
    (place,) = await appender.append(RECORDS)
    assert place is not None
    assert place.offset == 0


async def test_a_command_that_the_log_does_not_take_has_no_place() -> None:
    class Small(MemoryProducer):
        async def append(
            self, topic: Topic, records: Sequence[tuple[bytes, bytes]]
        ) -> list[Coordinates]:
            raise errors.RecordTooLarge("too large", [Coordinates("t", 1, 2), None])

    first, second = await LogAppender(Small(MemoryCommandLog())).append(RECORDS * 2)
    assert (first and first.offset, second) == (2, None)

"""How a connection to a cache node shares the loop with the callers it serves."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from headrace.codec import CachedReads
from headrace.gateway.cached.link import (
    CALLERS_AFTER_BYTES,
    PAUSE_MAX_S,
    PAUSE_START_S,
    REPLY_LIMIT_S,
    WATCH_INTERVAL_S,
    CacheLink,
)
from headrace.registry.cache_url import CacheUrl

NOTHING_WRONG = None
LOOKS_UNTIL_OVERDUE = int(REPLY_LIMIT_S / WATCH_INTERVAL_S) + 2


class Replies:
    """Takes what a node says, and finds it broken when told to; one reply is owed all the time."""

    def __init__(self) -> None:
        self.broken: str | None = NOTHING_WRONG

    def take(self, _node: int) -> bytes:
        return b"a question"

    def progress(self, _node: int) -> tuple[int, int]:
        return 0, 1

    def feed(self, _node: int, _received: bytes, *, now_ms: int) -> tuple[list[Any], str | None]:
        del now_ms
        return [], self.broken

    def drop_node(self, _node: int) -> list[Any]:
        return []


class Socket(asyncio.Transport):
    """Knows whether it is read from."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = True
        self.aborted = False

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.aborted
        self.reading = True

    def abort(self) -> None:
        self.aborted = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        del data


class Clockwork(asyncio.SelectorEventLoop):
    """A loop whose timers fire when it is told that their time has come."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1_000.0

    def time(self) -> float:
        return self.now_s

    async def pass_by(self, seconds: float) -> None:
        """Let so much time pass, and whatever falls due meanwhile happen."""
        self.now_s += seconds
        for _ in range(3):
            await asyncio.sleep(0)


@pytest.fixture
def replies() -> Replies:
    return Replies()


@pytest.fixture
def socket() -> Socket:
    return Socket()


def linked(replies: Replies, socket: Socket) -> CacheLink:
    url = CacheUrl.parse("redis://127.0.0.1:6379/0")
    made = CacheLink(
        cast("CachedReads", replies), url, 0, lambda _caller, _outcome: None, lambda: 0
    )
    made.connection_made(socket)
    made.up = True
    return made


@pytest.fixture
async def link(replies: Replies, socket: Socket) -> CacheLink:
    return linked(replies, socket)


async def test_callers_are_heard_between_two_large_chunks_of_replies(
    link: CacheLink, socket: Socket
) -> None:
    link.data_received(bytes(CALLERS_AFTER_BYTES))
    assert not socket.reading
    await asyncio.sleep(0)
    assert socket.reading


async def test_a_small_chunk_of_replies_is_all_there_is_and_nobody_waits_for_the_next(
    link: CacheLink, socket: Socket
) -> None:
    link.data_received(bytes(CALLERS_AFTER_BYTES - 1))
    assert socket.reading


async def test_a_node_that_was_left_meanwhile_is_not_read_from_again(
    link: CacheLink, socket: Socket, replies: Replies
) -> None:
    link.data_received(bytes(CALLERS_AFTER_BYTES))
    replies.broken = "no reply of the protocol"
    link.data_received(b"?")
    await asyncio.sleep(0)
    assert socket.aborted
    assert not socket.reading


async def _asked(link: CacheLink, loop: Clockwork) -> None:
    link.flush_soon()
    await loop.pass_by(0)


def test_a_node_that_owes_a_reply_for_too_long_is_left(replies: Replies, socket: Socket) -> None:
    async def wait(loop: Clockwork) -> list[bool]:
        link = linked(replies, socket)
        await _asked(link, loop)
        for _ in range(LOOKS_UNTIL_OVERDUE):
            await loop.pass_by(WATCH_INTERVAL_S)
        return [link.up]

    assert _run(wait) == [False]


def test_a_node_that_says_more_than_we_can_take_in_is_not_left(
    replies: Replies, socket: Socket
) -> None:
    async def wait(loop: Clockwork) -> list[bool]:
        link = linked(replies, socket)
        await _asked(link, loop)
        for _ in range(LOOKS_UNTIL_OVERDUE * 3):
            link.data_received(bytes(CALLERS_AFTER_BYTES))
            await loop.pass_by(WATCH_INTERVAL_S)
        while_it_spoke = link.up
        for _ in range(LOOKS_UNTIL_OVERDUE):
            await loop.pass_by(WATCH_INTERVAL_S)
        return [while_it_spoke, link.up]

    assert _run(wait) == [True, False]


def _run(wait: Callable[[Clockwork], Coroutine[None, None, list[bool]]]) -> list[bool]:
    loop = Clockwork()
    try:
        return loop.run_until_complete(wait(loop))
    finally:
        loop.close()


class Refusing(Clockwork):
    """A loop on which no node can be connected, that tells when each was tried."""

    def __init__(self) -> None:
        super().__init__()
        self.tried_s: list[float] = []

    async def create_connection(self, *_: Any, **__: Any) -> Any:
        self.tried_s.append(self.now_s)
        raise ConnectionRefusedError("refused")


async def _try_for(seconds: float, nodes: int) -> list[list[float]]:
    """When each of so many links, which begin at once, tries to connect."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Refusing)
    pauses: list[list[float]] = []
    for _ in range(nodes):
        loop.now_s, loop.tried_s = 1_000.0, []
        link = CacheLink(
            cast("CachedReads", Replies()),
            CacheUrl.parse("redis://127.0.0.1:6379/0"),
            0,
            lambda _caller, _outcome: None,
            lambda: 0,
        )
        running = asyncio.create_task(link.run())
        while loop.now_s < 1_000.0 + seconds:
            await loop.pass_by(0.002)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        pauses.append([later - sooner for sooner, later in itertools.pairwise(loop.tried_s)])
    return pauses


def test_a_node_that_is_down_is_tried_after_pauses_that_grow_to_a_second_and_are_spread() -> None:
    with asyncio.Runner(loop_factory=Refusing) as runner:
        pauses = runner.run(_try_for(8.0, nodes=12))
    slack_s = 0.01
    for of_one in pauses:
        for number, pause_s in enumerate(of_one):
            longest_s = min(PAUSE_MAX_S, PAUSE_START_S * 2**number)
            assert longest_s / 2 - slack_s <= pause_s <= longest_s + slack_s
        assert len(of_one) > 8
    late = [pause_s for of_one in pauses for pause_s in of_one[6:]]
    assert max(late) - min(late) > PAUSE_MAX_S / 4

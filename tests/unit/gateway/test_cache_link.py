"""How a connection to a cache node shares the loop with the callers it serves."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from headrace.codec import CachedReads
from headrace.gateway.cached.link import CALLERS_AFTER_BYTES, CacheLink
from headrace.registry.cache_url import CacheUrl

NOTHING_WRONG = None


class Replies:
    """Takes what a node says, and finds it broken when told to."""

    def __init__(self) -> None:
        self.broken: str | None = NOTHING_WRONG

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


@pytest.fixture
def replies() -> Replies:
    return Replies()


@pytest.fixture
def socket() -> Socket:
    return Socket()


@pytest.fixture
async def link(replies: Replies, socket: Socket) -> CacheLink:
    url = CacheUrl.parse("redis://127.0.0.1:6379/0")
    made = CacheLink(
        cast("CachedReads", replies), url, 0, lambda _caller, _outcome: None, lambda: 0
    )
    made.connection_made(socket)
    made.up = True
    return made


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

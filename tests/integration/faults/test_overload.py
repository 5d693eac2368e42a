"""More reads than can be answered: some are refused at once, all others are answered in full (R6).

How fast and how many is measured by `make bench-faults`; here it is held that nothing is lost, that
a refusal says when to come back, and that afterwards all is as before.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from store_reads import USERS, Gateway, command, open_gateway, open_store, until

from headrace.gateway.cached.reads import STORE_KEYS_LEAST
from headrace.loadtest.servers import Server
from headrace.registry.cache_url import CacheUrl

WRITTEN = 200
KEYS = 100
WAVES_MAX = 20


@dataclass
class Tally:
    """What became of the requests of some waves."""

    codes: Counter[str] = field(default_factory=Counter)
    """OK, or the code of a problem."""
    retry_after: set[str] = field(default_factory=set)

    def take(self, answer: bytes, users: list[int]) -> None:
        """Count one whole response; a row must be right or said to be unavailable."""
        head, _, text = answer.partition(b"\r\n\r\n")
        body: dict[str, Any] = msgspec.json.decode(text)
        if head.startswith(b"HTTP/1.1 503 "):
            self.codes[body["code"]] += 1
            fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
            self.retry_after.add(fields[b"retry-after"].decode())
            assert fields[b"content-type"] == b"application/problem+json"
            assert int(fields[b"content-length"]) == len(text)
            return
        (result,) = body["results"]
        unavailable = {each["row"] for each in result["statuses"]}
        assert {each["status"] for each in result["statuses"]} <= {"UNAVAILABLE"}
        for row, (found, user) in enumerate(zip(result["rows"], users, strict=True)):
            assert found == ([None, None] if row in unavailable else [user, "x"])
        self.codes["PARTIAL" if unavailable else "OK"] += 1


@asynccontextmanager
async def opened(cassandra: Server, cache: CacheUrl | None) -> AsyncGenerator[Gateway]:
    async with open_store(cassandra) as store:
        await store.write(*(command(user, level=user, name="x") for user in range(WRITTEN)))
        async with open_gateway(store, cache) as gateway:
            yield gateway


@pytest.fixture
async def cached(cassandra_server: Server, valkey_server: Server) -> AsyncGenerator[Gateway]:
    """A gateway whose cache holds every row."""
    epoch = uuid.uuid4().int % 2**31
    url = CacheUrl.parse(f"redis://{valkey_server.host}:{valkey_server.port}/0?epoch={epoch}")
    async with opened(cassandra_server, url) as gateway:
        async with asyncio.timeout(10):
            while True:
                before = gateway.reads.counters()["store_reads"]
                await gateway.rows(*range(WRITTEN))
                await until(lambda: gateway.reads.counters()["keys_under_way"] == 0)
                if gateway.reads.counters()["store_reads"] == before:
                    break
        yield gateway


@pytest.fixture
async def uncached(cassandra_server: Server) -> AsyncGenerator[Gateway]:
    async with opened(cassandra_server, None) as gateway:
        yield gateway


async def wave(gateway: Gateway, requests: int, tally: Tally, **options: Any) -> None:
    """So many requests at once; each is answered exactly once."""

    async def one(number: int) -> None:
        users = [(number + at) % WRITTEN for at in range(KEYS)]
        read = {"feature_group": USERS, "keys": {"user_id": users}}
        tally.take(await gateway.answer({"reads": [read], **options}), users)

    await asyncio.gather(*map(one, range(requests)))


async def test_cached_reads_beyond_what_can_be_answered_soon_are_refused(cached: Gateway) -> None:
    tally = Tally()
    for _ in range(WAVES_MAX):
        await wave(cached, 2_000, tally)
        if tally.codes["OVERLOADED"]:
            break
    assert tally.codes["OVERLOADED"] == cached.reads.counters()["reads_refused"] > 0
    assert tally.codes["OK"] > 0
    assert tally.retry_after == {"1"}
    assert await cached.rows(1, 2) == [[1, "x"], [2, "x"]]


async def test_misses_beyond_what_the_store_answers_soon_are_refused(uncached: Gateway) -> None:
    tally = Tally()
    for _ in range(WAVES_MAX):
        await wave(uncached, 400, tally, deadline_ms=400)
        if uncached.reads.counters()["misses_refused"]:
            break
    assert uncached.reads.counters()["misses_refused"] > 0
    assert tally.codes["UNAVAILABLE"] > 0
    assert tally.codes["OK"] > 0
    assert tally.retry_after == {"1"}
    assert await uncached.rows(1, 2) == [[1, "x"], [2, "x"]]


async def test_a_few_keys_are_asked_for_however_slow_the_store_was(
    uncached: Gateway, cassandra_server: Server
) -> None:
    """A store that stood still is asked again as soon as nothing is under way."""
    cassandra_server.freeze()
    try:
        tally = Tally()
        await wave(uncached, STORE_KEYS_LEAST // KEYS + 1, tally, deadline_ms=100)
        assert set(tally.codes) == {"UNAVAILABLE"}
    finally:
        cassandra_server.resume()
    await until(lambda: uncached.reads.counters()["keys_under_way"] == 0)
    before = uncached.reads.counters()["misses_refused"]
    assert await uncached.rows(1, 2) == [[1, "x"], [2, "x"]]
    assert uncached.reads.counters()["misses_refused"] == before

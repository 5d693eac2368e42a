"""Reads through a real cache to a real store: misses, leases, fills, flights, invalidation."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pyarrow as pa
import pytest
from store_reads import (
    PLAYS,
    USERS,
    Gateway,
    Store,
    command,
    now_ms,
    open_gateway,
    open_store,
    until,
)

from headrace.codec import Catalog
from headrace.gateway.cached.scripts import PAIRS_PER_CALL_MAX
from headrace.gateway.ports import (
    ACCEPT_ARROW,
    ACCEPT_AVRO,
    CODED_GZIP,
    CODED_ZSTD,
    Cells,
    Unreachable,
)
from headrace.gateway.stores.scylla import READS_IN_FLIGHT_MAX, ScyllaRows
from headrace.loadtest.servers import Server
from headrace.registry.cache_url import CacheUrl
from headrace.sync.stores.redis import RedisInvalidator


@pytest.fixture
async def store(cassandra_server: Server) -> AsyncGenerator[Store]:
    async with open_store(cassandra_server) as opened:
        yield opened


@pytest.fixture
async def cache(valkey_server: Server, store: Store) -> AsyncGenerator[CacheUrl]:
    epoch = uuid.uuid4().int % 2**31
    url = CacheUrl.parse(f"redis://{valkey_server.host}:{valkey_server.port}/0?epoch={epoch}")
    store.invalidator = RedisInvalidator(url)
    yield url
    await store.invalidator.close()


@pytest.fixture
async def gateway(store: Store, cache: CacheUrl) -> AsyncGenerator[Gateway]:
    async with open_gateway(store, cache) as opened:
        yield opened


async def settled(gateway: Gateway) -> None:
    """Wait until no key is being read and no fill is on its way."""
    await until(lambda: gateway.reads.counters()["keys_under_way"] == 0)


async def test_a_miss_is_read_from_the_store_and_then_answered_by_the_cache(
    store: Store, gateway: Gateway
) -> None:
    await store.write(command(1, level=10, name="a"), command(2, level=20, name="b"))
    assert await gateway.rows(1, 2, 1) == [[10, "a"], [20, "b"], [10, "a"]]
    await settled(gateway)
    before = gateway.reads.counters()
    assert await gateway.rows(1, 2, 1) == [[10, "a"], [20, "b"], [10, "a"]]
    after = gateway.reads.counters()
    assert after["store_reads"] == before["store_reads"] == 2
    assert after["cache_hits"] - before["cache_hits"] == 3


async def test_an_absent_row_is_cached_too(gateway: Gateway) -> None:
    for _ in range(3):
        assert await gateway.statuses(404) == ["MISSING"]
        await settled(gateway)
    assert gateway.reads.counters()["store_reads"] == 1


FORMS = {
    "avro": ACCEPT_AVRO,
    "arrow": ACCEPT_ARROW,
    "json in gzip": CODED_GZIP,
    "arrow in zstd": ACCEPT_ARROW | CODED_ZSTD,
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
async def test_an_answer_of_any_form_has_equal_bytes_from_store_and_cache(
    store: Store, gateway: Gateway, form: int
) -> None:
    """Read from the store, then answered from the cache's own reply, where it lies."""
    play = command(1, group=PLAYS, method="APPEND", level=10, name="p")
    whole = [command(user, level=user, name="x" * user) for user in range(1, 100)]
    await store.write(*whole, command(100, name="only"), play)
    users = {"feature_group": USERS, "keys": {"user_id": list(range(1, 111))}}
    plays = {"feature_group": PLAYS, "keys": {"user_id": [1]}}
    body = {"reads": [users, plays]}
    missed = await gateway.answer(body, form)
    await settled(gateway)
    hits = gateway.reads.counters()["cache_hits"]
    again = await gateway.answer(body, form)
    assert gateway.reads.counters()["cache_hits"] == hits + 111
    assert again == missed
    assert missed.startswith(b"HTTP/1.1 200")
    coded = form in (CODED_GZIP, ACCEPT_ARROW | CODED_ZSTD)
    assert (b"\r\ncontent-encoding: " in missed) == coded


async def test_arrow_from_a_networked_store_says_what_json_says(
    store: Store, gateway: Gateway
) -> None:
    await store.write(command(1, level=2**60, name="é"), command(2, name="b"))
    body: dict[str, Any] = {"reads": [{"feature_group": USERS, "keys": {"user_id": [2, 1, 3]}}]}
    _, printed = await gateway.read(body)
    stream = (await gateway.answer(body, ACCEPT_ARROW)).partition(b"\r\n\r\n")[2]
    table: Any = pa.ipc.open_stream(stream).read_all()
    rows = [
        list(row) for row in zip(table["level"].to_pylist(), table["name"].to_pylist(), strict=True)
    ]
    assert rows == printed["results"][0]["rows"] == [[7, "b"], [2**60, "é"], [7, ""]]
    assert table["_status"].to_pylist() == ["DEFAULTED", "OK", "MISSING"]


async def test_a_write_is_seen_by_the_next_read(store: Store, gateway: Gateway) -> None:
    for level in range(5):
        await store.write(command(1, level=level, name="x"))
        assert await gateway.rows(1) == [[level, "x"]]
        await settled(gateway)


async def test_partial_updates_are_merged_by_event_time(store: Store, gateway: Gateway) -> None:
    now = now_ms()
    await store.write(command(1, at_ms=now, name="new"), command(1, at_ms=now - 5, level=3))
    await store.write(command(1, at_ms=now - 9, name="old"))
    assert await gateway.rows(1) == [[3, "new"]]


async def test_a_delete_empties_the_row(store: Store, gateway: Gateway) -> None:
    await store.write(command(1, level=1, name="x"))
    await gateway.rows(1)
    await settled(gateway)
    await store.write(command(1, method="DELETE"))
    assert await gateway.statuses(1) == ["MISSING"]


async def test_a_history_comes_newest_first_from_store_and_cache(
    store: Store, gateway: Gateway
) -> None:
    now = now_ms()
    events = [
        command(1, group=PLAYS, method="APPEND", at_ms=now - age, level=age, name="p")
        for age in (30, 10, 20, 0, 40, 50)
    ]
    await store.write(*events)
    expected = [[[now - age, age, "p"] for age in (0, 10, 20, 30, 40)]]
    assert await gateway.rows(1, group=PLAYS) == expected
    await settled(gateway)
    assert await gateway.rows(1, group=PLAYS) == expected
    assert gateway.reads.counters()["store_reads"] == 1


class HeldRows:
    """The store's rows, held back until released; counts what was asked."""

    def __init__(self, rows: ScyllaRows) -> None:
        self._rows = rows
        self.released = asyncio.Event()
        self.asked = 0
        self.begun = asyncio.Event()

    async def fetch(
        self, catalog: Catalog, wanted: Sequence[tuple[bytes, int | None]], *, limit_ms: int
    ) -> list[Cells | Unreachable]:
        self.asked += len(wanted)
        outcome = await self._rows.fetch(catalog, wanted, limit_ms=limit_ms)
        self.begun.set()
        await self.released.wait()
        return outcome


class LateKeys:
    """The store's rows; reads of some keys are held back until released."""

    def __init__(self, rows: ScyllaRows, keys: set[bytes]) -> None:
        self._rows = rows
        self._keys = keys
        self.released = asyncio.Event()
        self.waiting = False

    async def fetch(
        self, catalog: Catalog, wanted: Sequence[tuple[bytes, int | None]], *, limit_ms: int
    ) -> list[Cells | Unreachable]:
        outcome = await self._rows.fetch(catalog, wanted, limit_ms=limit_ms)
        if any(key in self._keys for key, _ in wanted):
            self.waiting = True
            await self.released.wait()
        return outcome


@pytest.fixture
def held(store: Store) -> HeldRows:
    return HeldRows(ScyllaRows(store.engine.session, store.engine.url.keyspace))


async def test_five_hundred_misses_of_one_key_make_one_store_read(
    store: Store, cache: CacheUrl, held: HeldRows
) -> None:
    await store.write(command(1, level=1, name="hot"))
    held.released.set()
    async with open_gateway(store, cache, rows=held) as gateway:
        answers = await asyncio.gather(*(gateway.rows(1) for _ in range(500)))
    assert answers == [[[1, "hot"]]] * 500
    assert held.asked == 1


async def test_many_missed_rows_are_filled_each_under_its_own_lease(
    store: Store, cache: CacheUrl, held: HeldRows
) -> None:
    """More rows than one script call fills; a write to one of them keeps out that one alone."""
    users = list(range(PAIRS_PER_CALL_MAX + 50))
    await store.write(*(command(user, level=user, name="old") for user in users[::2]))
    async with open_gateway(store, cache, rows=held) as gateway:
        slow = asyncio.create_task(gateway.rows(*users))
        await held.begun.wait()
        await store.write(command(7, level=70, name="new"), command(8, level=80, name="new"))
        held.released.set()
        answer = await slow
        assert answer[:3] == [[0, "old"], [7, ""], [2, "old"]]
        await settled(gateway)
        counters = gateway.reads.counters()
        assert counters["fills"] == len(users) - 2
        assert counters["fills_refused"] == 2
        assert (await gateway.rows(*users))[6:10] == [[6, "old"], [70, "new"], [80, "new"], [7, ""]]
        assert gateway.reads.counters()["store_reads"] == len(users) + 2


async def test_rows_read_in_time_are_answered_though_another_callers_read_is_late(
    store: Store, cache: CacheUrl
) -> None:
    """What is read for this request comes before what it only waits for."""
    await store.write(*(command(user, level=user, name="x") for user in (1, 2, 3)))
    rows = ScyllaRows(store.engine.session, store.engine.url.keyspace)
    late = LateKeys(rows, {store.catalog.encode_key(USERS, {"user_id": 1})})
    async with open_gateway(store, cache, rows=late) as gateway:
        slow = asyncio.create_task(gateway.rows(1))
        await until(lambda: late.waiting)
        body = {
            "reads": [{"feature_group": USERS, "keys": {"user_id": [1, 2, 3]}}],
            "deadline_ms": 300,
        }
        status, answer = await gateway.read(body)
        late.released.set()
        await slow
    assert status == 200
    assert answer["results"][0]["rows"] == [[None, None], [2, "x"], [3, "x"]]
    assert answer["results"][0]["statuses"] == [{"row": 0, "status": "UNAVAILABLE"}]


async def test_one_request_never_has_more_reads_in_flight_than_are_allowed(store: Store) -> None:
    users = list(range(2 * READS_IN_FLIGHT_MAX + 88))
    await store.write(*(command(user, level=user, name="x") for user in users[1::2]))
    rows = ScyllaRows(store.engine.session, store.engine.url.keyspace)
    keys = [store.catalog.encode_key(USERS, {"user_id": user}) for user in users]
    fetching = asyncio.create_task(
        rows.fetch(store.catalog, [(key, None) for key in keys], limit_ms=5_000)
    )
    most = 0
    while not fetching.done():
        most = max(most, rows.in_flight)
        await asyncio.sleep(0)
    found = [len(each.cells) for each in await fetching if isinstance(each, Cells)]
    assert found == [user % 2 for user in users]
    assert most == READS_IN_FLIGHT_MAX
    assert rows.in_flight == 0


async def test_a_fetch_that_is_given_up_leaves_the_session_in_order(store: Store) -> None:
    """As at the end of a process: calls under way are closed, and others go on."""
    await store.write(command(1, level=1, name="x"))
    rows = ScyllaRows(store.engine.session, store.engine.url.keyspace)
    key = store.catalog.encode_key(USERS, {"user_id": 1})
    fetching = asyncio.create_task(rows.fetch(store.catalog, [(key, None)] * 100, limit_ms=5_000))
    while rows.in_flight == 0:  # noqa: ASYNC110 - the very turn in which the reads began
        await asyncio.sleep(0)
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    (found,) = await rows.fetch(store.catalog, [(key, None)], limit_ms=5_000)
    assert isinstance(found, Cells)
    assert len(found.cells) == 1
    await until(lambda: rows.in_flight == 0)


async def test_a_value_read_before_a_write_never_fills_the_cache_after_it(
    store: Store, cache: CacheUrl, held: HeldRows
) -> None:
    await store.write(command(1, level=1, name="old"))
    async with open_gateway(store, cache, rows=held) as gateway:
        slow = asyncio.create_task(gateway.rows(1))
        await held.begun.wait()
        await store.write(command(1, level=2, name="new"))
        held.released.set()
        assert await slow == [[1, "old"]]  # It began before the write.
        await settled(gateway)
        assert gateway.reads.counters()["fills_refused"] == 1
        assert await gateway.rows(1) == [[2, "new"]]


async def test_who_comes_after_a_write_does_not_take_an_older_read(
    store: Store, cache: CacheUrl, held: HeldRows
) -> None:
    await store.write(command(1, level=1, name="old"))
    async with open_gateway(store, cache, rows=held) as gateway:
        slow = asyncio.create_task(gateway.rows(1))
        await held.begun.wait()
        await store.write(command(1, level=2, name="new"))
        late = asyncio.create_task(gateway.rows(1))
        await until(lambda: gateway.reads.counters()["joined"] == 1)
        held.released.set()
        assert await late == [[2, "new"]]
        await slow


async def test_a_reader_without_the_lease_keeps_an_older_value_from_filling(
    store: Store, cache: CacheUrl, held: HeldRows
) -> None:
    """What one reader has seen, no later read of any gateway goes behind (semantics 19)."""
    await store.write(command(1, level=1, name="old"))
    async with open_gateway(store, cache, rows=held) as slow, open_gateway(store, cache) as quick:
        holder = asyncio.create_task(slow.rows(1))
        await held.begun.wait()
        invalidator, store.invalidator = store.invalidator, None
        await store.write(command(1, level=2, name="new"))  # In the store, not invalidated yet.
        assert await quick.rows(1) == [[2, "new"]]
        held.released.set()
        await holder
        await settled(slow)
        assert await quick.rows(1) == [[2, "new"]]
        store.invalidator = invalidator


async def test_without_a_cache_every_read_goes_to_the_store(store: Store) -> None:
    await store.write(command(1, level=1, name="x"))
    async with open_gateway(store, None) as gateway:
        for _ in range(3):
            assert await gateway.rows(1) == [[1, "x"]]
        assert gateway.reads.counters()["store_reads"] == 3


async def test_a_wrong_request_is_refused_at_once(gateway: Gateway) -> None:
    status, problem = await gateway.read({"reads": []})
    assert status == 400
    assert problem["code"]


async def test_a_damaged_block_is_read_past_and_removed(
    store: Store, gateway: Gateway, cache: CacheUrl
) -> None:
    from redis.asyncio import Redis

    await store.write(command(1, level=1, name="x"))
    await gateway.rows(1)
    await settled(gateway)
    async with Redis(host=cache.nodes[0].host, port=cache.nodes[0].port) as client:
        (block_key,) = await client.keys(f"hb{cache.epoch}:*")
        block = await client.get(block_key)
        assert isinstance(block, bytes)
        damaged = block[:-1] + b"?"
        await client.set(block_key, damaged)
        assert await gateway.rows(1) == [[1, "x"]]
        await settled(gateway)
        assert await client.get(block_key) != damaged


async def test_a_block_does_not_outlive_its_oldest_cell(
    store: Store, gateway: Gateway, cache: CacheUrl
) -> None:
    """Jitter is of the cache's ttl, not of what a row has left (semantics 7)."""
    from redis.asyncio import Redis

    left_ms = 60_000
    users = range(1, 13)
    at_ms = now_ms() - 3_600_000 + left_ms
    await store.write(*(command(user, at_ms=at_ms, level=1, name="x") for user in users))
    await gateway.rows(*users)
    await settled(gateway)
    async with Redis(host=cache.nodes[0].host, port=cache.nodes[0].port) as client:
        lives_ms = [await client.pttl(key) for key in await client.keys(f"hb{cache.epoch}:*")]
    assert len(lives_ms) == len(users)
    assert max(lives_ms) <= left_ms


async def test_lost_scripts_are_sent_again(store: Store, gateway: Gateway, cache: CacheUrl) -> None:
    from redis.asyncio import Redis

    await store.write(command(1, level=1, name="x"))
    async with Redis(host=cache.nodes[0].host, port=cache.nodes[0].port) as client:
        await client.script_flush()
    await gateway.rows(1)
    await settled(gateway)
    assert gateway.reads.counters()["fills"] == 1

"""Any order, repetition and split of commands ends in one state, in every store (rule 31 of
semantics): all orders up to 5 commands, 50 random ones beyond; over CQL 300 histories of either
kind × 20 orders.

The state is that of a reference model which knows commands and their write timestamps, and nothing
of cells, folds or stores. LMDB's own suite adds 1,000 histories of raw mutations × 20 orders.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import count, permutations, zip_longest
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.cli.scylla import ScyllaEngine
from headrace.codec import Catalog, LmdbStore, encode_commands
from headrace.loadtest.servers import Server
from headrace.registry.catalog import (
    CatalogDocument,
    Group,
    KeyField,
    Schema,
    ValueField,
    encode_document,
)
from headrace.sync.stores.memory import MemoryOnlineStore

NOW_MS = 1_700_000_000_000
TTL_MS = 10
"""Event times spread over twenty milliseconds up to now, so that half of them have expired."""
EVENTS_MAX = 3
OBJECT, HISTORY = "live::host-stat-v1", "live::plays"
DEFAULTS: dict[str, object] = {"level": 0, "country": "XX", "score": None}
FIRST_FIELDS = ("level", "country")

State = object


class Told(NamedTuple):
    """One command. `generation` is the catalog under which it was encoded."""

    method: str
    at_ms: int
    values: dict[str, object]
    generation: int

    def payload(self, group: str, user: int) -> bytes:
        values = self.values | {"_last_updated_at_ms": self.at_ms}
        body = {"feature_name": group, "method": self.method, "keys": {"user_id": user}}
        return json.dumps(body | {"values": values}).encode()


class Dated(NamedTuple):
    """A command with what the codec derives from its content."""

    write_timestamp: int
    event_id: int
    command: Told


def groups(generation: int) -> tuple[Group, ...]:
    """Generation 1 has two fields; generation 2 adds a third."""
    level = ValueField(id=1, name="level", type="Long", default=0)
    country = ValueField(id=2, name="country", type="Text", default="XX")
    score = ValueField(id=3, name="score", type="Double", nullable=True)
    first = Schema(ordinal=1, fields=(level, country))
    schemas = (first, Schema(ordinal=2, fields=(level, country, score)))[:generation]
    user = (KeyField(name="user_id", type="Long"),)

    def group(number: int, name: str, *, history: bool) -> Group:
        return Group(
            id=number,
            name=name,
            feature_type="History" if history else "Object",
            owner="o",
            keys=user,
            schemas=schemas,
            ttl_ms=TTL_MS,
            max_events=EVENTS_MAX,
        )

    return group(1, OBJECT, history=False), group(2, HISTORY, history=True)


def _catalog(generation: int) -> Catalog:
    document = CatalogDocument(
        generation=generation, published_at_ms=NOW_MS, groups=groups(generation)
    )
    return Catalog(encode_document(document))


CATALOGS = {1: _catalog(1), 2: _catalog(2)}


def model_object(told: Sequence[Dated]) -> State:
    """The row that these commands make, in whatever order they came."""
    live = [each for each in told if each.command.method == "UPDATE" and is_live(each, told)]
    # A whole record takes the place of the one before; its schema may lack a field of that one.
    whole = [each for each in live if is_whole(each.command)]
    standing = [each for each in live if each not in whole[:-1]]
    if not standing:
        return None
    values, written = dict(DEFAULTS), dict.fromkeys(DEFAULTS, False)
    for each in standing:
        values |= each.command.values
        written |= dict.fromkeys(each.command.values, True)
    return standing[-1].command.at_ms, values, written


def model_history(told: Sequence[Dated]) -> State:
    """The newest events, each once, without those that a delete or their ttl took."""
    events = [each for each in told if each.command.method == "APPEND" and is_live(each, told)]
    events.sort(key=lambda each: (each.command.at_ms, each.event_id), reverse=True)
    newest = events[:EVENTS_MAX]
    return [(each.command.at_ms, DEFAULTS | each.command.values) for each in newest]


def is_live(each: Dated, told: Sequence[Dated]) -> bool:
    deletes = (other for other in told if other.command.method == "DELETE")
    deleted = max((other.write_timestamp for other in deletes), default=-1)
    return each.write_timestamp > deleted and each.command.at_ms + TTL_MS > NOW_MS


def is_whole(command: Told) -> bool:
    return set(command.values) == set(FIRST_FIELDS if command.generation == 1 else DEFAULTS)


def dated(group: str, commands: Sequence[Told]) -> list[Dated]:
    """The commands by write timestamp; of different ones that share a number one is left.

    (Equal numbers go by larger bytes; LMDB's own suite and the fold's test that.) A write that had
    expired on arrival makes nothing.
    """
    told: dict[int, Dated] = {}
    for command in commands:
        batch = encode_commands(
            CATALOGS[command.generation], [command.payload(group, 0)], now_ms=NOW_MS - TTL_MS
        )
        assert [rejection.message for rejection in batch.rejections] == []
        for mutation in batch.mutations():
            stamp = mutation.write_timestamp
            told.setdefault(stamp, Dated(stamp, mutation.event_id, command))
    return [told[stamp] for stamp in sorted(told)]


class LmdbRows:
    """The embedded store; every call is a transaction."""

    def __init__(self, folder: Path) -> None:
        self.store = LmdbStore(str(folder), map_size_bytes=1 << 20)

    def apply(self, generation: int, payloads: Sequence[bytes]) -> None:
        catalog = CATALOGS[generation]
        batch = encode_commands(catalog, payloads, now_ms=NOW_MS - TTL_MS)
        self.store.apply(batch, catalog, now_ms=NOW_MS)

    def read(self, group: str, users: Sequence[int]) -> list[State]:
        catalog = CATALOGS[2]
        keys = [catalog.encode_key(group, {"user_id": user}) for user in users]
        if group == HISTORY:
            return list(self.store.fetch_history(catalog, keys, limit=EVENTS_MAX, now_ms=NOW_MS))
        rows = self.store.fetch_object(catalog, keys, now_ms=NOW_MS)
        return [row and (row.newest_event_time_ms, row.values, row.written) for row in rows]


class MemoryRows:
    """The memory store, which folds at reading."""

    def __init__(self, _folder: Path) -> None:
        self.store = MemoryOnlineStore()

    def apply(self, generation: int, payloads: Sequence[bytes]) -> None:
        self.store.apply(encode_commands(CATALOGS[generation], payloads, now_ms=NOW_MS - TTL_MS))

    def read(self, group: str, users: Sequence[int]) -> list[State]:
        catalog = CATALOGS[2]
        keys = [catalog.encode_key(group, {"user_id": user}) for user in users]
        if group == HISTORY:
            newest = self.store.fetch_history(catalog, keys, limit=EVENTS_MAX, now_ms=NOW_MS)
            return list(newest)
        rows = self.store.fetch_object(catalog, keys, now_ms=NOW_MS)
        return [row and (row.newest_event_time_ms, row.values, row.written) for row in rows]


class ScyllaRows:
    """The networked store, over one session in an event loop of its own."""

    keyspace = "orders_of_commands"

    def __init__(self, server: Server) -> None:
        self._loop = asyncio.Runner()
        self._engine = self._loop.run(self._opened(server))
        self._writer = self._engine.writer()

    async def _opened(self, server: Server) -> ScyllaEngine:
        url = f"scylla://{server.host}:{server.port}/{self.keyspace}?replication=1"
        engine = await ScyllaEngine.open(url, create=True)
        await engine.table_admin().create(groups(2))
        return engine

    def apply(self, generation: int, payloads: Sequence[bytes]) -> None:
        catalog = CATALOGS[generation]
        batch = encode_commands(catalog, payloads, now_ms=NOW_MS - TTL_MS)
        self._loop.run(self._writer.store(batch, catalog, now_ms=NOW_MS))

    def read(self, group: str, users: Sequence[int]) -> list[State]:
        return self._loop.run(self._read(group, users))

    async def _read(self, name: str, users: Sequence[int]) -> list[State]:
        catalog, inspector = CATALOGS[2], self._engine.inspector()
        group = next(group for group in groups(2) if group.name == name)
        looks = [
            inspector.inspect(
                catalog,
                group,
                catalog.encode_key(name, {"user_id": user}),
                events_max=EVENTS_MAX,
                now_ms=NOW_MS,
            )
            for user in users
        ]
        found = await asyncio.gather(*looks)
        if name == HISTORY:
            return [list(each.events) for each in found]
        rows = [each.record for each in found]
        return [row and (row.newest_event_time_ms, row.values, row.written) for row in rows]

    def close(self) -> None:
        self._loop.run(self._engine.close())
        self._loop.close()


Rows = LmdbRows | MemoryRows | ScyllaRows
STORES: dict[str, Callable[[Path], Rows]] = {"memory": MemoryRows, "lmdb": LmdbRows}
USERS = count()


@pytest.fixture(scope="module", params=list(STORES.values()), ids=list(STORES))
def rows(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    opened: Rows = request.param(tmp_path_factory.mktemp("rows"))
    return opened


at_ms = st.integers(NOW_MS - 2 * TTL_MS, NOW_MS - TTL_MS // 2)
value = st.fixed_dictionaries(
    {},
    optional={
        "level": st.integers(0, 2),
        "country": st.sampled_from(["KR", "JP"]),
        "score": st.sampled_from([None, 0.5]),
    },
)
first_value = st.fixed_dictionaries(
    {}, optional={"level": st.integers(0, 2), "country": st.sampled_from(["KR", "JP"])}
)


def commands(method: str) -> st.SearchStrategy[list[Told]]:
    """Partial, whole and older-schema writes, deletes, equal event times; some of them twice."""
    write = st.one_of(
        st.builds(Told, st.just(method), at_ms, value.filter(bool), st.just(2)),
        st.builds(Told, st.just(method), at_ms, first_value.filter(bool), st.just(1)),
    )
    delete = st.builds(Told, st.just("DELETE"), at_ms, st.just({}), st.just(2))
    return st.lists(st.one_of(write, write, write, write, delete), min_size=1, max_size=8)


def orders(told: list[Told], random: Random) -> Iterator[list[Told]]:
    """Every order up to 5 commands; beyond that 50 random ones, with some commands repeated."""
    if len(told) <= 5:
        yield from map(list, permutations(told))
        return
    for _ in range(50):
        yield random.sample(told, len(told)) + random.choices(told, k=random.randrange(3))


def check(rows: Rows, group: str, told: list[Dated], random: Random) -> None:
    """Tell each order to a user of its own, the n-th commands of all orders in one batch."""
    tellings = [(next(USERS), order) for order in orders([each.command for each in told], random)]
    tell(rows, group, tellings)
    expected = model(group, told)
    found = rows.read(group, [user for user, _ in tellings])
    for (_, order), state in zip(tellings, found, strict=True):
        assert state == expected, order


def model(group: str, told: Sequence[Dated]) -> State:
    return model_history(told) if group == HISTORY else model_object(told)


def tell(rows: Rows, group: str, tellings: Sequence[tuple[int, list[Told]]]) -> None:
    """The n-th commands of all users in one batch, for each n."""
    for step in zip_longest(*(order for _, order in tellings)):
        for generation in CATALOGS:
            payloads = [
                command.payload(group, user)
                for (user, _), command in zip(tellings, step, strict=True)
                if command is not None and command.generation == generation
            ]
            if payloads:
                rows.apply(generation, payloads)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(told=commands("UPDATE"), random=st.randoms(use_true_random=False))
def test_an_object_ends_in_one_state(rows: Rows, told: list[Told], random: Random) -> None:
    check(rows, OBJECT, dated(OBJECT, told), random)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(told=commands("APPEND"), random=st.randoms(use_true_random=False))
def test_a_history_ends_in_one_state(rows: Rows, told: list[Told], random: Random) -> None:
    check(rows, HISTORY, dated(HISTORY, told), random)


CQL_HISTORIES, CQL_ORDERS = 300, 20


@pytest.fixture(scope="module")
def cql(cassandra_server: Server) -> Iterator[ScyllaRows]:
    opened = ScyllaRows(cassandra_server)
    yield opened
    opened.close()


def random_command(method: str, random: Random) -> Told:
    """As `commands` draws them: a fifth deletes, a half under the older schema."""
    at = random.randint(NOW_MS - 2 * TTL_MS, NOW_MS - TTL_MS // 2)
    if random.random() < 0.2:
        return Told("DELETE", at, {}, 2)
    generation = random.choice([1, 2])
    drawn: dict[str, object] = {
        "level": random.randint(0, 2),
        "country": random.choice(["KR", "JP"]),
        "score": random.choice([None, 0.5]),
    }
    names = FIRST_FIELDS if generation == 1 else tuple(DEFAULTS)
    chosen = random.sample(names, random.randint(1, len(names)))
    return Told(method, at, {name: drawn[name] for name in chosen}, generation)


@pytest.mark.parametrize(("group", "method"), [(OBJECT, "UPDATE"), (HISTORY, "APPEND")])
def test_any_order_over_cql_ends_in_one_state(cql: ScyllaRows, group: str, method: str) -> None:
    """All users of all histories are told together, so that the server is kept busy."""
    random = Random(20_240_131)
    expected: list[State] = []
    tellings: list[tuple[int, list[Told]]] = []
    for _ in range(CQL_HISTORIES):
        drawn = [random_command(method, random) for _ in range(random.randint(1, 8))]
        told = dated(group, drawn)
        commands = [each.command for each in told]
        for _ in range(CQL_ORDERS):
            again = random.choices(commands, k=random.randrange(3)) if commands else []
            tellings.append((next(USERS), random.sample(commands, len(commands)) + again))
            expected.append(model(group, told))
    tell(cql, group, tellings)
    found = cql.read(group, [user for user, _ in tellings])
    differing = [
        (order, state, wanted)
        for (_, order), state, wanted in zip(tellings, found, expected, strict=True)
        if state != wanted
    ]
    assert differing[:1] == []

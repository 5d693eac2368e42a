"""Reads through cache nodes, driven by bytes: what is asked, what is answered, what is left.

A real Redis is in `tests/integration`; here every order and every piece of a reply is chosen.
"""

from __future__ import annotations

import gc
import json
import sys
import tracemalloc

import pytest

from headrace.codec import (
    CachedReads,
    Catalog,
    PendingRead,
    Placement,
    ReadEngine,
    StaleCatalog,
    encode_commands,
)
from headrace.registry.catalog import (
    CachePolicy,
    CatalogDocument,
    Group,
    KeyField,
    Schema,
    ValueField,
    encode_document,
)

NOW_MS = 1_700_000_000_000
LEVEL = ValueField(id=1, name="level", type="Long", default=7)
NAME = ValueField(id=2, name="name", type="Text", default="")
KEYS = (KeyField(name="user_id", type="Long"),)


def _group(
    number: int, name: str, *, cached: bool = True, local_ttl_ms: int = 0, **options: object
) -> Group:
    return Group(
        id=number,
        name=name,
        feature_type="History" if "plays" in name else "Object",
        owner="o",
        keys=KEYS,
        schemas=(Schema(ordinal=1, fields=(LEVEL, NAME)),),
        ttl_ms=3_600_000,
        cache=CachePolicy(ttl_ms=600_000 if cached else 0, local_ttl_ms=local_ttl_ms),
        **options,  # type: ignore[arg-type]  # the few options of the tests below
    )


CATALOG = Catalog(
    encode_document(
        CatalogDocument(
            generation=3,
            published_at_ms=NOW_MS,
            groups=(
                _group(1, "live::users"),
                _group(2, "live::plays", max_events=5),
                _group(3, "live::uncached", cached=False),
                _group(4, "live::local", local_ttl_ms=1_000),
            ),
        )
    )
)


class Reads:
    """A `CachedReads` with the nodes up, and shorthands around it."""

    def __init__(self, *nodes: str, local_bytes_max: int = 10_000) -> None:
        self.engine = ReadEngine()
        self.engine.install(CATALOG)
        self.placement = Placement(nodes or ("a:1",), epoch=1)
        self.cached = CachedReads(self.engine, self.placement, local_bytes_max=local_bytes_max)
        for node in range(len(nodes) or 1):
            self.cached.node_up(node)

    def submit(self, body: object, *, token: int = 1) -> bytes | PendingRead | None:
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.cached.submit(
            text, caller=token, accept=0, now_ms=NOW_MS, request_id=b"r", keep_alive=True
        )

    def feed(self, reply: bytes, *, node: int = 0) -> list[tuple[int, object]]:
        done, broken = self.cached.feed(node, reply, now_ms=NOW_MS)
        assert broken is None
        return [(token, value) for token, value in done]


def ask(*users: int, group: str = "live::users") -> dict[str, object]:
    return {"reads": [{"feature_group": group, "keys": {"user_id": list(users)}}]}


def key_of(user: int, group: str = "live::users") -> bytes:
    return CATALOG.encode_key(group, {"user_id": user})


def cells(
    user: int, *, age_ms: int = 0, method: str = "UPDATE", group: str = "live::users"
) -> list[tuple[int, bytes]]:
    command = {
        "feature_name": group,
        "method": method,
        "keys": {"user_id": user},
        "values": {"level": user, "name": f"n{user}", "_last_updated_at_ms": NOW_MS - age_ms},
    }
    batch = encode_commands(CATALOG, [json.dumps(command).encode()], now_ms=NOW_MS)
    return [(each.field_id, each.cell) for each in batch.mutations()]


def block_of(user: int, *, age_ms: int = 0, group: str = "live::users") -> bytes:
    """The block that a miss of this user would fill the cache with."""
    reads = Reads()
    reads.submit(ask(user, group=group))
    ((_, pending),) = reads.feed(mget(None))
    assert isinstance(pending, PendingRead)
    fill = pending.take_cells(0, cells(user, age_ms=age_ms, group=group), NOW_MS)
    assert fill is not None
    return fill[0]


def mget(*blocks: bytes | None) -> bytes:
    parts = [b"*%d\r\n" % len(blocks)]
    parts += [b"$-1\r\n" if b is None else b"$%d\r\n%b\r\n" % (len(b), b) for b in blocks]
    return b"".join(parts)


def rows(response: object) -> list[object]:
    assert isinstance(response, bytes)
    head, _, body = response.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    rows: list[object] = json.loads(body)["results"][0]["rows"]
    return rows


def test_a_request_asks_for_its_blocks_in_one_mget() -> None:
    reads = Reads()
    assert reads.submit(ask(1, 2)) is None
    expected = b"*3\r\n$4\r\nMGET\r\n"
    for user in (1, 2):
        expected += b"$%d\r\n%b\r\n" % (16, reads.placement.block_key(key_of(user)))
    assert reads.cached.take(0) == expected
    assert reads.cached.take(0) is None


def test_a_request_that_the_cache_holds_is_answered_by_its_reply() -> None:
    reads = Reads()
    reads.submit(ask(1, 2), token=9)
    ((token, response),) = reads.feed(mget(block_of(1), block_of(2)))
    assert token == 9
    assert rows(response) == [[1, "n1"], [2, "n2"]]


def test_requests_are_answered_in_order_however_the_replies_are_cut() -> None:
    reads = Reads()
    replies = b""
    for token, user in enumerate((5, 6, 7)):
        reads.submit(ask(user), token=token)
        replies += mget(block_of(user))
    done: list[tuple[int, object]] = []
    for start in range(0, len(replies), 11):
        done += reads.feed(replies[start : start + 11])
    assert [(token, rows(response)[0]) for token, response in done] == [
        (0, [5, "n5"]),
        (1, [6, "n6"]),
        (2, [7, "n7"]),
    ]


def test_a_wrong_request_is_refused_without_asking_anything() -> None:
    reads = Reads()
    response = reads.submit({"reads": [{"feature_group": "live::userz", "keys": {}}]})
    assert isinstance(response, bytes)
    assert response.startswith(b"HTTP/1.1 404")
    assert reads.cached.take(0) is None


@pytest.mark.parametrize(
    "unusable",
    [None, b"", b"torn", block_of(2), block_of(1)[:-1], block_of(1, age_ms=3_599_999)[:0]],
    ids=["null", "empty", "garbage", "another key's", "cut", "nothing"],
)
def test_a_block_that_cannot_be_used_is_a_miss(unusable: bytes | None) -> None:
    reads = Reads()
    reads.submit(ask(1, 3))
    ((_, pending),) = reads.feed(mget(unusable, block_of(3)))
    assert isinstance(pending, PendingRead)
    assert [(slot, key) for slot, key, _, _ in pending.wanted()] == [(0, key_of(1))]


def test_every_flipped_bit_of_a_block_is_a_miss_and_never_a_wrong_value() -> None:
    block = block_of(1)
    for bit in range(len(block) * 8):
        flipped = bytearray(block)
        flipped[bit // 8] ^= 1 << (bit % 8)
        reads = Reads()
        reads.submit(ask(1))
        ((_, outcome),) = reads.feed(mget(bytes(flipped)))
        assert isinstance(outcome, PendingRead), bit


def test_an_expired_block_is_a_miss() -> None:
    reads = Reads()
    reads.submit(ask(1))
    done, _ = reads.cached.feed(0, mget(block_of(1, age_ms=1)), now_ms=NOW_MS + 3_600_000)
    ((_, outcome),) = done
    assert isinstance(outcome, PendingRead)


def test_hits_are_kept_while_the_store_is_asked_for_the_rest() -> None:
    reads = Reads()
    reads.submit(ask(1, 2, 3))
    ((_, pending),) = reads.feed(mget(block_of(1), None, block_of(3)))
    reads.feed(b"")
    assert isinstance(pending, PendingRead)
    pending.take_cells(1, cells(2), NOW_MS)
    assert rows(pending.finish()) == [[1, "n1"], [2, "n2"], [3, "n3"]]


def missed(*users: int, group: str = "live::users") -> PendingRead:
    """A request for these users of whom no cache knows anything."""
    reads = Reads()
    outcome: object = reads.submit(ask(*users, group=group))
    if not isinstance(outcome, PendingRead):
        ((_, outcome),) = reads.feed(mget(*(None for _ in users)))
    assert isinstance(outcome, PendingRead)
    return outcome


def test_many_rows_at_once_are_taken_as_each_alone() -> None:
    """One call for a request's rows: the same answer, and the same fills in the same order."""
    users = (1, 2, 3, 1)
    stored = [cells(1), [], cells(3, age_ms=3_500_000), cells(1)]
    one_by_one, at_once = missed(*users), missed(*users)
    alone = [one_by_one.take_cells(slot, row, NOW_MS) for slot, row in enumerate(stored)]
    assert at_once.take_rows(list(enumerate(stored)), NOW_MS) == alone
    assert None not in alone
    assert at_once.finish() == one_by_one.finish()


def test_a_damaged_row_among_many_fills_nothing_and_spoils_no_other() -> None:
    pending = missed(1, 2)
    [(field, cell)] = cells(1)
    damaged = [(field, cell[:-1] + bytes([cell[-1] ^ 1]))]
    fills = pending.take_rows([(0, damaged), (1, cells(2))], NOW_MS)
    assert fills[0] is None
    assert fills[1] is not None
    result = json.loads(pending.finish().partition(b"\r\n\r\n")[2])["results"][0]
    assert result["rows"] == [[None, None], [2, "n2"]]
    assert result["statuses"] == [{"row": 0, "status": "CORRUPT"}]


def test_rows_of_a_group_without_a_cache_fill_nothing() -> None:
    pending = missed(1, 2, group="live::uncached")
    stored = [(slot, cells(user, group="live::uncached")) for slot, user in enumerate((1, 2))]
    assert pending.take_rows(stored, NOW_MS) == [None, None]
    assert rows(pending.finish()) == [[1, "n1"], [2, "n2"]]


def test_a_row_that_was_not_asked_for_is_ignored() -> None:
    pending = missed(1)
    assert pending.take_rows([(7, cells(1)), (0, cells(1))], NOW_MS)[0] is None
    assert rows(pending.finish()) == [[1, "n1"]]


def test_what_the_store_cannot_tell_is_unavailable_and_not_a_default() -> None:
    reads = Reads()
    reads.submit(ask(1, 2))
    ((_, pending),) = reads.feed(mget(block_of(1), None))
    assert isinstance(pending, PendingRead)
    pending.take_unavailable(1)
    result = json.loads(pending.finish().partition(b"\r\n\r\n")[2])["results"][0]
    assert result["rows"] == [[1, "n1"], [None, None]]
    assert result["statuses"] == [{"row": 1, "status": "UNAVAILABLE"}]


def test_an_absent_row_is_cached_as_absent_for_a_minute_at_most() -> None:
    reads = Reads()
    reads.submit(ask(1))
    ((_, pending),) = reads.feed(mget(None))
    assert isinstance(pending, PendingRead)
    fill = pending.take_cells(0, [], NOW_MS)
    assert fill is not None
    block, ttl_ms = fill
    assert ttl_ms == 60_000
    reads.submit(ask(1))
    ((_, response),) = reads.feed(mget(block))
    assert b'"MISSING"' in bytes(response)  # type: ignore[call-overload]  # bytes, or it fails


def test_a_fill_lives_no_longer_than_its_oldest_cell() -> None:
    reads = Reads()
    reads.submit(ask(1))
    ((_, pending),) = reads.feed(mget(None))
    assert isinstance(pending, PendingRead)
    fill = pending.take_cells(0, cells(1, age_ms=3_500_000), NOW_MS)
    assert fill is not None
    assert fill[1] == 100_000


def test_a_history_is_filled_whole_and_answered_up_to_the_limit() -> None:
    reads = Reads()
    body = ask(4, group="live::plays")
    body["reads"][0]["limit"] = 1  # type: ignore[index]  # the shape of `ask`
    reads.submit(body)
    ((_, pending),) = reads.feed(mget(None))
    assert isinstance(pending, PendingRead)
    ((slot, key, events, _),) = pending.wanted()
    assert (slot, key, events) == (0, key_of(4, "live::plays"), 5)
    stored = [
        cell
        for age in (0, 10, 20)
        for cell in cells(4, age_ms=age, method="APPEND", group="live::plays")
    ]
    fill = pending.take_cells(0, stored, NOW_MS)
    assert fill is not None
    assert rows(pending.finish()) == [[[NOW_MS, 4, "n4"]]]
    reads.submit(ask(4, group="live::plays"))
    ((_, response),) = reads.feed(mget(fill[0]))
    assert len(rows(response)[0]) == 3  # type: ignore[arg-type]  # a list of events


def test_a_group_without_a_cache_goes_to_the_store_at_once() -> None:
    reads = Reads()
    outcome = reads.submit(ask(1, group="live::uncached"))
    assert isinstance(outcome, PendingRead)
    assert reads.cached.take(0) is None


def test_places_of_many_keys_are_those_of_each() -> None:
    placement = Placement(["a:1", "b:1", "c:1"], epoch=3)
    keys = [key_of(user) for user in range(30)]
    places = placement.places(keys)
    assert places == [
        (placement.node(key), placement.block_key(key), placement.lease_key(key)) for key in keys
    ]
    assert {node for node, *_ in places} == {0, 1, 2}


def test_a_node_that_is_down_leaves_its_rows_to_the_store() -> None:
    reads = Reads("a:1", "b:1")
    reads.cached.drop_node(1)
    users = list(range(40))
    assert reads.submit(ask(*users)) is None
    on_up = [user for user in users if reads.placement.node(key_of(user)) == 0]
    ((_, pending),) = reads.feed(mget(*map(block_of, on_up)))
    assert isinstance(pending, PendingRead)
    left = {slot for slot, *_ in pending.wanted()}
    assert left == set(users) - set(on_up)


def test_several_nodes_answer_one_request_together() -> None:
    reads = Reads("a:1", "b:1", "c:1")
    users = list(range(30))
    reads.submit(ask(*users))
    done: list[tuple[int, object]] = []
    for node in (2, 0, 1):
        held = [user for user in users if reads.placement.node(key_of(user)) == node]
        assert done == []
        done += reads.feed(mget(*map(block_of, held)), node=node)
    ((_, response),) = done
    assert rows(response) == [[user, f"n{user}"] for user in users]


def test_a_lost_connection_gives_every_request_back_once() -> None:
    reads = Reads()
    for token in range(3):
        reads.submit(ask(token), token=token)
    assert reads.cached.command(0, [b"PING"], 99)
    done = reads.cached.drop_node(0)
    assert [token for token, _ in done] == [0, 1, 2, 99]
    assert all(isinstance(value, PendingRead) for token, value in done if token != 99)
    assert reads.cached.drop_node(0) == []
    assert isinstance(reads.submit(ask(1)), PendingRead)


def test_an_error_of_the_node_is_a_miss_of_every_row() -> None:
    reads = Reads()
    reads.submit(ask(1, 2))
    ((_, pending),) = reads.feed(b"-LOADING Redis is loading the dataset in memory\r\n")
    assert isinstance(pending, PendingRead)
    assert len(pending.wanted()) == 2
    assert reads.cached.counters()["errors"] == 1


def test_a_reply_that_is_none_ends_the_connection() -> None:
    reads = Reads()
    reads.submit(ask(1))
    done, broken = reads.cached.feed(0, b"HTTP/1.1 400 Bad Request\r\n", now_ms=NOW_MS)
    assert done == []
    assert broken is not None


def test_commands_of_the_callers_own_are_answered_in_turn() -> None:
    reads = Reads()
    reads.cached.command(0, [b"GET", b"x"], 5)
    reads.submit(ask(1), token=6)
    reads.cached.command(0, [b"EVAL"], 7)
    replies = b"$-1\r\n" + mget(block_of(1)) + b"*3\r\n:1\r\n+OK\r\n-ERR no\r\n"
    done = reads.feed(replies)
    assert done[0] == (5, [None])
    assert done[1][0] == 6
    assert done[2] == (7, [1, b"OK", "ERR no"])


def test_a_row_of_a_newer_catalog_asks_for_it_once() -> None:
    newer = Catalog(
        encode_document(
            CatalogDocument(
                generation=4,
                published_at_ms=NOW_MS,
                groups=(
                    Group(
                        id=1,
                        name="live::users",
                        feature_type="Object",
                        owner="o",
                        keys=KEYS,
                        schemas=(
                            Schema(ordinal=1, fields=(LEVEL, NAME)),
                            Schema(ordinal=2, fields=(LEVEL,)),
                        ),
                    ),
                ),
            )
        )
    )
    command = b'{"feature_name":"live::users","method":"UPDATE","keys":{"user_id":1},"values":%b}'
    values = b'{"level":1,"_last_updated_at_ms":%d}' % NOW_MS
    batch = encode_commands(newer, [command % values], now_ms=NOW_MS)
    stored = [(each.field_id, each.cell) for each in batch.mutations()]
    reads = Reads()
    reads.submit(ask(1))
    ((_, pending),) = reads.feed(mget(None))
    assert isinstance(pending, PendingRead)
    with pytest.raises(StaleCatalog):
        pending.take_cells(0, stored, NOW_MS)
    with pytest.raises(StaleCatalog):
        pending.take_rows([(0, stored)], NOW_MS)


@pytest.mark.parametrize(
    "reply", [mget(None), mget(None, None, None), b"+PONG\r\n", b":1\r\n"], ids=repr
)
def test_a_reply_to_something_else_sends_the_rows_to_the_store_and_ends_the_connection(
    reply: bytes,
) -> None:
    """From then on every reply would be given to the wrong request."""
    reads = Reads()
    reads.submit(ask(1, 2))
    done, broken = reads.cached.feed(0, reply, now_ms=NOW_MS)
    ((_, pending),) = done
    assert isinstance(pending, PendingRead)
    assert broken is not None
    assert "answers nothing we asked" in broken


def test_a_reply_that_nobody_waits_for_ends_the_connection() -> None:
    reads = Reads()
    reads.submit(ask(1))
    reads.feed(mget(None))
    _, broken = reads.cached.feed(0, mget(None), now_ms=NOW_MS)
    assert broken is not None


def test_an_error_of_the_node_is_a_miss_and_keeps_the_connection() -> None:
    reads = Reads()
    reads.submit(ask(1, 2))
    ((_, pending),) = reads.feed(b"-BUSY a script runs\r\n")
    assert isinstance(pending, PendingRead)
    assert reads.cached.counters()["errors"] == 1


def test_a_group_with_a_local_ttl_is_answered_by_the_process_until_it_ends() -> None:
    reads, local = Reads(), "live::local"
    reads.submit(ask(1, 2, group=local))
    reads.feed(mget(block_of(1, group=local), block_of(2, group=local)))
    reads.cached.take(0)
    assert rows(reads.submit(ask(2, 1, group=local))) == [[2, "n2"], [1, "n1"]]
    assert reads.cached.take(0) is None
    assert reads.cached.counters()["local_hits"] == 2
    body = json.dumps(ask(1, group=local)).encode()
    later = NOW_MS + 1_000
    outcome = reads.cached.submit(
        body, caller=1, accept=0, now_ms=later, request_id=b"r", keep_alive=True
    )
    assert outcome is None  # Its time is over: the node is asked again.


def test_what_the_process_holds_of_a_key_can_be_looked_at() -> None:
    reads, local = Reads(), "live::local"
    key = key_of(1, local)
    assert reads.cached.local_block(key) is None
    block = block_of(1, group=local)
    reads.submit(ask(1, group=local))
    reads.feed(mget(block))
    assert reads.cached.local_block(key) == (block, NOW_MS + 1_000)


def test_a_slow_reply_does_not_lengthen_the_local_ttl() -> None:
    """What the node said may be as old as the question (semantics 19)."""
    reads, local = Reads(), "live::local"
    reads.submit(ask(1, group=local))
    reads.cached.feed(0, mget(block_of(1, group=local)), now_ms=NOW_MS + 900)
    body = json.dumps(ask(1, group=local)).encode()
    outcome = reads.cached.submit(
        body, caller=1, accept=0, now_ms=NOW_MS + 1_000, request_id=b"r", keep_alive=True
    )
    assert outcome is None


def test_only_what_the_process_does_not_hold_is_asked_of_the_node() -> None:
    reads, local = Reads(), "live::local"
    reads.submit(ask(1, group=local))
    reads.feed(mget(block_of(1, group=local)))
    reads.cached.take(0)
    reads.submit(ask(5, 1, 6, group=local))
    asked = reads.cached.take(0)
    assert asked is not None
    assert asked.startswith(b"*3\r\n$4\r\nMGET\r\n")
    ((_, response),) = reads.feed(mget(block_of(5, group=local), block_of(6, group=local)))
    assert rows(response) == [[5, "n5"], [1, "n1"], [6, "n6"]]


def test_a_group_without_a_local_ttl_is_never_kept_in_the_process() -> None:
    reads = Reads()
    reads.submit(ask(1))
    reads.feed(mget(block_of(1)))
    assert reads.submit(ask(1)) is None
    assert reads.cached.counters()["local_bytes"] == 0


def _refuses(reads: Reads) -> bool:
    return reads.cached.refuse(b"id", keep_alive=True) is not None


def test_a_few_reads_are_let_in_however_much_they_ask_for() -> None:
    reads = Reads()
    reads.cached.listen(
        flush_soon=lambda: None,
        missed=lambda _turn, _pending: None,
        refusal=(b"before", b"after"),
        least=0,
        least_reads=2,
        unknown=0,
        wait_ms=5,
    )
    reads.submit(ask(1, 2, 3))
    assert not _refuses(reads)
    reads.submit(ask(4), token=2)
    assert _refuses(reads)
    reads.cached.drop_node(0)
    assert not _refuses(reads)


@pytest.mark.parametrize("group", ["live::users", "live::local"])
def test_no_python_object_is_made_for_a_key_a_row_or_a_value(group: str) -> None:
    """Semantics 29, from a cache node and from the process itself: asking allocates the command,
    feeding allocates the response, however many rows there are."""

    def allocated(keys: int) -> tuple[int, int]:
        """Blocks held, and bytes held at the peak beyond command and response, by one read."""
        reads = Reads(local_bytes_max=1 << 20)
        body = json.dumps(ask(*range(keys), group=group)).encode()
        reply = mget(*(block_of(user, group=group) for user in range(keys)))
        blocks, peak = 0, 0
        for _ in range(2):  # The first read fills what is kept between reads.
            gc.collect()
            tracemalloc.start()
            blocks = sys.getallocatedblocks()
            response: object = reads.submit(body)
            command = reads.cached.take(0)
            done = [] if command is None else reads.feed(reply)
            blocks = sys.getallocatedblocks() - blocks
            response = done[0][1] if done else response
            made = sys.getsizeof(response) + sys.getsizeof(command)
            peak = tracemalloc.get_traced_memory()[1] - made
            tracemalloc.stop()
            assert rows(response) == [[user, f"n{user}"] for user in range(keys)]
        return blocks, peak

    small, large = allocated(1), allocated(500)
    assert abs(large[0] - small[0]) <= 2
    assert abs(large[1] - small[1]) <= 512

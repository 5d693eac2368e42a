"""Both clients against a real gateway over LMDB: the same answers, the same errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
import uvloop
from client_callers import KINDS, Caller, caller_of
from gateway_over_lmdb import NOW_MS, ROWS, served, store_gateway

from headrace.client import (
    AsyncClient,
    Command,
    CommandsRefused,
    GroupRead,
    ReadOptions,
    RefusedRequest,
    Status,
)
from headrace.loadtest import feature_data

GROUP, HISTORY, SERVICE = feature_data.OBJECT, feature_data.HISTORY, feature_data.SERVICE


@pytest.fixture
async def port(tmp_path: Path) -> AsyncGenerator[int]:
    gateway = await store_gateway(tmp_path / "online")
    async with served(gateway.app) as given:
        yield given
    gateway.store.close()


@pytest.fixture(params=KINDS)
async def caller(port: int, request: pytest.FixtureRequest) -> AsyncGenerator[Caller]:
    async with caller_of(request.param, port) as made:
        yield made


async def test_rows_come_in_the_order_of_the_keys(caller: Caller) -> None:
    both = await caller.read_group(GROUP, {"user_id": [3, 1, 3]})
    alone = await caller.read_group(GROUP, {"user_id": [1]})
    assert len(both.result.rows) == 3
    assert both.result.rows[0] == both.result.rows[2] != both.result.rows[1]
    assert both.result.rows[1] == alone.result.rows[0]
    assert both.request_id
    assert both.request_id != alone.request_id


async def test_a_missing_row_is_told_from_a_stored_one(caller: Caller) -> None:
    read = await caller.read_group(GROUP, {"user_id": [1, ROWS + 1]}, fields=["long_feature_1"])
    assert read.result.fields == ("long_feature_1",)
    assert read.result.status_column("long_feature_1") == [Status.OK, Status.MISSING]
    assert read.result.value(1, "long_feature_1") == 0
    assert not read.unusable


async def test_null_stands_for_a_missing_row_when_asked_for(caller: Caller) -> None:
    options = ReadOptions(missing="null", event_times=True)
    read = await caller.read_group(GROUP, {"user_id": [1, ROWS + 1]}, options=options)
    assert read.result.rows[1] == [None] * 20
    assert read.result.event_times == (feature_data.EVENT_MS, None)


async def test_a_service_gives_its_results_by_alias(caller: Caller) -> None:
    keys = {"user_id": [1], "peer_id": [2, 3], "history_id": [1]}
    read = await caller.read(SERVICE, keys)
    assert [len(result.rows) for result in read] == [1, 2, 1]
    assert len(read["peer"].rows) == 2

    class Event(msgspec.Struct):
        event_time_ms: int
        long_feature_1: int

    events = read[HISTORY].events(0, Event)
    assert len(events) == 10
    assert events == sorted(events, key=lambda event: -event.event_time_ms)


async def test_several_groups_are_read_at_once(caller: Caller) -> None:
    reads = [GroupRead(GROUP, {"user_id": [1]}), GroupRead(HISTORY, {"user_id": [1]}, limit=2)]
    read = await caller.read_groups(reads)
    assert [result.name for result in read] == [GROUP, HISTORY]
    assert len(read[HISTORY].column("_event_time_ms")[0]) == 2


async def test_numbers_go_to_numpy_as_they_were_stored(caller: Caller) -> None:
    read = await caller.read_group(GROUP, {"user_id": [1, 2, 3]})
    made = read.result.to_numpy("long_feature_1", "double_feature_8", dtype="float64")
    assert made.shape == (3, 2)
    assert made[:, 1].tolist() == read.result.column("double_feature_8")


async def test_an_arrow_table_holds_what_the_rows_hold(caller: Caller) -> None:
    keys = {"user_id": [1, 2, ROWS + 1]}
    rows = (await caller.read_group(GROUP, keys)).result
    table = await caller.read_groups_arrow([GroupRead(GROUP, keys)])
    assert table.column("user_id").to_pylist() == keys["user_id"]
    for field in rows.fields:
        assert table.column(field).to_pylist() == rows.column(field)
    assert table.column("_status").to_pylist() == ["OK", "OK", "MISSING"]


async def test_a_service_is_one_arrow_table(caller: Caller) -> None:
    table = await caller.read_arrow(SERVICE, {"user_id": [1], "peer_id": [2, 3], "history_id": [1]})
    assert table.num_rows == 2
    assert table.schema.field("peer.long_feature_1").type == pa.int64()
    assert len(set(table.column(f"{GROUP}.long_feature_1").to_pylist())) == 1


async def test_a_mistake_in_an_arrow_read_is_the_same_error(caller: Caller) -> None:
    with pytest.raises(RefusedRequest, match="UNKNOWN_SERVICE"):
        await caller.read_arrow("no-such-v1", {"user_id": [1]})


async def test_a_callers_mistake_is_named_with_the_nearest_valid_name(caller: Caller) -> None:
    with pytest.raises(RefusedRequest) as caught:
        await caller.read_group("load::recod-v1", {"user_id": [1]})
    error = caught.value
    assert (error.status, error.code, error.nearest) == (404, "UNKNOWN_GROUP", GROUP)
    assert error.request_id


async def test_commands_are_appended_and_the_refused_ones_named(caller: Caller) -> None:
    good = Command.update(GROUP, {"user_id": 1}, {"long_feature_1": 5}, event_time_ms=NOW_MS)
    bad = Command.update(GROUP, {"user_id": 1}, {"no_such": 5}, event_time_ms=NOW_MS)
    sent = await caller.send([good])
    assert [place.index for place in sent.check().appended] == [0]
    mixed = await caller.send([good, bad, good])
    assert [place.index for place in mixed.appended] == [0, 2]
    with pytest.raises(CommandsRefused, match="command 1 was refused: UNKNOWN_FIELD"):
        mixed.check()


@pytest.mark.parametrize("kind", KINDS)
async def test_many_calls_share_a_bounded_number_of_connections(port: int, kind: str) -> None:
    async with caller_of(kind, port, connections_max=3) as caller:
        reads = await asyncio.gather(
            *(caller.read_group(GROUP, {"user_id": [user_id]}) for user_id in range(40))
        )
        alone = [await caller.read_group(GROUP, {"user_id": [user_id]}) for user_id in range(40)]
    assert [read.result.rows for read in reads] == [read.result.rows for read in alone]


def test_the_asynchronous_client_runs_on_uvloop(tmp_path: Path) -> None:
    async def read_one() -> int:
        gateway = await store_gateway(tmp_path / "online")
        async with (
            served(gateway.app) as port,
            AsyncClient(f"http://127.0.0.1:{port}", deadline_ms=10_000) as client,
        ):
            first = await client.read_group(GROUP, {"user_id": [1]})
            second = await client.read_group(GROUP, {"user_id": [1]})
        gateway.store.close()
        assert first.result == second.result
        return len(first.result.rows)

    assert uvloop.run(read_one()) == 1

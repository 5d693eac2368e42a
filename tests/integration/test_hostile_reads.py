"""Hostile bodies of `/v1/read` over real sockets: 400 or 413, never 5xx, and the same both ways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio
from gateway_over_lmdb import served, store_gateway
from running_gateway import Connection, post

from headrace.loadtest.feature_data import OBJECT

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def port(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[int]:
    gateway = await store_gateway(tmp_path_factory.mktemp("hostile") / "online")
    async with served(gateway.app) as port:
        yield port


async def connect(port: int) -> Connection:
    return Connection(*await asyncio.open_connection("127.0.0.1", port, limit=2**22))


def read(keys: bytes, more: bytes = b"") -> bytes:
    return b'{"reads":[{"feature_group":"%b","keys":%b}]%b}' % (OBJECT.encode(), keys, more)


HOSTILE = {
    "nothing": b"",
    "not JSON": b"reads",
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "cut": read(b'{"user_id":[1]}')[:-3],
    "two values": read(b'{"user_id":[1]}') * 2,
    "deep lists": b"[" * 500_000,
    "deep objects": b'{"reads":' * 100_000,
    "deep in a key": read(b'{"user_id":' + b"[" * 200_000 + b"]" * 200_000 + b"}"),
    "not UTF-8": read(b'{"user_id":["\xff\xfe"]}'),
    "overlong UTF-8": read(b'{"user_id":["\xc0\xaf"]}'),
    "UTF-16": '{"reads":[]}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + read(b'{"user_id":[1]}'),
    "lone surrogate": read(b'{"user_id":["\\ud800"]}'),
    "bad escape": read(b'{"user_id":["\\x"]}'),
    "control character": read(b'{"user_id":["\x01"]}'),
    "ten thousand digits": read(b'{"user_id":[' + b"9" * 10_000 + b"]}"),
    "huge exponent": read(b'{"user_id":[1e999999]}'),
    "beyond Long": read(b'{"user_id":[9223372036854775808]}'),
    "a fraction": read(b'{"user_id":[1001.0]}'),
    "a number as text": read(b'{"user_id":["1001"]}'),
    "a boolean key": read(b'{"user_id":[true]}'),
    "a null key": read(b'{"user_id":[null]}'),
    "a nested key": read(b'{"user_id":[[1]]}'),
    "keys no list": read(b'{"user_id":1}'),
    "no keys": read(b"{}"),
    "another key": read(b'{"user":[1]}'),
    "an extra key": read(b'{"user_id":[1],"room":[1]}'),
    "duplicate key column": read(b'{"user_id":[1],"user_id":[2]}'),
    "duplicate reads": b'{"reads":[],"reads":[]}',
    "duplicate by escape": b'{"reads":[],"\\u0072eads":[]}',
    "unknown member": read(b'{"user_id":[1]}', b',"nothing":1'),
    "unknown layout": read(b'{"user_id":[1]}', b',"layout":"diagonal"'),
    "strict as text": read(b'{"user_id":[1]}', b',"strict":"yes"'),
    "deadline of nothing": read(b'{"user_id":[1]}', b',"deadline_ms":0'),
    "no reads": b'{"reads":[]}',
    "too many reads": b'{"reads":[' + b",".join([read(b'{"user_id":[1]}')[10:-2]] * 65) + b"]}",
    "too many keys": read(b'{"user_id":[' + b",".join([b"1"] * 1001) + b"]}"),
    "reads and service": b'{"reads":[],"service":"load-ranker-v1","keys":{}}',
    "limit on an Object": read(b'{"user_id":[1]}')[:-2] + b',"limit":5}]}',
    "a name of a megabyte": b'{"reads":[{"feature_group":"' + b"x" * 1_000_000 + b'","keys":{}}]}',
    "a million members": b"{" + b",".join(b'"%d":1' % n for n in range(90_000)) + b"}",
    "trailing comma": read(b'{"user_id":[1,]}'),
    "NaN": read(b'{"user_id":[NaN]}'),
    "comment": b"/* */" + read(b'{"user_id":[1]}'),
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
async def test_a_hostile_body_is_the_callers_mistake_both_ways(port: int, body: bytes) -> None:
    lane, twin = await connect(port), await connect(port)
    first = await lane.exchange(post(body, "x-request-id: r"))
    second = await twin.exchange(post(body, "x-request-id: r", "content-encoding: identity"))
    assert first.status in {400, 404}
    assert first.headers["content-type"] == "application/problem+json"
    assert first.json()["code"]
    assert len(first.body) < 2_000
    assert first.raw == second.raw
    lane.close()
    twin.close()


async def test_a_body_over_a_mebibyte_is_413_and_the_next_request_is_answered(port: int) -> None:
    connection = await connect(port)
    refused = await connection.exchange(post(b" " * ((1 << 20) + 1)))
    assert (refused.status, refused.json()["code"]) == (413, "BODY_TOO_LARGE")
    connection.close()
    again = await connect(port)
    assert (await again.exchange(post(read(b'{"user_id":[1]}')))).status == 200
    again.close()


GOOD = {
    "one key": read(b'{"user_id":[1]}'),
    "many keys, some missing": read(b'{"user_id":[1,2,99999,3,1]}'),
    "columns": read(b'{"user_id":[1,2]}', b',"layout":"columns","event_times":true'),
    "text integers": read(b'{"user_id":[1,2]}', b',"int64_as_text":true,"missing":"null"'),
    "a thousand keys": read(b'{"user_id":[' + b",".join(b"%d" % n for n in range(1000)) + b"]}"),
    "a service": (
        b'{"service":"load-ranker-v1","keys":{"user_id":[1],"peer_id":[2,3],"history_id":[1]}}'
    ),
}


@pytest.mark.parametrize(
    "accept",
    ["application/json", "application/vnd.headrace.avro", "application/vnd.apache.arrow.stream"],
)
@pytest.mark.parametrize("body", GOOD.values(), ids=GOOD)
@pytest.mark.parametrize("coding", ["identity", "gzip", "zstd"])
async def test_the_lane_and_its_twin_make_equal_bytes(
    port: int, body: bytes, accept: str, coding: str
) -> None:
    lane, twin = await connect(port), await connect(port)
    headers = ("x-request-id: r", f"accept: {accept}", f"accept-encoding: {coding}")
    first = await lane.exchange(post(body, *headers))
    second = await twin.exchange(post(body, *headers, "content-encoding: identity"))
    assert first.status == second.status
    assert first.raw == second.raw
    lane.close()
    twin.close()

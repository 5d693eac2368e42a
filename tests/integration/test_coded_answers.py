"""Coded answers over real sockets: pipelined in any mix, each decodes to the plain answer."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncGenerator
from typing import Any

import pyarrow as pa
import pytest
import pytest_asyncio
from gateway_over_lmdb import served, store_gateway
from running_gateway import Answer, Connection, post

from headrace.loadtest.feature_data import OBJECT

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEYS = b",".join(b"%d" % user for user in range(1, 301))
BODY = b'{"reads":[{"feature_group":"%b","keys":{"user_id":[%b]}}]}' % (OBJECT.encode(), KEYS)
SMALL = b'{"reads":[{"feature_group":"%b","keys":{"user_id":[1]}}]}' % OBJECT.encode()
MEDIA_TYPES = {
    "json": "application/json",
    "avro": "application/vnd.headrace.avro",
    "arrow": "application/vnd.apache.arrow.stream",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def port(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[int]:
    gateway = await store_gateway(tmp_path_factory.mktemp("coded") / "online")
    async with served(gateway.app) as port:
        yield port


@pytest_asyncio.fixture(loop_scope="module")
async def connection(port: int) -> AsyncGenerator[Connection]:
    connection = Connection(*await asyncio.open_connection("127.0.0.1", port, limit=2**22))
    yield connection
    connection.close()


def request(body: bytes, media_type: str, *headers: str) -> bytes:
    return post(body, "x-request-id: same", f"accept: {media_type}", *headers)


def decoded(answer: Answer) -> bytes:
    coding = answer.headers.get("content-encoding")
    if coding == "gzip":
        return gzip.decompress(answer.body)
    if coding == "zstd":
        stream: Any = pa.CompressedInputStream(pa.BufferReader(answer.body), "zstd")
        return bytes(stream.read())
    assert coding is None
    return answer.body


@pytest.mark.parametrize("media_type", MEDIA_TYPES.values(), ids=MEDIA_TYPES)
async def test_pipelined_answers_of_every_coding_decode_to_the_plain_one(
    connection: Connection, media_type: str
) -> None:
    plain = await connection.exchange(request(BODY, media_type))
    codings = ["gzip", "zstd", "identity", "zstd", "gzip", "gzip"] * 5
    connection.send(*(request(BODY, media_type, f"accept-encoding: {c}") for c in codings))
    for coding in codings:
        answer = await connection.answer()
        assert answer.headers.get("content-encoding", "identity") == coding
        assert answer.headers["vary"] == "accept, accept-encoding"
        assert int(answer.headers["content-length"]) == len(answer.body)
        assert decoded(answer) == plain.body
        assert coding == "identity" or len(answer.body) < 0.8 * len(plain.body)


async def test_a_short_answer_is_not_coded(connection: Connection) -> None:
    answer = await connection.exchange(request(SMALL, MEDIA_TYPES["json"], "accept-encoding: zstd"))
    assert len(answer.body) < 1_400
    assert "content-encoding" not in answer.headers
    assert answer.body.startswith(b'{"generation":')


async def test_a_problem_is_not_coded_and_does_not_vary(connection: Connection) -> None:
    wrong = b'{"reads":[],"%b":1}' % (b"x" * 3_000)
    answer = await connection.exchange(request(wrong, "*/*", "accept-encoding: zstd"))
    assert answer.status == 400
    assert "content-encoding" not in answer.headers
    assert "vary" not in answer.headers


async def test_what_a_library_sends_by_itself_costs_the_server_nothing(
    connection: Connection,
) -> None:
    header = "accept-encoding: gzip, deflate, br, zstd"
    answer = await connection.exchange(request(BODY, "*/*", header))
    assert "content-encoding" not in answer.headers


FORBIDDEN = ("identity;q=0", "*;q=0", "identity;q=0, zstd;q=0", "identity;q=0, br")


@pytest.mark.parametrize("header", FORBIDDEN)
@pytest.mark.parametrize("how", [(), ("content-encoding: identity",)], ids=["lane", "twin"])
async def test_a_caller_who_takes_no_coding_that_there_is_gets_a_problem(
    connection: Connection, header: str, how: tuple[str, ...]
) -> None:
    """RFC 9110, 12.5.3. What follows on the connection is answered as ever."""
    asked = request(BODY, "*/*", f"accept-encoding: {header}", *how)
    connection.send(asked, request(SMALL, "*/*"), asked)
    statuses = [await connection.answer() for _ in range(3)]
    assert [answer.status for answer in statuses] == [406, 200, 406]
    for refused in (statuses[0], statuses[2]):
        assert refused.json()["code"] == "NOT_ACCEPTABLE"
        assert "`identity`" in str(refused.json()["detail"])
        assert "content-encoding" not in refused.headers


async def test_a_caller_who_rules_out_only_the_plain_answer_gets_a_coded_one(
    connection: Connection,
) -> None:
    header = "accept-encoding: gzip, deflate, identity;q=0"
    answer = await connection.exchange(request(BODY, "*/*", header))
    assert answer.headers["content-encoding"] == "gzip"
    assert decoded(answer) == (await connection.exchange(request(BODY, "*/*"))).body

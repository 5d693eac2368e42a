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

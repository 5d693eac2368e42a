"""A feature gateway with Litestar done plainly: msgspec structs in and out."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Litestar, post
from litestar.exceptions import NotFoundException

from headrace.loadtest.peers.programs.plain_rows import PlainRows


class Read(msgspec.Struct):
    """Rows of one group."""

    feature_group: str
    keys: dict[str, list[int]]
    limit: int = 100


class ReadRequest(msgspec.Struct):
    """Several reads at once."""

    reads: list[Read]


class Result(msgspec.Struct):
    """One read's answer: every row as a dict by field name; null where there is none."""

    feature_group: str
    rows: list[Any]


class ReadAnswer(msgspec.Struct):
    """An answer a read."""

    results: list[Result]


rows = PlainRows.from_environment()


@post("/v1/read", status_code=200)
async def read_features(data: ReadRequest) -> ReadAnswer:
    """The rows of every read."""
    return ReadAnswer([await result_of(read) for read in data.reads])


async def result_of(read: Read) -> Result:
    """One read's answer."""
    if not rows.knows(read.feature_group):
        raise NotFoundException(f"no feature group {read.feature_group}")
    found = await rows.read(read.feature_group, read.keys["user_id"])
    if rows.is_history(read.feature_group):
        found = [events and events[: read.limit] for events in found]
    return Result(read.feature_group, found)


app = Litestar([read_features])

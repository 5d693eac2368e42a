"""FastAPI with what its users learn later: orjson bytes past the encoder, field names once, and the
collector frozen. It gives the very answer Headrace gives, names once and rows as lists.
"""
# FastAPI is in its own environment only, so no checker of ours can see its types.
# pyright: reportMissingImports=false, reportUntypedBaseClass=false
# pyright: reportUntypedFunctionDecorator=false, reportUnknownParameterType=false

from __future__ import annotations

import gc
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from fastapi import FastAPI, HTTPException, Request, Response

from headrace.loadtest.peers.programs.plain_rows import PlainRows

rows = PlainRows.from_environment()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    """Nothing made at start will ever be garbage: do not look at it again."""
    gc.collect()
    gc.freeze()
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/v1/read")
async def read_features(request: Request) -> Response:
    """Rows as lists of values in field order; nulls and a status where there is no row."""
    asked = orjson.loads(await request.body())
    results = [await result_of(read) for read in asked["reads"]]
    return Response(orjson.dumps({"results": results}), media_type="application/json")


async def result_of(read: dict[str, Any]) -> dict[str, Any]:
    """One read's answer."""
    group = read["feature_group"]
    if not rows.knows(group):
        raise HTTPException(404, f"no feature group {group}")
    found, fields = await rows.read(group, read["keys"]["user_id"]), rows.fields(group)
    values: list[Any] = []
    for row in found:
        if rows.is_history(group):
            values.append([list(event.values()) for event in (row or [])[: read.get("limit", 100)]])
        else:
            values.append([None] * len(fields) if row is None else list(row.values()))
    statuses = [{"row": at, "status": "MISSING"} for at, row in enumerate(found) if row is None]
    return {"feature_group": group, "fields": fields, "rows": values, "statuses": statuses}

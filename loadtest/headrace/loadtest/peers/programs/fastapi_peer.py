"""A feature gateway with FastAPI as its tutorial has it: a pydantic model in, a dict out."""
# FastAPI is in its own environment only, so no checker of ours can see its types.
# pyright: reportMissingImports=false, reportUntypedBaseClass=false
# pyright: reportUntypedFunctionDecorator=false, reportUnknownParameterType=false

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from headrace.loadtest.peers.programs.plain_rows import PlainRows


class Read(BaseModel):
    """Rows of one group."""

    feature_group: str
    keys: dict[str, list[int]]
    limit: int = 100


class ReadRequest(BaseModel):
    """Several reads at once."""

    reads: list[Read]


app = FastAPI()
rows = PlainRows.from_environment()


@app.post("/v1/read", response_model=None)
async def read_features(request: ReadRequest) -> dict[str, Any]:
    """Every row as a dict by field name; null where there is none."""
    return {"results": [await result_of(read) for read in request.reads]}


async def result_of(read: Read) -> dict[str, Any]:
    """One read's answer."""
    if not rows.knows(read.feature_group):
        raise HTTPException(404, f"no feature group {read.feature_group}")
    found = await rows.read(read.feature_group, read.keys["user_id"])
    if rows.is_history(read.feature_group):
        found = [events and events[: read.limit] for events in found]
    return {"feature_group": read.feature_group, "rows": found}

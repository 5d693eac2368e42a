"""How each kind of server is asked for rows, and what its answer says: the part that makes peers
comparable. A new peer that speaks one of these needs no code here.
"""

from __future__ import annotations

import io
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NamedTuple

from fastavro import parse_schema, schemaless_reader

from headrace.loadtest.feature_data import EVENTS, HISTORY
from headrace.loadtest.peers.rows import Values, feast_view, record_schema, types_of

JSON_TYPE = "application/json"
AVRO_TYPE = "application/vnd.headrace.avro"
TRIES = 5
ENVELOPE_PATH = "/v1/schemas/read-response"


class Ask(NamedTuple):
    """Whole rows of one group."""

    group: str
    user_ids: list[int]
    some_absent: bool = False
    """Whether keys without a row are among them: nulls are then wanted in place of defaults."""
    deadline_ms: int | None = None
    """For ours; other servers know of no such thing."""


class Adapter(NamedTuple):
    """Path and headers of a request, its body, and the rows that an answer holds.

    Rows come in the order asked for; one that is absent is None. `rows` also gets the port, for an
    answer that needs a schema from the server.
    """

    path: str
    body: Callable[[Ask], bytes]
    rows: Callable[[Ask, bytes, int], list[Values | None]]
    accept: str = JSON_TYPE


def post(port: int, adapter: Adapter, body: bytes, *, timeout_s: float = 30.0) -> bytes:
    """One request on a connection of its own, again when the server was short of something.

    Raises `OSError` for any other status than 200.
    """
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{adapter.path}",
        data=body,
        headers={"Content-Type": JSON_TYPE, "Accept": adapter.accept},
    )
    for tries_left in reversed(range(TRIES)):
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as response:
                answer: bytes = response.read()
            return answer
        except urllib.error.HTTPError as error:
            with error:
                if error.code != HTTPStatus.SERVICE_UNAVAILABLE or not tries_left:
                    raise
    raise AssertionError("the last try returns or raises")


def read_body(ask: Ask) -> bytes:
    """Our request, which the plain peers take too."""
    read: dict[str, Any] = {"feature_group": ask.group, "keys": {"user_id": ask.user_ids}}
    if ask.group == HISTORY:
        read["limit"] = EVENTS
    request: dict[str, Any] = {"reads": [read]}
    if ask.some_absent:
        request["missing"] = "null"
    if ask.deadline_ms is not None:
        request["deadline_ms"] = ask.deadline_ms
    return _json(request)


def rows_of_lists(ask: Ask, answer: bytes, _: int) -> list[Values | None]:
    """Names once, rows as lists: our JSON."""
    (result,) = json.loads(answer)["results"]
    expected = list(types_of(ask.group))
    names = [name for name in result["fields"] if not name.startswith("_")]
    if names != expected:
        raise ValueError(f"fields {names} where {expected} were asked for")
    missing = {each["row"] for each in result["statuses"] if each["status"] == "MISSING"}
    if any(value is not None for at in missing for value in result["rows"][at]):
        raise ValueError("a row is said to be missing and has values")
    return [None if at in missing else row for at, row in enumerate(result["rows"])]


def rows_of_dicts(ask: Ask, answer: bytes, _: int) -> list[Values | None]:
    """Every row an object by field name."""
    (result,) = json.loads(answer)["results"]
    if ask.group == HISTORY:
        names = ["_event_time_ms", *types_of(ask.group)]
        return [
            events and [[event[name] for name in names] for event in events]
            for events in result["rows"]
        ]
    names = list(types_of(ask.group))
    return [row and [row[name] for name in names] for row in result["rows"]]


def rows_of_avro(ask: Ask, answer: bytes, port: int) -> list[Values | None]:
    """Our Avro envelope, by fastavro and the schema that the server gives."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{ENVELOPE_PATH}", timeout=5) as response:
        envelope = parse_schema(json.load(response))
    decoded: Any = schemaless_reader(io.BytesIO(answer), envelope, None)
    row_schema = parse_schema(record_schema(ask.group))

    def values(record: dict[str, Any]) -> Values:
        row: Any = schemaless_reader(io.BytesIO(record["body"]), row_schema, None)
        return list(row.values())

    return [
        [[event["event_time_ms"], *values(event)] for event in row]
        if isinstance(row, list)
        else row and values(row)
        for row in decoded["results"][0]["rows"]
    ]


def feast_body(ask: Ask) -> bytes:
    """Feast's request, each feature by its full reference."""
    view = feast_view(ask.group)
    features = [f"{view}:{name}" for name in types_of(ask.group)]
    return _json({"features": features, "entities": {"user_id": ask.user_ids}})


def feast_rows(ask: Ask, answer: bytes, _: int) -> list[Values | None]:
    """Feast's columns as rows.

    Its Redis store answers nulls for a key without a row, and does not always say NOT_FOUND; no
    row of ours holds nulls only.
    """
    told = json.loads(answer)
    by_name = dict(zip(told["metadata"]["feature_names"], told["results"], strict=True))
    columns = [by_name[name]["values"] for name in types_of(ask.group)]
    rows = [list(row) for row in zip(*columns, strict=True)]
    return [None if all(value is None for value in row) else row for row in rows]


HEADRACE_JSON = Adapter("/v1/read", read_body, rows_of_lists)
HEADRACE_AVRO = Adapter("/v1/read", read_body, rows_of_avro, AVRO_TYPE)
PLAIN_DICTS = Adapter("/v1/read", read_body, rows_of_dicts)
FEAST_JSON = Adapter("/get-online-features", feast_body, feast_rows)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()

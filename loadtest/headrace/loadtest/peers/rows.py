"""The rows that every peer serves: the load data of `feature_data`.

Each peer gets the same commands: ours through the writer's codec, Feast through its own writing
call, the others as Avro bodies that fastavro made. So the commands are the truth that all answers
are checked against.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import redis
from fastavro import parse_schema, schemaless_writer

from headrace.loadtest import feature_data
from headrace.loadtest.feature_data import HISTORY, OBJECT, WIDE, WIDE_TYPES
from headrace.registry.catalog import CachePolicy, CatalogDocument

AVRO_TYPES = {"Long": "long", "Double": "double", "Text": "string", "Boolean": "boolean"}
EVENT_TIME = "_event_time_ms"
PIPELINED_ROWS = 1_000
CACHE_TTL_MS = 86_400_000

Values = list[Any]
"""A row: its values in field order, or a list of events, each its event time and its values."""


class Size(NamedTuple):
    """Rows of each group."""

    objects: int = feature_data.ROWS
    wide: int = feature_data.WIDE_ROWS
    histories: int = feature_data.HISTORIES

    def of(self, group: str) -> int:
        """Rows of one group; their keys are the numbers below."""
        return {OBJECT: self.objects, WIDE: self.wide, HISTORY: self.histories}[group]


def catalog_document() -> CatalogDocument:
    """The load data's groups, cached for longer than a run takes."""
    document = feature_data.with_wide_group(feature_data.catalog_document())
    kept = CachePolicy(ttl_ms=CACHE_TTL_MS)
    groups = tuple(msgspec.structs.replace(group, cache=kept) for group in document.groups)
    return msgspec.structs.replace(document, groups=groups)


def types_of(group: str) -> dict[str, str]:
    """Field names in schema order, with their types."""
    types = {
        OBJECT: feature_data.RECORD_TYPES,
        WIDE: WIDE_TYPES,
        HISTORY: feature_data.EVENT_TYPES,
    }[group]
    return {field.name: field.type for field in feature_data.fields(types)}


def commands(size: Size) -> Iterator[bytes]:
    """Every command, the same on each run."""
    yield from feature_data.sample(rows=size.objects, histories=size.histories)
    yield from feature_data.wide_sample(size.wide)


def truth(made: Iterable[bytes]) -> dict[str, dict[int, Values]]:
    """What the commands leave, by group and key; events newest first."""
    rows: dict[str, dict[int, Values]] = {OBJECT: {}, WIDE: {}, HISTORY: {}}
    for text in made:
        command = json.loads(text)
        group, user_id = command["feature_name"], command["keys"]["user_id"]
        at_ms = command["values"].pop("_last_updated_at_ms")
        values = [command["values"][name] for name in types_of(group)]
        if group == HISTORY:
            rows[group].setdefault(user_id, []).insert(0, [at_ms, *values])
        else:
            rows[group][user_id] = values
    return rows


def plain_settings(redis_port: int) -> dict[str, Any]:
    """What `plain_rows` is told."""
    return {
        "redis": f"redis://127.0.0.1:{redis_port}/0",
        "groups": {
            group: {
                "prefix": _plain_prefix(group),
                "schema": avro_schema(group),
                "fields": list(types_of(group)),
                "history": group == HISTORY,
            }
            for group in (OBJECT, WIDE, HISTORY)
        },
    }


def record_schema(group: str) -> dict[str, Any]:
    """The Avro record of a row's, or an event's, values."""
    fields = [{"name": name, "type": AVRO_TYPES[kind]} for name, kind in types_of(group).items()]
    return {"type": "record", "name": "Row", "fields": fields}


def avro_schema(group: str) -> dict[str, Any]:
    """The schema of one body: a record, or the array of a History's events with their times."""
    record = record_schema(group)
    if group != HISTORY:
        return record
    record["fields"].insert(0, {"name": EVENT_TIME, "type": "long"})
    return {"type": "array", "items": record}


def write_plain_rows(rows: dict[str, dict[int, Values]], redis_port: int) -> None:
    """Every row as one Avro body under one key, for the peers that read such."""
    with redis.Redis(port=redis_port) as client:
        for group, members in rows.items():
            schema = parse_schema(avro_schema(group))
            pipeline = client.pipeline(transaction=False)
            for number, (user_id, values) in enumerate(members.items(), 1):
                pipeline.set(f"{_plain_prefix(group)}{user_id}", _body(schema, group, values))
                if number % PIPELINED_ROWS == 0:
                    pipeline.execute()
            pipeline.execute()


def write_feast_rows(rows: dict[str, dict[int, Values]], folder: Path) -> list[dict[str, Any]]:
    """The Objects as files that `feast_repo` reads, and its views over them."""
    folder.mkdir(parents=True, exist_ok=True)
    views: list[dict[str, Any]] = []
    for group in (OBJECT, WIDE):
        name, path = feast_view(group), folder / f"{feast_view(group)}.ndjson"
        with path.open("w") as file:
            for user_id, values in rows[group].items():
                row = dict(zip(types_of(group), values, strict=True))
                row |= {"user_id": user_id, "event_time_ms": feature_data.EVENT_MS}
                file.write(json.dumps(row) + "\n")
        views.append({"name": name, "fields": types_of(group), "rows": str(path)})
    return views


def feast_view(group: str) -> str:
    """Feast's name for a group."""
    return group.partition("::")[2].replace("-", "_")


def _plain_prefix(group: str) -> str:
    return f"plain:{group.partition('::')[2]}:"


def _body(schema: Any, group: str, values: Values) -> bytes:
    names = list(types_of(group))
    if group == HISTORY:
        names = [EVENT_TIME, *names]
        record: Any = [dict(zip(names, event, strict=True)) for event in values]
    else:
        record = dict(zip(names, values, strict=True))
    buffer = io.BytesIO()
    schemaless_writer(buffer, schema, record)
    return buffer.getvalue()

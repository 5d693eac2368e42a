"""Rows of the offline store as bulk commands."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import cast

import msgspec

from headrace.codec import Catalog
from headrace.registry.catalog import Group
from headrace.sync.offline.types import EVENT_TIME, Rows

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def command_encoder(catalog: Catalog) -> Callable[[Group, Rows], list[tuple[bytes, bytes]]]:
    """Encode under one generation: (partition key, command bytes), one a row."""

    def encode(group: Group, rows: Rows) -> list[tuple[bytes, bytes]]:
        return [_command(catalog, group, row) for row in rows.to_pylist()]

    return encode


def _command(catalog: Catalog, group: Group, row: dict[str, object]) -> tuple[bytes, bytes]:
    keys = {key.name: row[key.name] for key in group.keys}
    event_time = cast("datetime", row[EVENT_TIME])
    values: dict[str, object] = {field.name: row[field.name] for field in group.fields}
    values["_last_updated_at_ms"] = (event_time - _EPOCH) // timedelta(milliseconds=1)
    method = "APPEND" if group.feature_type == "History" else "UPDATE"
    command = {"feature_name": group.name, "method": method, "keys": keys, "values": values}
    return catalog.encode_key(group.name, keys), msgspec.json.encode(command)

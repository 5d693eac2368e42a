"""Rows as Avro bodies under plain Redis keys, read with redis-py (hiredis) and fastavro.

The settings are a JSON file named by `PEER_SETTINGS`: the URL of Redis, and for each feature group
its key prefix, its Avro schema, its field names and whether it is a History.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import redis.asyncio
from fastavro import parse_schema, schemaless_reader


class PlainRows:
    """Every group of the settings, over one pool of connections."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._redis = redis.asyncio.Redis.from_url(settings["redis"])
        self._groups: dict[str, dict[str, Any]] = settings["groups"]
        self._schemas = {
            name: parse_schema(group["schema"]) for name, group in self._groups.items()
        }

    @classmethod
    def from_environment(cls) -> PlainRows:
        """As the file that `PEER_SETTINGS` names says."""
        return cls(json.loads(Path(os.environ["PEER_SETTINGS"]).read_text()))

    def knows(self, group: str) -> bool:
        """Whether there is such a group."""
        return group in self._groups

    def fields(self, group: str) -> list[str]:
        """Its field names, in the order of its schema."""
        fields: list[str] = self._groups[group]["fields"]
        return fields

    def is_history(self, group: str) -> bool:
        """Whether its rows are lists of events."""
        history: bool = self._groups[group]["history"]
        return history

    async def read(self, group: str, user_ids: list[int]) -> list[Any]:
        """A row a key: a dict, the list of a History's events, or None where there is none."""
        prefix, schema = self._groups[group]["prefix"], self._schemas[group]
        bodies: list[Any] = await self._redis.mget([f"{prefix}{user_id}" for user_id in user_ids])
        return [
            None if body is None else schemaless_reader(io.BytesIO(body), schema, None)
            for body in bodies
        ]

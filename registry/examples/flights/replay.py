"""Turns the last day of flights and weather into real-time commands.

Legs keep their event times: upsync sends the same events, and an event is known by its content, so
the one that comes second changes nothing. Reports on airports are shifted by whole minutes, so that
the last of each producer ends at the run's start: `flights::airport-now` expires and grows stale.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

HERE = Path(__file__).parent
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE_MS = 60_000
EVENT_TIME = "_event_time"


class Producer(NamedTuple):
    """Rows of one query, as commands on one group."""

    group: str
    method: str
    key: str
    query: Path
    is_shifted: bool


PRODUCERS = {
    "legs": Producer(
        "flights::plane-history",
        "APPEND",
        "tailnum",
        HERE / "transforms" / "plane-history.sql",
        is_shifted=False,
    ),
    **{
        name: Producer(
            "flights::airport-now",
            "UPDATE",
            "airport",
            HERE / "producers" / f"{name}.sql",
            is_shifted=True,
        )
        for name in ("weather", "departures", "arrivals")
    },
}


def write_commands(sources: Path, target: Path, now_ms: int) -> dict[str, int]:
    """Write one command a line to `target`, oldest first; returns how many each producer made."""
    commands: list[tuple[int, str]] = []
    counts: dict[str, int] = {}
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET VARIABLE sources = $folder", {"folder": str(sources)})
        connection.execute((HERE / "transforms" / "sources.sql").read_text(encoding="utf-8"))
        for name, producer in PRODUCERS.items():
            made = _commands(_last_day(connection, producer), producer, now_ms)
            counts[name] = len(made)
            commands += made
    commands.sort(key=lambda command: command[0])
    target.write_text("".join(f"{text}\n" for _, text in commands), encoding="utf-8")
    return counts


def _last_day(connection: duckdb.DuckDBPyConnection, producer: Producer) -> list[dict[str, Any]]:
    query = producer.query.read_text(encoding="utf-8")
    connection.execute(f"CREATE OR REPLACE TEMP VIEW made AS {query}")
    connection.execute(
        "FROM made WHERE _event_time > (SELECT max(_event_time) FROM made) - INTERVAL 24 HOURS "
        "ORDER BY ALL"
    )
    names = [column[0] for column in connection.description or ()]
    return [dict(zip(names, row, strict=True)) for row in connection.fetchall()]


def _commands(rows: list[dict[str, Any]], producer: Producer, now_ms: int) -> list[tuple[int, str]]:
    times = [(row.pop(EVENT_TIME) - EPOCH) // timedelta(milliseconds=1) for row in rows]
    behind_ms = now_ms - max(times) if producer.is_shifted else 0
    shift_ms = behind_ms // MINUTE_MS * MINUTE_MS
    commands: list[tuple[int, str]] = []
    for event_time_ms, row in zip(times, rows, strict=True):
        key = row.pop(producer.key)
        at_ms = event_time_ms + shift_ms
        command = {
            "feature_name": producer.group,
            "method": producer.method,
            "keys": {producer.key: key},
            "values": {**row, "_last_updated_at_ms": at_ms},
        }
        commands.append((at_ms, json.dumps(command)))
    return commands

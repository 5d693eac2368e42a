"""`headrace get`: one row as the online store holds it, each value with its status."""

from __future__ import annotations

import asyncio
import math
import struct
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from headrace.cli.options import json_option, print_json, with_settings
from headrace.registry.settings import Settings

if TYPE_CHECKING:
    from headrace.gateway.ports import Inspection
    from headrace.registry.catalog import Group

EXIT_MISSING: Final = 1


@click.command()
@click.argument("group")
@click.argument("keys", nargs=-1, required=True, metavar="KEY=VALUE...")
@click.option("--limit", type=click.IntRange(min=1), help="Most events of a History.")
@json_option
@with_settings("online")
def command(
    group: str, keys: tuple[str, ...], limit: int | None, as_json: bool, settings: Settings
) -> int:
    """Print the row of GROUP at KEY=VALUE, read past every cache.

    Exits 1 when there is no such row.
    """
    row = asyncio.run(_get(settings.online, group, keys, limit))
    if as_json:
        print_json(row)
    else:
        _print(row)
    return EXIT_MISSING if row["status"] == "MISSING" else 0


async def _get(
    online_url: str, name: str, keys: tuple[str, ...], limit: int | None
) -> dict[str, Any]:
    from headrace.cli.engines import open_online
    from headrace.cli.live import group_named, live_catalog

    engine = await open_online(online_url, read_only=True)
    try:
        catalog, document = await live_catalog(engine)
        group = group_named(document, name)
        if limit is not None and group.feature_type == "Object":
            raise click.UsageError(f"`{name}` is an Object; only a History has a limit")
        values = _key_values(group, keys)
        now_ms = time.time_ns() // 1_000_000
        found = await engine.inspector().inspect(
            catalog,
            group,
            catalog.encode_key(name, values),
            events_max=limit or group.max_events,
            now_ms=now_ms,
        )
    finally:
        await engine.close()
    return {"feature_group": name, "keys": values} | _row(group, found, now_ms)


def _row(group: Group, found: Inspection, now_ms: int) -> dict[str, Any]:
    if group.feature_type == "History":
        newest = found.events[0][0] if found.events else None
        events = [
            {"event_time_ms": at_ms, "values": _as_answers_print(group, event)}
            for at_ms, event in found.events
        ]
        status = _status(group, newest, now_ms)
        return {"status": status, "event_time_ms": newest, "events": events}
    record = found.record
    newest = None if record is None else record.newest_event_time_ms
    row: dict[str, Any] = {"status": _status(group, newest, now_ms), "event_time_ms": newest}
    if record is not None:
        written = record.written
        row["values"] = _as_answers_print(group, record.values)
        row["defaulted"] = [field for field in record.values if not written[field]]
    return row


def _as_answers_print(group: Group, values: dict[str, Any]) -> dict[str, Any]:
    """Float32 as the shortest text that names it; msgspec knows the forms of all other types."""
    floats = {
        field.name
        for field in group.fields
        if field.type in ("Float", "List<Float>") or field.type.startswith("Vector<")
    }
    return {
        name: _shortest(value) if name in floats and value is not None else value
        for name, value in values.items()
    }


def _shortest(value: float | list[float]) -> object:
    if isinstance(value, list):
        return [_shortest(item) for item in value]
    # Nine digits name every float32 (IEEE 754-2019, 5.12.2); NaN and infinities print as null.
    for digits in range(6, 9):
        short = float(f"{value:.{digits}g}")
        if math.isfinite(short) and struct.unpack("<f", struct.pack("<f", short))[0] == value:
            return short
    return float(f"{value:.9g}")


def _status(group: Group, newest_ms: int | None, now_ms: int) -> str:
    if newest_ms is None:
        return "MISSING"
    stale = group.max_age_ms is not None and now_ms - newest_ms > group.max_age_ms
    return "STALE" if stale else "OK"


def _key_values(group: Group, pairs: tuple[str, ...]) -> dict[str, int | str]:
    """`user_id=1001` by key field, each as its type."""
    from headrace.registry.names import did_you_mean

    types = {key.name: key.type for key in group.keys}
    values: dict[str, int | str] = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator:
            raise click.UsageError(f"expected KEY=VALUE, got `{pair}`")
        if name not in types:
            hint = did_you_mean(name, types)
            raise click.UsageError(f"`{group.name}` has no key `{name}`{hint}")
        if name in values:
            raise click.UsageError(f"key `{name}` is given twice")
        values[name] = text if types[name] == "Text" else _integer(name, text)
    missing = [name for name in types if name not in values]
    if missing:
        raise click.UsageError(f"`{group.name}` also needs {', '.join(f'`{k}=`' for k in missing)}")
    return values


def _integer(name: str, text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 19):
        raise click.UsageError(f"key `{name}` is an integer, got `{text}`")
    return int(text)


def _print(row: dict[str, Any]) -> None:
    keys = " ".join(f"{name}={value}" for name, value in row["keys"].items())
    click.echo(f"{row['feature_group']} {keys}  {row['status']}")
    if "events" in row:
        for event in row["events"]:
            click.echo(f"{_instant(event['event_time_ms'])}  {_json(event['values'])}")
        return
    if "values" not in row:
        return
    click.echo(f"newest event time {_instant(row['event_time_ms'])}")
    width = max(len(field) for field in row["values"])
    for field, value in row["values"].items():
        note = "  DEFAULTED" if field in row["defaulted"] else ""
        click.echo(f"  {field:<{width}}  {_json(value)}{note}")


def _instant(event_time_ms: int) -> str:
    at = datetime.fromtimestamp(event_time_ms / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()

"""Log lines: one JSON object each, with the caller's fields beside the event."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from headrace.cli.logs import JsonLines


def _line(record: logging.LogRecord) -> dict[str, object]:
    line: dict[str, object] = json.loads(JsonLines().format(record))
    return line


def _record(message: str, *arguments: object, **fields: object) -> logging.LogRecord:
    logger = logging.getLogger("headrace.sync.writer")
    return logger.makeRecord(
        logger.name, logging.WARNING, __file__, 1, message, arguments, None, extra=fields
    )


def test_a_line_holds_the_event_its_level_and_its_fields() -> None:
    line = _line(_record("trying again", attempt=3, stage="store"))
    assert line.pop("at")
    assert line == {
        "level": "warning",
        "logger": "headrace.sync.writer",
        "event": "trying again",
        "attempt": 3,
        "stage": "store",
    }


def test_arguments_are_put_into_the_event() -> None:
    assert _line(_record("generation %d", 7))["event"] == "generation 7"


def test_a_field_json_does_not_know_becomes_its_text() -> None:
    assert _line(_record("event", path=Path("a/b")))["path"] == "a/b"


def test_a_line_break_in_a_field_stays_on_the_line() -> None:
    assert "\n" not in JsonLines().format(_record("event", error="two\nlines"))

"""Log lines of the long-running commands: one JSON object a line, on standard error."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Final

import msgspec

from headrace.registry.settings import Settings, masked

_PLAIN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""Attributes that every log record has; all others are fields of the line."""

NOISY_CLIENTS: Final = ("aiokafka", "acsylla", "redis")
"""They log each failed attempt of a reconnect; our own parts log each change of state, once."""


class JsonLines(logging.Formatter):
    """Time, level, logger and event, then the fields that the caller gave as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, object] = {
            "at": at.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _PLAIN}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


def log_settings(settings: Settings) -> None:
    """The settings in force, credentials hidden, as one line: the first of a long-running role."""
    logging.getLogger("headrace").info("settings in force", extra={"settings": masked(settings)})


def log_json_lines(level: int = logging.INFO) -> None:
    """Send everything that is logged from here on to standard error, as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    quiet_clients()


def quiet_clients() -> None:
    """Keep client libraries from logging what our own parts tell."""
    for client in NOISY_CLIENTS:
        logging.getLogger(client).setLevel(logging.CRITICAL)

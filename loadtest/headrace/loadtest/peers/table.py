"""Who is measured. A further peer, in whatever language, is one more entry of `PEERS`: the command
that starts it, and the adapter that says how it is asked (path, body) and what it answers.

Whatever reads the Avro bodies under plain keys finds their place in the settings file (`plain_rows`
describes it); whatever speaks Redis otherwise gets its port.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from headrace.loadtest.environments import Environment
from headrace.loadtest.feast_environment import FEAST
from headrace.loadtest.peers.adapters import (
    FEAST_JSON,
    HEADRACE_AVRO,
    HEADRACE_JSON,
    PLAIN_DICTS,
    Adapter,
)

HERE = Path(__file__).parent
OUR_SERVER = "Headrace"
PROGRAMS = "headrace.loadtest.peers.programs"

FASTAPI = Environment(
    "fastapi",
    ("fastapi", "uvicorn[standard]", "redis[hiredis]", "fastavro", "orjson"),
    HERE / "fastapi-constraints.txt",
)
LITESTAR = Environment(
    "litestar",
    ("litestar", "uvicorn[standard]", "redis[hiredis]", "fastavro"),
    HERE / "litestar-constraints.txt",
)


class Place(NamedTuple):
    """Where a peer runs and what it finds there."""

    port: int
    redis_port: int
    settings: Path
    """For `plain_rows`; also in the environment as `PEER_SETTINGS`."""
    online: str
    """URL of the online store behind our cache."""
    feast_repo: Path


class Peer(NamedTuple):
    """A server and how it is asked."""

    name: str
    start: Callable[[Place], list[str]]
    adapter: Adapter
    tuning: str
    """What was done for it, as the page says it."""
    environment: Environment | None = None
    server: str | None = None
    """Name of the peer whose process this one asks, where it is not its own."""
    has_history: bool = True
    is_variant: bool = False
    """Another form of the peer before it: measured only where that tells something."""
    slow: bool = False
    """Tens of milliseconds a request: its big cells get fewer rounds."""
    paced_as: str | None = None
    """Name of the peer at whose rates this one is driven, where those are not its own."""


def _headrace(place: Place) -> list[str]:
    command = [sys.executable, "-m", "headrace.cli", "serve", "--port", str(place.port)]
    command += ["--online", place.online, "--cache", f"redis://127.0.0.1:{place.redis_port}/0"]
    return [*command, "--commands", f"sqlite:{place.settings.parent / 'commands.db'}"]


def _uvicorn(environment: Environment, program: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        return [
            *(str(environment.python()), "-m", "uvicorn", f"{PROGRAMS}.{program}:app"),
            *("--app-dir", str(HERE.parents[2]), "--port", str(place.port)),
            *("--no-access-log", "--log-level", "warning"),
        ]

    return command


def _feast(place: Place) -> list[str]:
    return [
        *(str(FEAST.python()), "-c", "from feast.cli.cli import cli; cli()"),
        *("--chdir", str(place.feast_repo), "--log-level", "error"),
        *("serve", "--port", str(place.port), "--no-access-log", "--workers", "1"),
        *("--max-requests", "0", "--registry_ttl_sec", "86400", "--keep-alive-timeout", "600"),
    ]


def control_exchanges(place: Place) -> Path:
    """What a control answers: requests and the answers of ours to them."""
    return place.settings.with_name("control.exchanges")


def _control(place: Place) -> list[str]:
    command = [sys.executable, "-m", f"{PROGRAMS}.control", "--port", str(place.port)]
    return [*command, "--exchanges", str(control_exchanges(place))]


def _control_of_redis(place: Place) -> list[str]:
    return [*_control(place), "--redis", str(place.redis_port), "--settings", str(place.settings)]


PEERS = (
    Peer(OUR_SERVER, _headrace, HEADRACE_JSON, "as `headrace serve` starts, one worker"),
    Peer(
        "Headrace, Avro answer",
        _headrace,
        HEADRACE_AVRO,
        "the same process, asked for Avro",
        server=OUR_SERVER,
        is_variant=True,
    ),
    Peer(
        "FastAPI",
        _uvicorn(FASTAPI, "fastapi_peer"),
        PLAIN_DICTS,
        "pydantic in, dict out, redis-py with hiredis, one MGET, fastavro; uvicorn with uvloop and "
        "httptools, no access log",
        FASTAPI,
    ),
    Peer(
        "FastAPI, tuned",
        _uvicorn(FASTAPI, "fastapi_tuned_peer"),
        HEADRACE_JSON,
        "the same, but orjson both ways past models and encoder, the collector frozen, and names "
        "once with rows as lists, as Headrace answers",
        FASTAPI,
        is_variant=True,
    ),
    Peer(
        "Litestar",
        _uvicorn(LITESTAR, "litestar_peer"),
        PLAIN_DICTS,
        "msgspec structs in and out, otherwise as FastAPI",
        LITESTAR,
    ),
    Peer(
        "Feast",
        _feast,
        FEAST_JSON,
        "its own server and Redis layout, one worker, no access log, registry cached for a day in "
        "client and server, no worker restarts, no expiry, hiredis, features named one by one "
        "(naming a service costs it more)",
        FEAST,
        has_history=False,
        slow=True,
    ),
)

CONTROLS = (
    Peer(
        "control: no work",
        _control,
        HEADRACE_JSON,
        "answers made before, over Headrace's transport (uvloop, one protocol a connection)",
        paced_as=OUR_SERVER,
    ),
    Peer(
        "control: one MGET",
        _control_of_redis,
        HEADRACE_JSON,
        "the same once Redis has replied to an MGET made before, unread but for its length",
        paced_as=OUR_SERVER,
    ),
)
"""No peers, for they do none of the work: what the machine, the generator and the transport take at
our rates, in the open loop only."""

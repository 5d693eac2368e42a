"""The Python client of a Headrace gateway.

`AsyncClient` for servers, `Client` for threads and scripts; both give the same `Read` and `Sent`
and raise the same errors. It needs httptools and msgspec; numpy and pyarrow only where a result is
asked for as theirs. `docs/client.md` shows it at work.
"""

from headrace.client.answers import (
    AppendedCommand,
    Read,
    RefusedCommand,
    Result,
    RowStatus,
    Sent,
    Status,
)
from headrace.client.asynchronous import AsyncClient
from headrace.client.blocking import Client
from headrace.client.errors import (
    ClientError,
    CommandsRefused,
    ConnectionFailed,
    DeadlineExceeded,
    GatewayFailed,
    GatewayUnavailable,
    MalformedAnswer,
    ProblemAnswer,
    RefusedRequest,
    UnusableValue,
)
from headrace.client.requests import Command, GroupRead, ReadOptions

__all__ = [
    "AppendedCommand",
    "AsyncClient",
    "Client",
    "ClientError",
    "Command",
    "CommandsRefused",
    "ConnectionFailed",
    "DeadlineExceeded",
    "GatewayFailed",
    "GatewayUnavailable",
    "GroupRead",
    "MalformedAnswer",
    "ProblemAnswer",
    "Read",
    "ReadOptions",
    "RefusedCommand",
    "RefusedRequest",
    "Result",
    "RowStatus",
    "Sent",
    "Status",
    "UnusableValue",
]

"""Requests as bytes: bodies from what the caller means, heads that stay the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from headrace.client.address import Address

Keys = Mapping[str, Any]
"""Key columns: one sequence of Text or whole numbers a key field, of equal lengths. numpy arrays
are taken too."""

READ_PATH = "/v1/read"
COMMANDS_PATH = "/v1/commands"
JSON_TYPE = "application/json"
ARROW_TYPE = "application/vnd.apache.arrow.stream"
NETWORK_SHARE = 10
"""One part in so many of a deadline is kept for the way there and back: the gateway answers what it
has at its own deadline, and that answer must still arrive within the caller's."""


class GroupRead(msgspec.Struct, frozen=True, omit_defaults=True):
    """A read of one feature group; `fields` None is all value fields in schema order."""

    feature_group: str
    keys: Keys
    fields: Sequence[str] | None = None
    limit: int | None = None


class ReadOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What may be asked of any read."""

    strict: bool = False
    """UNAVAILABLE and CORRUPT values become `GatewayUnavailable`."""
    event_times: bool = False
    """The newest event time of each row is added."""
    missing: Literal["default", "null"] = "default"
    """What stands where nothing was ever written."""


class Command(msgspec.Struct, frozen=True):
    """One write. The event time orders all writes, so sending a command again changes nothing."""

    feature_name: str
    method: Literal["UPDATE", "APPEND", "DELETE"]
    keys: Mapping[str, Any]
    values: Mapping[str, Any]

    @classmethod
    def update(
        cls,
        feature_group: str,
        keys: Mapping[str, Any],
        values: Mapping[str, Any],
        *,
        event_time_ms: int,
    ) -> Command:
        """Set fields of an Object's record; the ones not named stay."""
        return cls(feature_group, "UPDATE", keys, _timed(values, event_time_ms))

    @classmethod
    def append(
        cls,
        feature_group: str,
        keys: Mapping[str, Any],
        values: Mapping[str, Any],
        *,
        event_time_ms: int,
    ) -> Command:
        """Add an event to a History."""
        return cls(feature_group, "APPEND", keys, _timed(values, event_time_ms))

    @classmethod
    def delete(cls, feature_group: str, keys: Mapping[str, Any], *, event_time_ms: int) -> Command:
        """Remove what is not newer than the event time."""
        return cls(feature_group, "DELETE", keys, _timed({}, event_time_ms))


class Request(msgspec.Struct, frozen=True):
    """A request but for the deadline of a read, which is what is left of it when it is sent."""

    head: bytes
    body: bytes
    repeatable: bool
    """Whether it is a read: sending it twice is harmless, and the body takes `deadline_ms`."""

    def payload(self, left_s: float) -> bytes:
        """The bytes to send when so much is left of the caller's deadline."""
        body = self.body
        if self.repeatable:
            body = b'%b,"deadline_ms":%d}' % (body[:-1], _deadline_there(round(left_s * 1000)))
        return b"%b%d\r\n\r\n%b" % (self.head, len(body), body)


class RequestWriter:
    """Writes requests to one gateway: only lengths and bodies differ between them."""

    def __init__(self, address: Address, api_key: str | None) -> None:
        self._read_heads = {
            accept: _head(address, READ_PATH, accept, api_key) for accept in (JSON_TYPE, ARROW_TYPE)
        }
        self._commands_head = _head(address, COMMANDS_PATH, JSON_TYPE, api_key)

    def read_service(
        self,
        service: str,
        keys: Keys,
        *,
        options: ReadOptions,
        accept: str = JSON_TYPE,
    ) -> Request:
        """A read of a feature service."""
        body = _encode(
            _ServiceBody(
                service=service,
                keys=keys,
                strict=options.strict,
                event_times=options.event_times,
                missing=options.missing,
            )
        )
        return Request(self._read_heads[accept], body, repeatable=True)

    def read_groups(
        self,
        reads: Sequence[GroupRead],
        *,
        options: ReadOptions,
        accept: str = JSON_TYPE,
    ) -> Request:
        """Reads of feature groups."""
        body = _encode(
            _GroupsBody(
                reads=reads,
                strict=options.strict,
                event_times=options.event_times,
                missing=options.missing,
            )
        )
        return Request(self._read_heads[accept], body, repeatable=True)

    def send(self, commands: Sequence[Command | Mapping[str, Any]]) -> Request:
        """A list of commands."""
        return Request(self._commands_head, _encode(commands), repeatable=False)


class _ServiceBody(msgspec.Struct, omit_defaults=True):
    service: str
    keys: Keys
    strict: bool = False
    event_times: bool = False
    missing: str = "default"


class _GroupsBody(msgspec.Struct, omit_defaults=True):
    reads: Sequence[GroupRead]
    strict: bool = False
    event_times: bool = False
    missing: str = "default"


def _deadline_there(deadline_ms: int) -> int:
    return max(1, deadline_ms - max(1, deadline_ms // NETWORK_SHARE))


def _timed(values: Mapping[str, Any], event_time_ms: int) -> dict[str, Any]:
    return {**values, "_last_updated_at_ms": event_time_ms}


def _head(address: Address, path: str, accept: str, api_key: str | None) -> bytes:
    lines = [f"POST {address.prefix}{path} HTTP/1.1", f"host: {address.authority}"]
    if api_key is not None:
        if not api_key.isascii() or not api_key.isprintable() or " " in api_key:
            raise ValueError("an API key is printable ASCII without spaces")
        lines.append(f"authorization: Bearer {api_key}")
    if accept != JSON_TYPE:  # What is not said is JSON.
        lines.append(f"accept: {accept}")
    lines += ["content-type: application/json", "content-length: "]
    return "\r\n".join(lines).encode("ascii")


def _plain(value: object) -> object:
    """numpy arrays and scalars, and whatever else knows its Python values."""
    tolist = getattr(value, "tolist", None)
    if tolist is None:
        raise TypeError(f"expected a JSON value or a numpy array, got {type(value).__name__}")
    return tolist()


_encode = msgspec.json.Encoder(enc_hook=_plain).encode

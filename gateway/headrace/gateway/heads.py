"""What a request's head must say beyond what the parser holds it to, and how paths are written.

The parser refuses by itself what makes the end of a request doubtful: two lengths, a length beside
chunks, a sign or blank in a length, folded lines, lines that end in a bare line feed, a blank
before a colon. It takes what is checked here (RFC 9112, 3.2 and 6.1), for lane and ASGI alike.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(:[0-9]{0,5})?\Z").match


class HeadMistake(NamedTuple):
    """Why a head is refused: HTTP status, code and sentence of the problem."""

    status: int
    code: str
    detail: str


def head_mistake(
    version: str, target: bytes, headers: Sequence[tuple[bytes, bytes]]
) -> HeadMistake | None:
    """The first thing wrong with a parsed head; header names come in lower case."""
    if version not in ("1.1", "1.0"):
        return HeadMistake(505, "HTTP_VERSION", "this server speaks HTTP/1.1 and HTTP/1.0")
    if b"#" in target:
        return HeadMistake(400, "MALFORMED_HTTP", "the request target has a fragment")
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    hosts = [value for name, value in headers if name == b"host"]
    return (_coding_mistake(version, codings) if codings else None) or _host_mistake(version, hosts)


def _coding_mistake(version: str, codings: list[bytes]) -> HeadMistake | None:
    if version == "1.0":
        return HeadMistake(400, "MALFORMED_HTTP", "HTTP/1.0 has no Transfer-Encoding")
    if [coding.lower() for coding in codings] == [b"chunked"]:
        return None
    detail = "expected no Transfer-Encoding other than `chunked`"
    return HeadMistake(501, "UNSUPPORTED_TRANSFER_CODING", detail)


def _host_mistake(version: str, hosts: list[bytes]) -> HeadMistake | None:
    if len(hosts) > 1 or (version == "1.1" and not hosts):
        return HeadMistake(400, "BAD_HOST", f"expected one Host header field, got {len(hosts)}")
    if hosts and not _HOST(hosts[0]):
        return HeadMistake(400, "BAD_HOST", "expected a host and perhaps a port in Host")
    return None


def is_plain_path(raw_path: bytes, names_under: Sequence[bytes]) -> bool:
    """Whether a path stands as a route is written, so that whoever reads it sees the same route.

    No part is empty, and %-encoding is for the names that stand under one of the given prefixes,
    where it makes no further part. A router alone would take `//v1/read`, `/v1/read/` and
    `/v1%2Fread` for `/v1/read`, which a rule of a proxy in front would not.
    """
    if b"//" in raw_path or (raw_path.endswith(b"/") and raw_path != b"/"):
        return False
    if b"%" not in raw_path:
        return True
    name = next((raw_path[len(p) :] for p in names_under if raw_path.startswith(p)), b"%2f")
    return b"%2f" not in name.lower()

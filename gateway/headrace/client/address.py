"""Where a gateway is, from its URL."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

PORTS = {"http": 80, "https": 443}


class Address(NamedTuple):
    """Host, port and what stands before every path."""

    host: str
    port: int
    tls: bool
    prefix: str
    authority: str

    @classmethod
    def parse(cls, url: str) -> Address:
        """Of `http://host:port` or `https://host/prefix`; raises ValueError for any other form."""
        strange = f"expected `http://host:port` or `https://host` in ASCII, got {url!r}"
        if not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError(strange)
        parts = urlsplit(url)
        if parts.scheme not in PORTS or not parts.hostname:
            raise ValueError(strange)
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("a gateway's URL has no user, query or fragment; pass `api_key`")
        return cls(
            host=parts.hostname,
            port=parts.port or PORTS[parts.scheme],
            tls=parts.scheme == "https",
            prefix=parts.path.rstrip("/"),
            authority=parts.netloc,
        )

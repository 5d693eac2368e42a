"""What the URLs of networked engines share: options, of which none is ever taken silently."""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import parse_qs

from headrace.registry.names import did_you_mean

PORT_MAX = 65_535
SECRET_OPTIONS = re.compile(r"(?<![^&])(user|password)=[^&]*")


def parse_options(query: str, known: Collection[str]) -> dict[str, str]:
    """The options after the `?`; raises `ValueError` with one sentence for any that says nothing.

    A login that lacks its half, and an authority without TLS, are refused: the connection would be
    less safe than the URL looks.
    """
    options: dict[str, str] = {}
    for name, values in parse_qs(query, keep_blank_values=True).items():
        if name not in known:
            hint = did_you_mean(name, known)
            raise ValueError(f"unknown option `{name}`{hint}; known are {', '.join(sorted(known))}")
        if len(values) > 1:
            raise ValueError(f"option `{name}` is given {len(values)} times; give it once")
        if not values[0]:
            raise ValueError(f"option `{name}` is empty; give it a value or leave it out")
        options[name] = values[0]
    if ("user" in options) != ("password" in options):
        given, other = ("user", "password") if "user" in options else ("password", "user")
        raise ValueError(f"option `{given}` needs `{other}` beside it")
    if "ca" in options and not flag(options, "tls"):
        raise ValueError("option `ca` needs `tls=true` beside it")
    return options


def flag(options: dict[str, str], name: str) -> bool:
    """An option that is `true` or `false`; false when it is not there."""
    text = options.get(name, "false")
    if text not in ("true", "false"):
        raise ValueError(f"option `{name}={text}`: expected `true` or `false`")
    return text == "true"


def port(text: str) -> int:
    """A TCP port that can be connected to."""
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= PORT_MAX):
        raise ValueError(f"port `{text}` is no whole number from 1 to {PORT_MAX}")
    return int(text)


def without_login_before_host(netloc: str) -> str:
    """The hosts of a URL whose login is among its options; refuses one before the hosts."""
    if "@" in netloc:
        raise ValueError("a login before the host is not read; write `?user=…&password=…`")
    return netloc


def without_credentials(url: str) -> str:
    """A URL as it may be shown; what a misplaced character made ambiguous is hidden whole."""
    head, mark, query = url.partition("?")
    query = SECRET_OPTIONS.sub(r"\1=***", query)
    if "@" in query:
        return f"{head.partition(':')[0]}://***"
    return re.sub(r"//.*@", "//***@", head, count=1, flags=re.DOTALL) + mark + query

"""`redis://user:password@host1:6379,host2:6379/0?epoch=1&tls=true`: where the cache is.

Pure parsing; both the gateway's connection and the writer's invalidation start from it.
"""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import msgspec

from headrace.registry.errors import SettingsError
from headrace.registry.url_options import flag, parse_options, without_credentials
from headrace.registry.url_options import port as port_number

DEFAULT_PORT = 6379
KNOWN_OPTIONS = ("epoch", "tls", "ca", "resp", "cluster")
RESP_VERSIONS = (2, 3)


class CacheNode(msgspec.Struct, frozen=True):
    """One node; its name, `host:port`, decides which keys it holds."""

    host: str
    port: int

    @property
    def name(self) -> str:
        """As rendezvous hashing knows it."""
        return f"{self.host}:{self.port}"


class CacheUrl(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed cache URL. Changing the node list needs a new `epoch` (semantics 19).

    With `cluster` the nodes are those of a Redis Cluster to begin with, and it says itself which
    others there are and where keys are.
    """

    nodes: tuple[CacheNode, ...]
    database: int = 0
    user: str | None = None
    password: str | None = None
    tls: bool = False
    ca: str | None = None
    epoch: int = 1
    resp: int = 3
    cluster: bool = False

    @classmethod
    def parse(cls, text: str) -> CacheUrl:
        """Parse a URL; raises `SettingsError` with one sentence."""
        try:
            return cls._parse(text)
        except ValueError as error:
            raise SettingsError(f"`cache`: {error}") from None

    @classmethod
    def _parse(cls, text: str) -> CacheUrl:
        shown = without_credentials(text)
        parts = urlsplit(text)
        if parts.scheme != "redis" or not parts.netloc:
            raise ValueError(f"`{shown}` is no cache URL; expected `redis://host:6379/0`")
        options = parse_options(parts.query, KNOWN_OPTIONS)
        database = _whole("database", parts.path.strip("/") or "0")
        cluster = flag(options, "cluster")
        if cluster and database:
            raise ValueError(f"a Redis Cluster has database 0 only, not `{database}`")
        credentials, _, hosts = parts.netloc.rpartition("@")
        user, _, password = credentials.partition(":")
        if user and not password:
            form = "redis://user:password@host:6379/0"
            raise ValueError(f"`{shown}` has a user without a password; expected `{form}`")
        return cls(
            nodes=tuple(_node(host) for host in hosts.split(",")),
            database=database,
            user=unquote(user) or None,
            password=unquote(password) or None,
            tls=flag(options, "tls"),
            ca=options.get("ca"),
            epoch=_whole("epoch", options.get("epoch", "1")),
            resp=_resp(options.get("resp", "3")),
            cluster=cluster,
        )


def _node(text: str) -> CacheNode:
    host, _, port = text.partition(":")
    if not host:
        raise ValueError("a node without a host; expected `host:6379`")
    return CacheNode(host, port_number(port or str(DEFAULT_PORT)))


def _resp(text: str) -> int:
    version = _whole("resp", text)
    if version not in RESP_VERSIONS:
        raise ValueError(f"option `resp={text}`: expected `2` or `3`")
    return version


def _whole(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{name} `{text}` is no whole number")
    return int(text)

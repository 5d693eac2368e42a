"""`redis://user:password@host1:6379,host2:6379/0?epoch=1&tls=true`: where the cache is.

Pure parsing; both the gateway's connection and the writer's invalidation start from it.
"""

from __future__ import annotations

from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from headrace.registry.errors import SettingsError
from headrace.registry.names import did_you_mean

DEFAULT_PORT = 6379
KNOWN_OPTIONS = ("epoch", "tls", "ca", "resp", "cluster")


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
        parts = urlsplit(text)
        if parts.scheme != "redis" or not parts.netloc:
            raise SettingsError(f"`cache: {text}` is no cache URL; expected `redis://host:6379/0`")
        options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        for name in options:
            if name not in KNOWN_OPTIONS:
                hint = did_you_mean(name, KNOWN_OPTIONS)
                raise SettingsError(f"`cache`: unknown option `{name}`{hint}")
        database = _whole("database", parts.path.strip("/") or "0")
        cluster = options.get("cluster", "false") == "true"
        if cluster and database:
            raise SettingsError(f"`cache`: a Redis Cluster has database 0 only, not `{database}`")
        credentials, _, hosts = parts.netloc.rpartition("@")
        user, _, password = credentials.partition(":")
        return cls(
            nodes=tuple(_node(host) for host in hosts.split(",")),
            database=database,
            user=unquote(user) or None,
            password=unquote(password) or None,
            tls=options.get("tls", "false") == "true",
            ca=options.get("ca"),
            epoch=_whole("epoch", options.get("epoch", "1")),
            resp=_whole("resp", options.get("resp", "3")),
            cluster=cluster,
        )


def _node(text: str) -> CacheNode:
    host, _, port = text.partition(":")
    if not host:
        raise SettingsError("`cache`: a node without a host; expected `host:6379`")
    return CacheNode(host, _whole("port", port or str(DEFAULT_PORT)))


def _whole(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise SettingsError(f"`cache`: {name} `{text}` is no whole number")
    return int(text)

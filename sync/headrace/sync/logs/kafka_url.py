"""`kafka://host1:9092,host2:9092?prefix=headrace&…`: where the log is and its topics' names."""

from __future__ import annotations

import ssl
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
from aiokafka.helpers import create_ssl_context

from headrace.registry.physical import topic_name
from headrace.registry.url_options import (
    flag,
    parse_options,
    port,
    without_credentials,
    without_login_before_host,
)
from headrace.sync.ports import Topic

Compression = Literal["lz4", "zstd", "none"]
DEFAULT_PORT = 9092
DEFAULT_PARTITIONS = 8
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
RETENTION_MS = 7 * 24 * 3600 * 1000
"""Commands and dead letters are kept 7 days, shorter than `delete_grace` (semantics 4, 27)."""

KNOWN_OPTIONS = {
    "prefix",
    "user",
    "password",
    "mechanism",
    "tls",
    "ca",
    "compression",
    "partitions",
    "replication",
}


class KafkaUrl(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed log URL. `servers` is the bootstrap list; topics and groups carry the prefix."""

    servers: str
    prefix: str = "headrace"
    user: str | None = None
    password: str | None = None
    mechanism: str = "PLAIN"
    tls: bool = False
    ca: str | None = None
    compression_name: Compression = "lz4"
    partitions: int = DEFAULT_PARTITIONS
    replication: int = 1

    @property
    def compression(self) -> str | None:
        """As aiokafka wants it."""
        return None if self.compression_name == "none" else self.compression_name

    @property
    def dead_letter_topic(self) -> str:
        """Full name of the dead-letter topic."""
        return topic_name(self.prefix, "dead-letters")

    def topic(self, topic: Topic) -> str:
        """Full name of a command topic."""
        return topic_name(self.prefix, topic)

    def group(self, group: str) -> str:
        """Full name of a consumer group."""
        return f"{self.prefix}.{group}"

    def client_options(self) -> dict[str, Any]:
        """Options that every aiokafka client takes; raises `OSError` for a `ca` that is no file."""
        security = ("SASL_" if self.user else "") + ("SSL" if self.tls else "PLAINTEXT")
        options: dict[str, Any] = {
            "bootstrap_servers": self.servers,
            "security_protocol": security,
            "client_id": "headrace",
        }
        if self.tls:
            options["ssl_context"] = self._ssl_context()
        if self.user:
            options |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.user,
                "sasl_plain_password": self.password or "",
            }
        return options

    def _ssl_context(self) -> ssl.SSLContext:
        try:
            context: ssl.SSLContext = create_ssl_context(cafile=self.ca)
        except OSError as error:
            raise OSError(
                f"`ca` {self.ca} cannot be read: {error}; mend it in the URL of `commands`"
            ) from error
        return context

    @classmethod
    def parse(cls, text: str) -> KafkaUrl:
        """Parse a URL; raises `ValueError` with one sentence."""
        parts = urlsplit(text)
        if parts.scheme != "kafka" or not parts.netloc:
            shown = without_credentials(text)
            raise ValueError(
                f"`{shown}` is no Kafka URL; expected `kafka://host:9092?prefix=headrace`"
            )
        options = parse_options(parts.query, KNOWN_OPTIONS)
        servers = ",".join(
            _server(host) for host in without_login_before_host(parts.netloc).split(",")
        )
        return cls(
            servers=servers,
            prefix=options.get("prefix", "headrace"),
            user=options.get("user"),
            password=options.get("password"),
            mechanism=_mechanism(options),
            tls=flag(options, "tls"),
            ca=options.get("ca"),
            compression_name=_compression(options),
            partitions=_positive(options, "partitions", DEFAULT_PARTITIONS),
            replication=_positive(options, "replication", 1),
        )


def _server(text: str) -> str:
    host, _, number = text.partition(":")
    if not host:
        raise ValueError("a broker without a host; expected `host:9092`")
    return f"{host}:{port(number or str(DEFAULT_PORT))}"


def _compression(options: dict[str, str]) -> Compression:
    match options.get("compression", "lz4"):
        case "lz4":
            return "lz4"
        case "zstd":
            return "zstd"
        case "none":
            return "none"
        case other:
            raise ValueError(f"compression `{other}` is unknown; expected lz4, zstd or none")


def _mechanism(options: dict[str, str]) -> str:
    name = options.get("mechanism", "PLAIN")
    if "mechanism" in options and "user" not in options:
        raise ValueError("option `mechanism` needs `user` and `password` beside it")
    if name not in MECHANISMS:
        known = ", ".join(MECHANISMS)
        raise ValueError(f"mechanism `{name}` in the Kafka URL is unknown; expected one of {known}")
    return name


def _positive(options: dict[str, str], name: str, default: int) -> int:
    text = options.get(name, str(default))
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ValueError(f"`{name}={text}` in the Kafka URL: expected a positive whole number")
    return int(text)

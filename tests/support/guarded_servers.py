"""Servers that want a login, most also TLS: where they are and what their clients must say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

from certificate import Certificate

from headrace.cli.scylla import ScyllaEngine
from headrace.loadtest.servers import Server, start_cassandra, start_kafka, start_valkey
from headrace.loadtest.servers.process import READY_LIMIT_S, free_port
from headrace.registry.errors import OnlineStoreUnreachable

USER = "gateway"
PASSWORD = "p%41&:/@ ?+"
"""Every character that a URL could take for its own."""
ESCAPED = quote(PASSWORD, safe="")
LOGIN: Mapping[str, str] = MappingProxyType({"user": USER, "password": ESCAPED})

KEYSPACE = "guarded"
READER = "reader"
"""A role of Cassandra that may read and not write, and a user of Kafka without a grant."""


def query(**options: object) -> str:
    """Options of a URL, whose values are escaped already; None leaves one out."""
    return "&".join(f"{name}={value}" for name, value in options.items() if value is not None)


@dataclass(frozen=True)
class GuardedKafka:
    """`login_port` wants a password, `tls_port` also TLS; both take every mechanism."""

    login_port: int
    tls_port: int


@dataclass(frozen=True)
class GuardedServers:
    """The certificate is that of Cassandra and Kafka; Valkey has none."""

    certificate: Certificate
    cassandra: Server
    kafka: GuardedKafka
    valkey: Server

    def online(self, **options: object) -> str:
        """The URL of the keyspace that is there, with the login unless `options` say otherwise."""
        login = {**LOGIN, "replication": 1}
        return f"scylla://127.0.0.1:{self.cassandra.port}/{KEYSPACE}?{query(**login | options)}"

    def commands(self, **options: object) -> str:
        """The URL of the broker, likewise, without TLS."""
        login = {**LOGIN, "partitions": 1}
        return f"kafka://127.0.0.1:{self.kafka.login_port}?{query(**login | options)}"

    def commands_over_tls(self, **options: object) -> str:
        """The URL of the broker, likewise, with TLS."""
        safe = {**LOGIN, "partitions": 1, "tls": "true", "ca": self.certificate.authority}
        return f"kafka://127.0.0.1:{self.kafka.tls_port}?{query(**safe | options)}"

    def cache(self, *, login: str = f":{ESCAPED}@") -> str:
        """The URL of the node."""
        return f"redis://{login}127.0.0.1:{self.valkey.port}/0"


def start_guarded_valkey(folder: Path) -> Server:
    """Valkey with a password for the default user and an ACL user of its own."""
    rules = f"on #{sha256(PASSWORD.encode()).hexdigest()} ~* &* +@all"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "users.acl").write_text(f"user default {rules}\nuser {USER} {rules}\n")
    return start_valkey(folder, options=("--aclfile", str(folder / "users.acl")))


def start_guarded_kafka(folder: Path, key_store: Path, guarded: GuardedKafka) -> Server:
    """A broker whose plain listener is its own affair; users log in by PLAIN and by SCRAM."""
    listeners = (
        "PLAINTEXT://127.0.0.1:@BROKER@,"
        f"LOGIN://127.0.0.1:{guarded.login_port},GUARDED://127.0.0.1:{guarded.tls_port}"
    )
    security = "org.apache.kafka.common.security"
    properties = {
        "listeners": f"{listeners},CONTROLLER://127.0.0.1:@CONTROLLER@",
        "advertised.listeners": listeners,
        "listener.security.protocol.map": (
            "PLAINTEXT:PLAINTEXT,LOGIN:SASL_PLAINTEXT,GUARDED:SASL_SSL,CONTROLLER:PLAINTEXT"
        ),
        "inter.broker.listener.name": "PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        # What is not granted is refused to all but our own user and whoever is on the machine.
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:ANONYMOUS;User:{USER}",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(key_store),
    }
    for listener in ("login", "guarded"):
        jaas = f"listener.name.{listener}.%s.sasl.jaas.config"
        users = " ".join(f'user_{user}="{PASSWORD}"' for user in (USER, READER))
        plain = f"{security}.plain.PlainLoginModule required {users};"
        properties[jaas % "plain"] = plain
        for mechanism in ("scram-sha-256", "scram-sha-512"):
            properties[jaas % mechanism] = f"{security}.scram.ScramLoginModule required;"
    return start_kafka(folder, properties=properties, scram_users={USER: PASSWORD})


def start_guarded_cassandra(folder: Path, key_store: Path) -> Server:
    """Cassandra with logins and grants, whose one port takes plain connections and TLS."""
    server = start_cassandra(
        folder,
        settings=f"""\
authenticator: PasswordAuthenticator
authorizer: CassandraAuthorizer
client_encryption_options:
  enabled: true
  optional: true
  keystore: {key_store}
  ssl_context_factory:
    class_name: org.apache.cassandra.security.PEMBasedSslContextFactory
""",
    )
    try:
        asyncio.run(_make_roles(server))
    except BaseException:
        server.stop()  # Nobody else knows of it yet.
        raise
    return server


async def _make_roles(server: Server) -> None:
    """A keyspace with a catalog's table, a role that owns it and one that only reads it."""
    place = f"scylla://127.0.0.1:{server.port}/{KEYSPACE}"
    engine = await _open_when_ready(f"{place}?user=cassandra&password=cassandra&replication=1")
    secret = PASSWORD.replace("'", "''")
    for text in (
        f"CREATE ROLE {USER} WITH PASSWORD = '{secret}' AND LOGIN = true",
        f"CREATE ROLE {READER} WITH PASSWORD = '{secret}' AND LOGIN = true",
        f"GRANT ALL PERMISSIONS ON KEYSPACE {KEYSPACE} TO {USER}",
        f"GRANT SELECT ON KEYSPACE {KEYSPACE} TO {READER}",
    ):
        await engine.session.query(text)
    await engine.close()


async def _open_when_ready(url: str) -> ScyllaEngine:
    """Cassandra makes its first role a moment after it answers."""
    give_up_s = time.monotonic() + READY_LIMIT_S
    while True:
        try:
            return await ScyllaEngine.open(url, create=True, request_limit_ms=20_000)
        except OnlineStoreUnreachable:
            if time.monotonic() > give_up_s:
                raise
            await asyncio.sleep(0.1)


def guarded_kafka_ports() -> GuardedKafka:
    """Free ports for the two listeners."""
    return GuardedKafka(free_port(), free_port())

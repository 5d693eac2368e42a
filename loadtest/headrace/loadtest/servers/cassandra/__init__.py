"""Cassandra 5.0, standing in for ScyllaDB: the CQL that both speak."""

from __future__ import annotations

from pathlib import Path

from headrace.loadtest.servers.cache import java, maven_jars
from headrace.loadtest.servers.process import Server, ask, free_port

VERSION = "5.0.8"
HERE = Path(__file__).parent

# CQL v4 OPTIONS; byte 4 of the answer is the opcode, 6 = SUPPORTED (native_protocol_v4.spec, 2.4).
OPTIONS_FRAME = bytes((4, 0, 0, 0, 5, 0, 0, 0, 0))
SUPPORTED_OPCODE = 6


# What acknowledges a write only once the commit log is on disk, in place of "within 10 s".
PERIODIC_SYNC = "commitlog_sync: periodic\ncommitlog_sync_period: 10000ms\n"
BATCH_SYNC = "commitlog_sync: batch\n"


def start_cassandra(
    folder: Path, *, port: int | None = None, durable: bool = False, settings: str = ""
) -> Server:
    """Start one node with its data under `folder`; ready when it answers CQL.

    Only a `durable` one still has every acknowledged write after a kill -9. `settings` are further
    lines of its `cassandra.yaml`.
    """
    jars = maven_jars(f"cassandra-{VERSION}", HERE / "pom.xml")
    native = port or free_port()
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    config = (HERE / "cassandra.yaml").read_text()
    for word, value in (("FOLDER", str(folder)), ("STORAGE", free_port()), ("NATIVE", native)):
        config = config.replace(f"@{word}@", str(value))
    if durable:
        config = config.replace(PERIODIC_SYNC, BATCH_SYNC)
    (folder / "cassandra.yaml").write_text(config + settings)
    argv = [
        *(
            java(),
            "-Xms128m",
            "-Xmx512m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Xss512k",
        ),
        *(f"-javaagent:{jars}/jamm-0.4.0.jar", f"@{HERE / 'jdk17.opts'}"),
        f"-Dcassandra.config=file://{folder}/cassandra.yaml",
        *(f"-Dcassandra.storagedir={folder}", f"-Dcassandra.logdir={folder}"),
        f"-Dlogback.configurationFile=file://{HERE}/logback.xml",
        *("-Dcassandra-foreground=yes", "-Dcassandra.skip_wait_for_gossip_to_settle=0"),
        *("-Dcassandra.initial_token=0", "-Dcassandra.load_ring_state=false"),
        *("-Dcassandra.ring_delay_ms=100", "-Dcassandra.superuser_setup_delay_ms=0"),
        *("-Djava.net.preferIPv4Stack=true", f"-Djava.io.tmpdir={folder}/tmp"),
        *("-cp", f"{jars}/*", "org.apache.cassandra.service.CassandraDaemon"),
    ]

    def ready() -> bool:
        answer = ask(native, OPTIONS_FRAME, answer_bytes=9)
        return len(answer) > 4 and answer[4] == SUPPORTED_OPCODE

    return Server("cassandra", argv, folder=folder, port=native, ready=ready).start()

"""Kafka in KRaft mode: one node that is broker and controller."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from headrace.loadtest.servers.cache import cached, java, maven_jars
from headrace.loadtest.servers.process import Server, ServerFailed, ask, free_port

VERSION = "4.1.1"
HERE = Path(__file__).parent
NO_PROPERTIES: Mapping[str, str] = MappingProxyType({})
SCRAM_MECHANISMS = ("SCRAM-SHA-256", "SCRAM-SHA-512")
CLUSTER_ID = "AAAAAAAAAAAAAAAAAAAAAQ"

# ApiVersions v0 with client id "x" (Kafka protocol guide); bytes 8-9 of the answer: error code.
API_VERSIONS_BODY = struct.pack(">hhih", 18, 0, 1, 1) + b"x"
API_VERSIONS = struct.pack(">i", len(API_VERSIONS_BODY)) + API_VERSIONS_BODY


def start_kafka(
    folder: Path,
    *,
    port: int | None = None,
    properties: Mapping[str, str] = NO_PROPERTIES,
    scram_users: Mapping[str, str] = NO_PROPERTIES,
) -> Server:
    """Start one node with its data under `folder`; ready when it answers ApiVersions.

    `properties` are added to the broker's, or take the place of those of the same name;
    `scram_users`, names with their passwords, may log in by any SCRAM mechanism.
    """
    broker = port or free_port()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tmp").mkdir(exist_ok=True)
    written = _write_properties(folder, broker=broker, properties=properties)
    if scram_users and not (folder / "logs").exists():
        _format(folder, written, scram_users)
    elif not (folder / "logs").exists():
        shutil.copytree(_formatted_logs(), folder / "logs")
    argv = [*_java_argv(folder), "kafka.Kafka", str(written)]

    def ready() -> bool:
        answer = ask(broker, API_VERSIONS, answer_bytes=10)
        return len(answer) == 10 and answer[8:10] == b"\0\0"

    return Server("kafka", argv, folder=folder, port=broker, ready=ready).start()


def _jars() -> Path:
    return maven_jars(f"kafka-{VERSION}", HERE / "pom.xml")


def _java_argv(folder: Path) -> list[str]:
    return [
        *(java(), "-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
        *(f"-Dlog4j2.configurationFile={HERE}/log4j2.yaml", f"-Djava.io.tmpdir={folder}/tmp"),
        *("-cp", f"{_jars()}/*"),
    ]


def _write_properties(
    folder: Path, *, broker: int, properties: Mapping[str, str] = NO_PROPERTIES
) -> Path:
    text = (HERE / "server.properties").read_text()
    lines = [line for line in text.splitlines() if line.partition("=")[0] not in properties]
    text = "\n".join([*lines, *(f"{name}={value}" for name, value in properties.items()), ""])
    for word, value in (("FOLDER", str(folder)), ("BROKER", broker), ("CONTROLLER", free_port())):
        text = text.replace(f"@{word}@", str(value))
    path = folder / "server.properties"
    path.write_text(text)
    return path


def _formatted_logs() -> Path:
    """A formatted, empty log folder: formatting takes a JVM of its own, so it is done once."""

    def fill(scratch: Path) -> None:
        (scratch / "tmp").mkdir()
        _format(scratch, _write_properties(scratch, broker=free_port()), NO_PROPERTIES)

    return cached(f"kafka-{VERSION}-formatted", fill) / "logs"


def _format(folder: Path, properties: Path, scram_users: Mapping[str, str]) -> None:
    argv = [*_java_argv(folder), "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID]
    for user, password in scram_users.items():
        for mechanism in SCRAM_MECHANISMS:
            argv += ["--add-scram", f"{mechanism}=[name={user},password={password}]"]
    formatted = subprocess.run(
        [*argv, "-c", str(properties)], capture_output=True, text=True, timeout=120, check=False
    )
    if formatted.returncode != 0:
        raise ServerFailed(f"formatting the Kafka log folder failed:\n{formatted.stdout}")

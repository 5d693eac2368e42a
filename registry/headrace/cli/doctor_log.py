"""The checks of a Kafka command log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError

from headrace.cli.doctor_finding import Finding, judged
from headrace.cli.doctor_log_grants import Lacking, lacking_on_groups, lacking_on_topics
from headrace.registry.cql import GC_GRACE_S
from headrace.sync.downsync import DOWNSYNC_GROUP
from headrace.sync.logs.kafka_clients import (
    REQUEST_LIMIT_MS,
    START_OR_MEND,
    NoBroker,
    reason_of,
    running,
)
from headrace.sync.logs.kafka_topics import topic_bytes_max
from headrace.sync.logs.partitions import REPLAY_GROUP
from headrace.sync.writer import WRITER_GROUP

if TYPE_CHECKING:
    from headrace.sync.logs.kafka_url import KafkaUrl

PART: Final = "commands"
DELETE_GRACE_MS: Final = GC_GRACE_S * 1000


async def examine_kafka(url: KafkaUrl) -> list[Finding]:
    """Reachable, and every topic with its policy. A record of a probe would be a dead letter."""
    findings: list[Finding] = []
    try:
        options = url.client_options()
        admin: Any = AIOKafkaAdminClient(**options, request_timeout_ms=REQUEST_LIMIT_MS)
        async with running(admin):
            async for finding in _checks(admin, url):
                findings.append(finding)  # noqa: PERF401 - those before a failure count
    except NoBroker as error:
        findings.append(_failed("reachable", error.reason, error.fix))
    except (KafkaError, OSError) as error:
        findings.append(_failed("reachable", f"{url.servers}: {reason_of(error)}", START_OR_MEND))
    return findings


async def _checks(admin: Any, url: KafkaUrl) -> AsyncIterator[Finding]:
    cluster = await admin.describe_cluster()
    detail = f"{len(cluster['brokers'])} brokers at {url.servers}"
    yield Finding(part=PART, check="reachable", ok=True, detail=detail)
    wanted = topic_bytes_max(url)
    try:
        lacking = await lacking_on_topics(admin, list(wanted))
    except (IncompatibleBrokerVersion, NotImplementedError):
        detail = "older than 2.3: it does not tell what a user may do"
        yield _failed("version", detail, "use a newer Kafka")
        return
    detail = "2.3 or newer, by the requests it knows; more of it Kafka does not tell"
    yield Finding(part=PART, check="version", ok=True, detail=detail)
    detail = "Kafka does not tell its clients its time"
    yield Finding(part=PART, check="clock", ok=None, detail=detail)
    yield await _permission(admin, url, lacking)
    hidden = {each.name for each in lacking if each.operation == "Describe"}
    present = set(await admin.list_topics())
    for name in wanted:
        if name not in present and name not in hidden:
            yield _failed("topic", f"`{name}` is missing", "run `headrace apply`")
    for name, bytes_max in wanted.items():
        if name in present:
            yield await _topic(admin, name, bytes_max)


async def _permission(admin: Any, url: KafkaUrl, on_topics: list[Lacking]) -> Finding:
    """What gateways and workers need: Read and Write of topics, Read of their groups."""
    groups = [url.group(name) for name in (WRITER_GROUP, DOWNSYNC_GROUP, REPLAY_GROUP)]
    lacking = [*on_topics, *await lacking_on_groups(admin, groups)]
    if not lacking:
        detail = "the user of the URL may read and write topics, and read as a member of groups"
        return Finding(part=PART, check="permission", ok=True, detail=detail)
    fix = (
        f"kafka-acls --add --allow-principal User:{url.user or 'ANONYMOUS'} --operation Read "
        f"--operation Write --topic {url.prefix}. --group {url.prefix}. "
        "--resource-pattern-type prefixed"
    )
    return _failed("permission", f"no {', no '.join(map(str, lacking))}", fix)


async def _topic(admin: Any, name: str, bytes_max: int) -> Finding:
    """Kept by time, never compacted (semantics 27), and shorter than delete markers (4).

    It also takes the longest command, or the letter of one.
    """
    [answer] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    [resource] = answer.resources
    code, message, *_, entries = resource
    if code != 0:
        return _failed("topic", f"`{name}`: {message}", "let the user of the URL DescribeConfigs")
    settings = {entry[0]: entry[1] for entry in entries}
    policy, retention_ms = settings["cleanup.policy"], int(settings["retention.ms"])
    taken_bytes = int(settings["max.message.bytes"])
    kept = policy == "delete" and 0 < retention_ms < DELETE_GRACE_MS
    detail = (
        f"`{name}`, cleanup.policy {policy}, retention.ms {retention_ms}, "
        f"max.message.bytes {taken_bytes}"
    )
    fix = (
        f"kafka-configs --alter --topic {name} --add-config "
        f"cleanup.policy=delete,retention.ms=604800000,max.message.bytes={bytes_max} "
        f"(retention below {DELETE_GRACE_MS}, no fewer bytes)"
    )
    return judged(PART, "topic", detail, ok=kept and taken_bytes >= bytes_max, fix=fix)


def _failed(check: str, detail: str, fix: str) -> Finding:
    return Finding(part=PART, check=check, ok=False, detail=detail, fix=fix)

"""Topics of the command log: created by `apply`, checked, never altered silently."""

from __future__ import annotations

from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from headrace.sync.errors import LogUnavailable
from headrace.sync.logs.kafka_clients import REQUEST_LIMIT_MS, reason_of, running
from headrace.sync.logs.kafka_sizes import COMMAND_TOPIC_BYTES_MAX, DEAD_LETTER_TOPIC_BYTES_MAX
from headrace.sync.logs.kafka_url import RETENTION_MS, KafkaUrl

DEAD_LETTER_PARTITIONS = 1


def topic_bytes_max(url: KafkaUrl) -> dict[str, int]:
    """Our topics by full name, and the `max.message.bytes` that each must have."""
    return {
        url.topic("realtime"): COMMAND_TOPIC_BYTES_MAX,
        url.topic("bulk"): COMMAND_TOPIC_BYTES_MAX,
        url.dead_letter_topic: DEAD_LETTER_TOPIC_BYTES_MAX,
    }


async def create_topics(url: KafkaUrl) -> list[str]:
    """Create the topics that are missing; returns their names. Existing ones are left as they are.

    Topics are kept by time and never compacted (semantics 27): compaction would lose the commands
    of an UPDATE that names only some fields.
    """
    settings = {"cleanup.policy": "delete", "retention.ms": str(RETENTION_MS)}
    try:
        admin = AIOKafkaAdminClient(**url.client_options(), request_timeout_ms=REQUEST_LIMIT_MS)
        async with running(admin):
            present = set(await admin.list_topics())
            missing = [
                NewTopic(
                    name,
                    DEAD_LETTER_PARTITIONS if name == url.dead_letter_topic else url.partitions,
                    url.replication,
                    topic_configs=settings | {"max.message.bytes": str(bytes_max)},
                )
                for name, bytes_max in topic_bytes_max(url).items()
                if name not in present
            ]
            if missing:
                _check(await admin.create_topics(missing))
    except (KafkaError, OSError) as error:
        raise LogUnavailable(
            f"could not create topics at `{url.servers}`: {reason_of(error)}"
        ) from error
    return [topic.name for topic in missing]


def _check(answer: Any) -> None:
    """Raise `LogUnavailable` for a topic that is not there after all."""
    for name, code, *message in answer.topic_errors:
        kind = for_code(code)
        if code != 0 and kind is not TopicAlreadyExistsError:
            raise LogUnavailable(f"creating topic `{name}` failed: {kind.__name__} {message}")

"""What the user of a Kafka URL may do, as the brokers tell it: nothing is written to find out.

Requests and answers as in Kafka's protocol guide, "Metadata API" version 8 and "DescribeGroups API"
version 3: the first ones that tell a user's operations (KIP-430, Kafka 2.3). aiokafka knows
neither in full.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, NamedTuple

from aiokafka.errors import (
    GroupAuthorizationFailedError,
    GroupCoordinatorNotAvailableError,
    TopicAuthorizationFailedError,
)
from aiokafka.protocol.admin import DescribeGroupsResponse_v3
from aiokafka.protocol.api import Request, RequestStruct
from aiokafka.protocol.metadata import MetadataResponse_v5
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String

READ: Final = 1 << 3
WRITE: Final = 1 << 4
"""Bits of an operation, by its code in Kafka's `AclOperation`."""
COORDINATOR_LOOKS_MAX: Final = 20
COORDINATOR_LOOK_EVERY_S: Final = 0.2


class TopicGrantsResponse(MetadataResponse_v5):  # type: ignore[misc]  # no types for it
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            Array(
                ("node_id", Int32),
                ("host", String("utf-8")),
                ("port", Int32),
                ("rack", String("utf-8")),
            ),
        ),
        ("cluster_id", String("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("topic", String("utf-8")),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
        ("cluster_authorized_operations", Int32),
    )


class TopicGrantsStruct(RequestStruct):  # type: ignore[misc]  # aiokafka ships no types for it
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = TopicGrantsResponse
    SCHEMA = Schema(
        ("topics", Array(String("utf-8"))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class TopicGrants(Request[TopicGrantsStruct]):  # type: ignore[misc]  # as above
    API_KEY = 3

    def __init__(self, topics: list[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[TopicGrantsStruct]) -> TopicGrantsStruct:
        return request_struct_class(self._topics, False, False, True)


class GroupGrantsStruct(RequestStruct):  # type: ignore[misc]  # aiokafka ships no types for it
    API_KEY = 15
    API_VERSION = 3
    RESPONSE_TYPE = DescribeGroupsResponse_v3
    SCHEMA = Schema(("groups", Array(String("utf-8"))), ("include_authorized_operations", Boolean))


class GroupGrants(Request[GroupGrantsStruct]):  # type: ignore[misc]  # as above
    API_KEY = 15

    def __init__(self, group: str) -> None:
        self._group = group

    def build(self, request_struct_class: type[GroupGrantsStruct]) -> GroupGrantsStruct:
        return request_struct_class([self._group], True)


class Lacking(NamedTuple):
    """An operation that the user may not do."""

    operation: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.operation} on {self.kind} `{self.name}`"


async def lacking_on_topics(admin: Any, topics: list[str]) -> list[Lacking]:
    """Describe, Read and Write as far as they lack; a topic that is not there lacks nothing."""
    answer = await admin._send_request(TopicGrants(topics))
    lacking: list[Lacking] = []
    for code, name, _, _, operations in answer.topics:
        if code == TopicAuthorizationFailedError.errno:
            lacking.append(Lacking("Describe", "topic", name))
        elif code == 0:
            wanted = {"Read": READ, "Write": WRITE}
            lacking += [
                Lacking(each, "topic", name) for each, bit in wanted.items() if not operations & bit
            ]
    return lacking


async def lacking_on_groups(admin: Any, groups: list[str]) -> list[Lacking]:
    """Read, without which a member neither joins nor commits."""
    lacking: list[Lacking] = []
    for name in groups:
        try:
            answer = await admin._send_request(GroupGrants(name), await _coordinator(admin, name))
        except GroupAuthorizationFailedError:
            lacking.append(Lacking("Read", "group", name))
            continue
        [(code, *_, operations)] = answer.groups
        if code != 0 or not operations & READ:
            lacking.append(Lacking("Read", "group", name))
    return lacking


async def _coordinator(admin: Any, group: str) -> int:
    """The broker of a group; a new cluster chooses it at the first question, a while later."""
    for _ in range(COORDINATOR_LOOKS_MAX):
        try:
            return int(await admin.find_coordinator(group))
        except GroupCoordinatorNotAvailableError:
            await asyncio.sleep(COORDINATOR_LOOK_EVERY_S)
    return int(await admin.find_coordinator(group))

"""The fault proxy under the name that tests knew it by."""

from __future__ import annotations

from headrace.loadtest.fault_proxy import (
    BlackHole,
    CutMidReply,
    Delay,
    DuplicateReply,
    Fault,
    FaultProxy,
    Garble,
    Pass,
    Refuse,
    SlowDrip,
    SwapReplies,
    cql_reply_end,
    kafka_reply_end,
    resp_reply_end,
)

__all__ = [
    "BlackHole",
    "CutMidReply",
    "Delay",
    "DuplicateReply",
    "Fault",
    "FaultProxy",
    "Garble",
    "Pass",
    "Refuse",
    "SlowDrip",
    "SwapReplies",
    "cql_reply_end",
    "kafka_reply_end",
    "resp_reply_end",
]

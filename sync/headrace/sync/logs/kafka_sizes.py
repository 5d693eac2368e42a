"""How large records on Kafka get, and what the topics that `apply` makes therefore take.

A broker compares `max.message.bytes` with the batch as it comes, compressed; a record beyond
`BATCH_BYTES` is a batch of its own. Topics that others made may take less: the default of a broker
is about 1 MiB.
"""

from __future__ import annotations

from headrace.sync.ports import COMMAND_BYTES_MAX

BATCH_BYTES = 128 * 1024

HEAD_BYTES_MAX = 128 * 1024
"""Beside the value: key, headers of record and batch, what a compressor adds where nothing can be
compressed; of a letter also its reason."""

COMMAND_TOPIC_BYTES_MAX = COMMAND_BYTES_MAX + HEAD_BYTES_MAX
"""`max.message.bytes` of the command topics."""

DEAD_LETTER_TOPIC_BYTES_MAX = (COMMAND_TOPIC_BYTES_MAX + 2) // 3 * 4 + HEAD_BYTES_MAX
"""`max.message.bytes` of the dead letters: base64 makes four bytes of three (RFC 4648, 4)."""

LETTER_CUTS_BYTES = (64 * 1024, 512, 0)
"""Bytes of a command that a letter keeps where the topic does not take all; 0 always fits."""
LETTER_KEY_BYTES_MAX = 512
LETTER_MESSAGE_CHARACTERS_MAX = 512

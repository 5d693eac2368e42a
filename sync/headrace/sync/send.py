"""Commands from a file of JSON lines to the command log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import islice
from typing import IO

import msgspec

from headrace.codec import Catalog, encode_commands
from headrace.sync.clock import ClockMs, wall_clock_ms
from headrace.sync.ports import CommandProducer, Topic
from headrace.sync.writer import reason

LINE_BYTES_MAX = 1 << 20
CHUNK_LINES = 1_000


class RefusedLine(msgspec.Struct, frozen=True):
    """One line that is no command this catalog can apply; lines count from 1."""

    line: int
    code: str
    message: str


class Line(msgspec.Struct, frozen=True):
    """One line that is not blank; `text` is None when it is longer than `LINE_BYTES_MAX`."""

    number: int
    text: bytes | None


async def send_lines(
    source: IO[bytes],
    producer: CommandProducer,
    catalog: Catalog,
    topic: Topic,
    *,
    on_chunk: Callable[[int, list[RefusedLine]], None],
    now_ms: ClockMs = wall_clock_ms,
) -> None:
    """Append every good line; the others are reported and not appended.

    `on_chunk` is told after each chunk how many commands became durable, and the lines refused.
    Raises `LogUnavailable`; the commands reported so far are on the log then.
    """
    lines = read_lines(source)
    while chunk := await asyncio.to_thread(lambda: list(islice(lines, CHUNK_LINES))):
        texts = [line for line in chunk if line.text is not None]
        payloads = [line.text for line in texts if line.text is not None]
        batch = encode_commands(catalog, payloads, now_ms=now_ms())
        refused = [
            RefusedLine(texts[rejection.index].number, rejection.code, reason(rejection))
            for rejection in batch.rejections
        ]
        refused += [
            RefusedLine(line.number, "TOO_LONG", f"the line is longer than {LINE_BYTES_MAX} bytes")
            for line in chunk
            if line.text is None
        ]
        records = [(key, payloads[index]) for index, _, key, _ in batch.coordinates()]
        placed = await producer.append(topic, records)
        on_chunk(len(placed), sorted(refused, key=lambda line: line.line))


def read_lines(source: IO[bytes]) -> Iterator[Line]:
    """Lines that are not blank, in bounded memory however long a line is."""
    number = 0
    while piece := source.readline(LINE_BYTES_MAX + 1):
        number += 1
        too_long = len(piece) > LINE_BYTES_MAX and not piece.endswith(b"\n")
        while too_long and piece and not piece.endswith(b"\n"):
            piece = source.readline(LINE_BYTES_MAX + 1)
        if too_long:
            yield Line(number, None)
        elif text := piece.strip():
            yield Line(number, text)

"""Commands from a file of JSON lines to the command log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import IO

import msgspec

from headrace.codec import Catalog, encode_commands
from headrace.sync.clock import ClockMs, wall_clock_ms
from headrace.sync.errors import RecordTooLarge
from headrace.sync.ports import COMMAND_BYTES_MAX, CommandProducer, Coordinates, Topic
from headrace.sync.writer import reason

LINE_BYTES_MAX = COMMAND_BYTES_MAX
CHUNK_LINES = 1_000
CHUNK_BYTES = 2 * COMMAND_BYTES_MAX
"""A chunk ends with the line that reaches this."""


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
    while chunk := await asyncio.to_thread(_chunk, lines):
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
        accepted = [(index, key) for index, _, key, _ in batch.coordinates()]
        places: Sequence[Coordinates | None]
        try:
            places = await producer.append(topic, [(key, payloads[at]) for at, key in accepted])
        except RecordTooLarge as error:
            places = error.places
            refused += [
                RefusedLine(texts[index].number, error.code, str(error))
                for (index, _), place in zip(accepted, places, strict=True)
                if place is None
            ]
        appended = sum(place is not None for place in places)
        on_chunk(appended, sorted(refused, key=lambda line: line.line))


def _chunk(lines: Iterator[Line]) -> list[Line]:
    """The next lines, bounded in number and bytes."""
    chunk: list[Line] = []
    size_bytes = 0
    for line in islice(lines, CHUNK_LINES):
        chunk.append(line)
        size_bytes += len(line.text or b"")
        if size_bytes >= CHUNK_BYTES:
            break
    return chunk


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

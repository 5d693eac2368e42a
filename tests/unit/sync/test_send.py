"""Lines of a file to the log: good ones appended, the others named by their line."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from room_commands import OBJECT, START_MS, Command, document

from headrace.codec import Catalog, encode_commands, partition_key
from headrace.registry.catalog import encode_document
from headrace.sync.errors import RecordTooLarge
from headrace.sync.logs.memory import MemoryCommandLog, MemoryProducer
from headrace.sync.ports import COMMAND_BYTES_MAX, Coordinates, Topic
from headrace.sync.send import CHUNK_BYTES, LINE_BYTES_MAX, RefusedLine, read_lines, send_lines

NOW_MS = START_MS + 1_000_000


def _line(room_id: int) -> bytes:
    return Command(OBJECT, "UPDATE", room_id, START_MS, {"viewers": room_id}).payload


class Sent:
    """What one call of `send_lines` did."""

    def __init__(self) -> None:
        self.log = MemoryCommandLog()
        self.catalog = Catalog(encode_document(document()))
        self.appended = 0
        self.refused: list[RefusedLine] = []

    def count(self, appended: int, refused: list[RefusedLine]) -> None:
        self.appended += appended
        self.refused += refused

    async def send(self, text: bytes, topic: Topic = "realtime") -> None:
        producer = self.log.producer()
        await send_lines(
            io.BytesIO(text),
            producer,
            self.catalog,
            topic,
            on_chunk=self.count,
            now_ms=lambda: NOW_MS,
        )


@pytest.fixture
def sent() -> Sent:
    return Sent()


async def test_every_good_line_is_appended_byte_for_byte(sent: Sent) -> None:
    lines = [_line(room) for room in range(2_500)]
    await sent.send(b"\n".join(lines))
    records = await sent.log.consumer("realtime", "look").poll(rows_max=9_999, wait_ms=0)
    assert sorted(record.value for record in records) == sorted(lines)
    assert (sent.appended, sent.refused) == (2_500, [])


async def test_a_commands_partition_key_is_its_key_bytes(sent: Sent) -> None:
    await sent.send(_line(7))
    (record,) = await sent.log.consumer("realtime", "look").poll(rows_max=9, wait_ms=0)
    assert record.key == partition_key(sent.catalog, _line(7))


async def test_a_bad_line_is_named_and_the_others_are_appended(sent: Sent) -> None:
    text = b"\n".join([_line(1), b"", b"{", _line(2), _line(3).replace(b"viewers", b"watchers")])
    await sent.send(text)
    assert sent.appended == 2
    assert [(line.line, line.code) for line in sent.refused][1] == (5, "UNKNOWN_FIELD")
    assert sent.refused[0].line == 3


async def test_lines_go_to_the_topic_asked_for(sent: Sent) -> None:
    await sent.send(_line(1), "bulk")
    assert len(await sent.log.consumer("bulk", "look").poll(rows_max=9, wait_ms=0)) == 1


async def test_a_line_beyond_the_bound_is_named_without_being_held(sent: Sent) -> None:
    text = b"\n".join([_line(1), b"x" * (3 * LINE_BYTES_MAX + 7), _line(2)])
    await sent.send(text)
    assert sent.appended == 2
    assert [(line.line, line.code) for line in sent.refused] == [(2, "TOO_LONG")]


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"], ids=["lf", "crlf"])
def test_lines_are_counted_from_one_and_blank_ones_are_passed_over(ending: bytes) -> None:
    lines = list(read_lines(io.BytesIO(ending.join([b"a", b"", b"  ", b"b"]))))
    assert [(line.number, line.text) for line in lines] == [(1, b"a"), (4, b"b")]


def test_a_line_of_exactly_the_bound_is_read() -> None:
    (line,) = read_lines(io.BytesIO(b"x" * LINE_BYTES_MAX + b"\n"))
    assert line.text is not None
    assert len(line.text) == LINE_BYTES_MAX


class SmallLog(MemoryProducer):
    """Takes nothing beyond some bytes."""

    async def append(
        self, topic: Topic, records: Sequence[tuple[bytes, bytes]]
    ) -> list[Coordinates]:
        small = [record for record in records if len(record[1]) < 300]
        placed = iter(await super().append(topic, small))
        places = [next(placed) if len(value) < 300 else None for _, value in records]
        raise RecordTooLarge("refused for its size", places)


async def test_a_line_larger_than_the_log_takes_is_refused_alone(sent: Sent) -> None:
    large = Command(OBJECT, "UPDATE", 2, START_MS, {"title": "x" * 300}).payload
    text = io.BytesIO(b"\n".join([_line(1), large, _line(3)]))
    await send_lines(
        text,
        SmallLog(sent.log),
        sent.catalog,
        "realtime",
        on_chunk=sent.count,
        now_ms=lambda: NOW_MS,
    )
    assert sent.appended == 2
    assert sent.refused == [RefusedLine(2, "TOO_LARGE", "refused for its size")]


async def test_lines_go_to_the_log_in_chunks_of_bounded_bytes(sent: Sent) -> None:
    title = "x" * 1_000_000
    lines = [Command(OBJECT, "UPDATE", n, START_MS, {"title": title}).payload for n in range(20)]
    chunks: list[int] = []

    def count(appended: int, refused: list[RefusedLine]) -> None:
        chunks.append(appended)

    await send_lines(
        io.BytesIO(b"\n".join(lines)),
        sent.log.producer(),
        sent.catalog,
        "realtime",
        on_chunk=count,
        now_ms=lambda: NOW_MS,
    )
    most = CHUNK_BYTES // len(lines[0]) + 1
    assert (sum(chunks), max(chunks)) == (20, most)


def test_the_longest_command_that_the_codec_reads_is_the_one_that_is_told(sent: Sent) -> None:
    lengths = (COMMAND_BYTES_MAX, COMMAND_BYTES_MAX + 1)
    longest = [_line(1).ljust(length) for length in lengths]
    batch = encode_commands(sent.catalog, longest, now_ms=NOW_MS)
    assert [(each.index, each.code) for each in batch.rejections] == [(1, "TOO_LARGE")]

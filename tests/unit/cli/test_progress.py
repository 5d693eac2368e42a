"""The progress line: drawn on a terminal, silent elsewhere but for its last line."""

from __future__ import annotations

import io

from headrace.cli.progress import ProgressLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now_ms = 5_000

    def __call__(self) -> int:
        return self.now_ms


def test_a_terminal_sees_rows_rate_and_time_left() -> None:
    clock, stream = Clock(), Terminal()
    line = ProgressLine("live::x", stream, clock)
    clock.now_ms += 2_000
    line.advance(0, 40_000)
    clock.now_ms += 2_000
    line.advance(10_000, 40_000)
    assert stream.getvalue().split("\r")[-1] == (
        "live::x  ██████░░░░░░░░░░░░░░░░░░  25%  10,000/40,000 rows  2,500 rows/s  00:12 left\x1b[K"
    )


def test_a_resumed_run_is_rated_by_what_it_did_itself() -> None:
    clock, stream = Clock(), Terminal()
    line = ProgressLine("live::x", stream, clock)
    line.advance(30_000, 40_000)
    clock.now_ms += 1_000
    line.advance(35_000, 40_000)
    assert "5,000 rows/s  00:01 left" in stream.getvalue()


def test_the_line_is_not_redrawn_for_every_chunk() -> None:
    clock, stream = Clock(), Terminal()
    line = ProgressLine("live::x", stream, clock)
    for row in range(1_000):
        clock.now_ms += 1
        line.advance(row, 1_000)
    assert stream.getvalue().count("\r") <= 11


def test_elsewhere_only_the_last_sentence_is_written() -> None:
    stream = io.StringIO()
    line = ProgressLine("live::x", stream, Clock())
    line.advance(0, 10)
    line.advance(10, 10)
    line.finish("live::x: sent 10")
    assert stream.getvalue() == "live::x: sent 10\n"


def test_a_long_run_shows_hours() -> None:
    clock, stream = Clock(), Terminal()
    line = ProgressLine("live::x", stream, clock)
    line.advance(0, 100_000)
    clock.now_ms += 1_000
    line.advance(10, 100_000)
    assert "2:46:39 left" in stream.getvalue()


def test_a_run_of_no_rows_draws_nothing() -> None:
    stream = Terminal()
    ProgressLine("live::x", stream, Clock()).advance(0, 0)
    assert stream.getvalue() == ""

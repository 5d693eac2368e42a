"""A progress line: rows, rate and time left on a terminal; one closing line anywhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, Final

REDRAW_MS: Final = 100
BAR_WIDTH: Final = 24


class ProgressLine:
    """Draws how far one job is. `steady_ms` is a clock whose differences count."""

    def __init__(self, title: str, stream: IO[str], steady_ms: Callable[[], int]) -> None:
        self._title = title
        self._stream = stream
        self._steady_ms = steady_ms
        self._is_terminal = stream.isatty()
        self._started_ms = steady_ms()
        self._first_row: int | None = None
        self._drawn_ms = self._started_ms - REDRAW_MS

    def advance(self, rows_done: int, rows_total: int) -> None:
        """Tell that `rows_done` of `rows_total` are done; the first call tells where it began."""
        if self._first_row is None:
            self._first_row = rows_done
        now_ms = self._steady_ms()
        if self._is_terminal and now_ms - self._drawn_ms >= REDRAW_MS and rows_total > 0:
            self._drawn_ms = now_ms
            self._stream.write(f"\r{self._line(rows_done, rows_total, now_ms)}\x1b[K")
            self._stream.flush()

    def finish(self, sentence: str) -> None:
        """End the line and say how it went."""
        start = "\r\x1b[K" if self._is_terminal else ""
        self._stream.write(f"{start}{sentence}\n")
        self._stream.flush()

    def rows_per_s(self, rows: int) -> float:
        """The rate of `rows` since the start."""
        return rows * 1000 / max(1, self._steady_ms() - self._started_ms)

    def _line(self, rows_done: int, rows_total: int, now_ms: int) -> str:
        filled = BAR_WIDTH * rows_done // rows_total
        bar = "█" * filled + "░" * (BAR_WIDTH - filled)
        share = 100 * rows_done // rows_total
        rate = (rows_done - (self._first_row or 0)) * 1000 / max(1, now_ms - self._started_ms)
        left = _duration((rows_total - rows_done) / rate) if rate > 0 else "--:--"
        counts = f"{rows_done:,}/{rows_total:,} rows"
        return f"{self._title}  {bar} {share:3}%  {counts}  {rate:,.0f} rows/s  {left} left"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"

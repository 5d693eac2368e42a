"""SIGTERM and Ctrl-C: the first drains, the second kills.

Exit status: 0 after a drain; after the second signal that of any process killed by it, which shells
show as 143 (SIGTERM) or 130 (SIGINT). What a killed role had in hand is done again when it starts
next, which changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Final, Self

STOPPING_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

logger = logging.getLogger(__name__)


class StopSignals:
    """Calls `stop` at the first of some signals; the second kills the process at once."""

    def __init__(
        self, stop: Callable[[], None], numbers: Sequence[signal.Signals] = STOPPING_SIGNALS
    ) -> None:
        self._stop = stop
        self._numbers = numbers
        self._seen = False

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in self._numbers:
            loop.add_signal_handler(number, self._receive, number)
        return self

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in self._numbers:
            loop.remove_signal_handler(number)

    def _receive(self, number: signal.Signals) -> None:
        if self._seen:
            die_of(number)
        self._seen = True
        logger.info("stopping; the same signal again ends it at once")
        self._stop()


@contextmanager
def stop_with_parent(lifeline: int | None, stop: Callable[[], None]) -> Generator[None]:
    """Call `stop` when `lifeline`, the reading end of a pipe, says that the writing end is gone."""
    if lifeline is None:
        yield
        return
    loop = asyncio.get_running_loop()

    def orphaned() -> None:
        loop.remove_reader(lifeline)
        logger.warning("the parent process is gone; stopping")
        stop()

    loop.add_reader(lifeline, orphaned)
    try:
        yield
    finally:
        loop.remove_reader(lifeline)


def die_of(number: int) -> None:
    """End this process by a signal, as if nothing had ever handled it."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)

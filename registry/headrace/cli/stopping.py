"""SIGTERM and Ctrl-C: the first drains, the second kills."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Final, Self

STOPPING_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Calls `stop` at the first SIGTERM or SIGINT; the second kills the process at once."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._seen = False

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in STOPPING_SIGNALS:
            loop.add_signal_handler(number, self._receive, number)
        return self

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in STOPPING_SIGNALS:
            loop.remove_signal_handler(number)

    def _receive(self, number: signal.Signals) -> None:
        if not self._seen:
            self._seen = True
            self._stop()
            return
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

"""The real servers that tests share: started together at the first ask, and how long each took."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from headrace.loadtest.servers import Server
from headrace.loadtest.servers.process import READY_LIMIT_S

Starter = Callable[[Path], Server]


class SharedServers:
    """Starts all of them in threads at the first ask; a server that fails fails its tests."""

    def __init__(self, starters: Mapping[str, Starter], folder: Path) -> None:
        self._starters = starters
        self._folder = folder
        self._threads = ThreadPoolExecutor(len(starters))
        self._started: dict[str, Future[Server]] = {}
        self._asked_s = 0.0
        self._took_s: dict[str, float] = {}

    def get(self, name: str) -> Server:
        """The running server of that name."""
        if not self._started:
            self._asked_s = time.monotonic()
            for each in self._starters:
                self._started[each] = self._threads.submit(self._start, each)
        return self._started[name].result()

    def stop(self) -> None:
        """End every server that was started, and wait for those still starting."""
        for starting in self._started.values():
            if starting.exception() is None:
                starting.result().stop()
        self._threads.shutdown()

    def summary(self) -> str | None:
        """One line on how long each start took; None when nobody asked for a server."""
        if not self._started:
            return None
        told = [self._told(name) for name in self._started]
        together_s = max(self._took_s.values(), default=0.0)
        return (
            f"servers started: {', '.join(told)}; {together_s:.1f} s together "
            f"(each may take {READY_LIMIT_S:.0f} s)"
        )

    def _start(self, name: str) -> Server:
        try:
            return self._starters[name](self._folder / name.replace(" ", "-"))
        finally:
            self._took_s[name] = time.monotonic() - self._asked_s

    def _told(self, name: str) -> str:
        starting = self._started[name]
        if not starting.done():
            return f"{name} still starting"
        failed = " failed" if starting.exception() is not None else ""
        return f"{name}{failed} {self._took_s[name]:.1f} s"


STARTED = pytest.StashKey[list[SharedServers]]()
"""What a run started, told at its end."""

"""Driver sessions: one made at once, and one that comes when its cluster does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

from acsylla.errors import CassErrorLibNoHostsAvailable

from headrace.registry.errors import SettingsError

logger = logging.getLogger(__name__)

FIRST_WAIT_S: Final = 0.1
WAIT_MAX_S: Final = 2.0
DRAIN_LIMIT_S: Final = 2.0

Connect = Callable[[], Awaitable[Any]]
"""Makes a session; raises `SettingsError` with the reason why there is none yet."""


class LateSession:
    """A session that may not be there yet: until then every call says why it cannot be reached.

    Once connected its calls are the session's own, and reconnecting is the driver's business.
    """

    def __init__(self, connect: Connect, *, draw: Callable[[], float] = random.random) -> None:
        self._connect = connect
        self._draw = draw
        self._session: Any = None
        self._problem = "not connected yet"
        self.execute: Callable[..., Awaitable[Any]] = self._refuse
        self.create_prepared: Callable[..., Awaitable[Any]] = self._refuse
        self.query: Callable[..., Awaitable[Any]] = self._refuse
        self._connecting = asyncio.create_task(self._run())

    @property
    def connected(self) -> bool:
        return self._session is not None

    def metrics(self) -> Any:
        """The driver's own numbers; None while there is no session."""
        return None if self._session is None else self._session.metrics()

    async def close(self) -> None:
        """End the session, or the attempts to make one."""
        self._connecting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._connecting
        if self._session is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._session.close(), DRAIN_LIMIT_S)

    async def _refuse(self, *_: object, **__: object) -> Any:
        raise CassErrorLibNoHostsAvailable(self._problem)

    async def _run(self) -> None:
        """Try until there is a session: exponential waits, jittered so that processes spread."""
        wait_s = FIRST_WAIT_S
        while self._session is None:
            try:
                self._session = await self._connect()
            except SettingsError as error:
                if str(error) != self._problem:
                    self._problem = str(error)
                    logger.warning("the online store is missing", extra={"problem": self._problem})
                await asyncio.sleep(wait_s * (0.5 + self._draw() / 2))
                wait_s = min(WAIT_MAX_S, wait_s * 2)
        session = self._session
        self.execute, self.query = session.execute, session.query
        self.create_prepared = session.create_prepared
        logger.info("the online store is connected")

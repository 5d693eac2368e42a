"""The gateway's side of a command log: appends, and knows at any time whether it answers.

A log that is down must not hold callers for as long as a client of it goes on trying: once a look
has failed, appends are refused at once, those under way too, until a look succeeds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from headrace.gateway.errors import LogUnavailable
from headrace.gateway.ports import Appended
from headrace.sync import errors

if TYPE_CHECKING:
    from headrace.sync.ports import CommandProducer, Coordinates

LOOK_EVERY_S = 2.0
LOOK_AGAIN_S = 0.5

logger = logging.getLogger(__name__)


class LogAppender:
    """The gateway's `CommandAppender` over a command log's producer.

    `problem` says why the log cannot be reached, None while it can, or nobody has looked yet.
    """

    def __init__(self, producer: CommandProducer) -> None:
        self._producer = producer
        self._under_way: set[asyncio.Future[Sequence[Coordinates | None]]] = set()
        self._look_now = asyncio.Event()
        self.problem: str | None = None

    async def append(self, records: Sequence[tuple[bytes, bytes]]) -> Sequence[Appended | None]:
        """Append to the real-time topic; raises the gateway's `LogUnavailable`.

        What was refused while under way may still arrive; sending it again changes nothing.
        """
        if self.problem is not None:
            raise _refusal(self.problem)
        appending = asyncio.ensure_future(self._places(records))
        self._under_way.add(appending)
        try:
            await asyncio.wait({appending})
        finally:
            self._under_way.discard(appending)
            appending.cancel()
        if appending.cancelled():
            raise _refusal(self.problem or "it was closed")
        try:
            places = appending.result()
        except errors.LogUnavailable as error:
            self._look_now.set()
            raise _refusal(str(error)) from None
        return [
            None if place is None else Appended(place.topic, place.partition, place.offset)
            for place in places
        ]

    async def _places(self, records: Sequence[tuple[bytes, bytes]]) -> Sequence[Coordinates | None]:
        try:
            return await self._producer.append("realtime", records)
        except errors.RecordTooLarge as error:
            return error.places

    async def watch(self) -> None:
        """Look at the log until cancelled, and say when it goes and comes."""
        while True:
            self._look_now.clear()
            await self._look()
            wait_s = LOOK_EVERY_S if self.problem is None else LOOK_AGAIN_S
            try:
                async with asyncio.timeout(wait_s):
                    await self._look_now.wait()
            except TimeoutError:
                continue

    async def _look(self) -> None:
        try:
            await self._producer.reach()
        except errors.LogUnavailable as error:
            if self.problem is None:
                logger.warning("command log unreachable", extra={"error": str(error)})
            self.problem = str(error)
            for appending in self._under_way:
                appending.cancel()
        else:
            if self.problem is not None:
                logger.info("command log reachable again")
            self.problem = None


def _refusal(problem: str) -> LogUnavailable:
    return LogUnavailable(f"the command log cannot be reached: {problem}")

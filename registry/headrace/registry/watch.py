"""The newest catalog generation in a running process: polled, compiled, swapped atomically.

A generation that cannot be loaded leaves the last good one in force, and `problem` says why for
/readyz and metrics (semantics 23).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import msgspec

from headrace.registry.catalog import (
    DOCUMENT_FORMAT,
    CatalogDocument,
    decode_document,
    decode_in_portions,
)
from headrace.registry.errors import CatalogUnreadable
from headrace.registry.ports import CatalogReader

if TYPE_CHECKING:
    from headrace.codec import Catalog

logger = logging.getLogger(__name__)

POLL_INTERVAL_MS: Final = 250
"""With loading and compiling, a new generation is in force within a second (product 7)."""

Clock = Callable[[], int]
Sleep = Callable[[float], Awaitable[None]]


class LiveCatalog(msgspec.Struct, frozen=True):
    """One generation: the compiled catalog and the document it was compiled from."""

    compiled: Catalog
    document: CatalogDocument
    loaded_at_ms: int

    @property
    def generation(self) -> int:
        return self.document.generation


Subscriber = Callable[[LiveCatalog], None]


AT_ONCE_BYTES_MAX: Final = 32 * 1024
"""A document up to this size is compiled in one turn of the loop, in about a millisecond."""
FREED_A_TURN: Final = 16
"""Groups of an old document that are let go in one turn of the loop."""


def compile_document(text: bytes) -> tuple[Catalog, CatalogDocument]:
    """Decode and compile a published document; raises `CatalogUnreadable` with the reason."""
    try:
        document = decode_document(text)
    except msgspec.DecodeError as error:
        raise _unreadable(error) from None
    _check_format(document)
    return _compile(text, document.generation), document


async def compile_beside(text: bytes) -> tuple[Catalog, CatalogDocument]:
    """`compile_document` while the loop answers requests: in portions, and in a thread.

    The thread compiles without holding the interpreter.
    """
    if len(text) <= AT_ONCE_BYTES_MAX:
        return compile_document(text)
    portions = decode_in_portions(text)
    try:
        while True:
            next(portions)
            await asyncio.sleep(0)
    except StopIteration as end:
        document: CatalogDocument = end.value
    except msgspec.DecodeError as error:
        raise _unreadable(error) from None
    _check_format(document)
    return await asyncio.to_thread(_compile, text, document.generation), document


def _unreadable(error: msgspec.DecodeError) -> CatalogUnreadable:
    return CatalogUnreadable(f"the catalog document cannot be read: {error}")


def _check_format(document: CatalogDocument) -> None:
    if document.format > DOCUMENT_FORMAT:
        raise CatalogUnreadable(
            f"the catalog document has format {document.format}, this version reads "
            f"{DOCUMENT_FORMAT}; upgrade this process"
        )


def _compile(text: bytes, generation: int) -> Catalog:
    from headrace.codec import Catalog, CodecError

    try:
        return Catalog(text)
    except CodecError as error:
        raise CatalogUnreadable(f"generation {generation} cannot be compiled: {error}") from None


class CatalogWatcher:
    """Owns the process's view of the catalog. Not thread-safe: one event loop uses it."""

    def __init__(
        self,
        reader: CatalogReader,
        clock: Clock,
        *,
        interval_ms: int = POLL_INTERVAL_MS,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.current: LiveCatalog | None = None
        self.problem: str | None = None
        """Why the newest generation is not in force; None when it is."""
        self.unreachable: str | None = "not asked yet"
        """Why the store that holds the catalog did not answer the last look; None when it did."""
        self._reader = reader
        self._clock = clock
        self._interval_s = interval_ms / 1000
        self._sleep = sleep
        self._subscribers: list[Subscriber] = []
        self._lock = asyncio.Lock()
        self._looks = 0
        self._seen_generation: int | None = None

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call `subscriber` with each generation, the present one first, in one turn of the loop.

        Returns what ends the subscription. A subscriber must not raise and must not wait.
        """
        self._subscribers.append(subscriber)
        if self.current is not None:
            subscriber(self.current)
        return lambda: self._subscribers.remove(subscriber)

    async def refresh(self) -> LiveCatalog | None:
        """Look at the store once and answer what is then in force; never raises.

        Single flight (semantics 20): a caller waits for a look that began after it asked, and all
        who wait meanwhile share it.
        """
        wanted = self._looks + 1
        async with self._lock:
            if self._looks < wanted:
                self._looks += 1
                await self._look()
        return self.current

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            await self.refresh()
            await self._sleep(self._interval_s)

    async def _look(self) -> None:
        try:
            generation = await self._reader.generation()
            self._answered()
            if generation != self._seen_generation:
                await self._load(generation)
            elif self.current is not None and self.current.generation == generation:
                self.problem = None
        except Exception as error:  # noqa: BLE001 - an engine's own; the last good catalog stays
            self.unreachable = str(error) or type(error).__name__
            self._reject(f"the catalog cannot be loaded: {self.unreachable}")

    async def _load(self, generation: int) -> None:
        text = await self._reader.load()
        if text is None:
            return
        try:
            compiled, document = await compile_beside(text)
        except CatalogUnreadable as error:
            # Not tried again before another generation comes: the document stays what it is.
            self._seen_generation = generation
            self._reject(str(error))
            return
        # A store may show the number before the document; then this is looked at again.
        self._seen_generation = document.generation
        live = LiveCatalog(compiled, document, self._clock())
        old, self.current, self.problem = self.current, live, None
        for subscriber in tuple(self._subscribers):
            subscriber(live)
        logger.info("catalog generation %d is in force", live.generation)
        if old is not None:
            parts: list[object] = [*old.document.groups, *old.document.services]
            del old
            await _let_go(parts)

    def _answered(self) -> None:
        if self.unreachable is not None and self.problem is not None:
            logger.info("the store of the catalog answers again")
        self.unreachable = None

    def _reject(self, problem: str) -> None:
        if problem != self.problem:
            logger.warning("catalog not swapped: %s", problem)
        self.problem = problem


async def _let_go(parts: list[object]) -> None:
    """Free a few at a time: 10,000 groups at once would keep requests waiting for 0.1 s."""
    while len(parts) > FREED_A_TURN:
        del parts[-FREED_A_TURN:]
        await asyncio.sleep(0)

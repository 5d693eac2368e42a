"""The read path, the same for the lane and for its ASGI twin.

Over the embedded store a request is one call into Rust. Over a networked one it is begun here, and
its answer may come later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter_ns

from headrace.codec import StaleCatalog
from headrace.gateway.catalog_in_force import CatalogInForce
from headrace.gateway.errors import CatalogMissing
from headrace.gateway.ports import Clock, DirectReads, LateReads, Reads
from headrace.gateway.telemetry import Telemetry


class ReadPath:
    """Answers `/v1/read` bodies with whole HTTP/1.1 responses."""

    __slots__ = ("_clock", "_direct", "_in_force", "_late", "_read", "_telemetry")

    def __init__(
        self,
        engine: Reads | None,
        in_force: CatalogInForce,
        clock: Clock,
        telemetry: Telemetry,
        late: LateReads | None = None,
        direct: DirectReads | None = None,
    ) -> None:
        self._direct = direct
        self._late = late
        if late is not None:
            late.observe = telemetry.observe_read
        if engine is not None:
            self._read = engine.read
        elif late is None:
            raise ValueError("neither reads that answer at once nor late ones were given")
        self._in_force = in_force
        self._clock = clock
        self._telemetry = telemetry

    @property
    def clock(self) -> Clock:
        return self._clock

    @property
    def reader(self) -> DirectReads | Callable[..., bytes | None]:
        """What the lane calls for its reads: Rust itself, or else `start`."""
        return self.start if self._direct is None else self._direct

    @property
    def generation_text(self) -> bytes:
        """The generation as response headers carry it."""
        return self._in_force.generation_text

    def start(
        self,
        body: bytes,
        accept: int,
        request_id: bytes,
        *,
        keep_alive: bool,
        deliver: Callable[[bytes], None],
    ) -> bytes | None:
        """The response, or None: then `deliver` is called with it later, exactly once.

        Raises `StaleCatalog` and `CatalogMissing`, and then delivers nothing.
        """
        late = self._late
        if late is None:
            return self.answer(body, accept, request_id, keep_alive=keep_alive)
        if not self._in_force.loaded:
            raise CatalogMissing(self._in_force.why_missing())
        return late.start(body, accept, request_id, keep_alive=keep_alive, deliver=deliver)

    def answer(
        self,
        body: bytes,
        accept: int,
        request_id: bytes,
        *,
        keep_alive: bool,
        reloaded: bool = False,
    ) -> bytes:
        """The response, at once; raises `StaleCatalog` (unless `reloaded`) and `CatalogMissing`."""
        if not self._in_force.loaded:
            raise CatalogMissing(self._in_force.why_missing())
        started = perf_counter_ns()
        response = self._read(
            body,
            accept=accept,
            now_ms=self._clock(),
            request_id=request_id,
            keep_alive=keep_alive,
            reloaded=reloaded,
        )
        self._telemetry.observe_read(perf_counter_ns() - started, response[9:12])
        return response

    async def answer_fresh(self, body: bytes, accept: int, request_id: bytes) -> bytes:
        """The same for ASGI; a row of a newer catalog makes it load that first (semantics 20)."""
        if self._late is not None:
            late: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

            def deliver(response: bytes) -> None:
                if not late.done():
                    late.set_result(response)

            now = self.start(body, accept, request_id, keep_alive=True, deliver=deliver)
            return now if now is not None else await late
        try:
            return self.answer(body, accept, request_id, keep_alive=True)
        except StaleCatalog:
            self._telemetry.stale_reads += 1
            await self._in_force.refresh()
        return self.answer(body, accept, request_id, keep_alive=True, reloaded=True)

"""The read path: one call into Rust per request, from the lane and from its ASGI twin alike."""

from __future__ import annotations

from time import perf_counter_ns

from headrace.gateway.errors import CatalogMissing
from headrace.gateway.live_catalog import LiveCatalog
from headrace.gateway.ports import Clock, ReadCall, StaleCatalog
from headrace.gateway.telemetry import Telemetry


class ReadPath:
    """Answers `/v1/read` bodies with whole HTTP/1.1 responses."""

    __slots__ = ("_clock", "_engine", "_live", "_telemetry")

    def __init__(
        self, engine: ReadCall, live: LiveCatalog, clock: Clock, telemetry: Telemetry
    ) -> None:
        self._engine = engine
        self._live = live
        self._clock = clock
        self._telemetry = telemetry

    @property
    def generation_text(self) -> bytes:
        """The generation as response headers carry it."""
        return self._live.generation_text

    def answer(self, body: bytes, accept: int, request_id: bytes, *, keep_alive: bool) -> bytes:
        """The response, at once; raises `StaleCatalog` and `CatalogMissing`."""
        if not self._live.loaded:
            raise CatalogMissing(self._live.why_missing())
        started = perf_counter_ns()
        response = self._engine.read(
            body,
            accept=accept,
            now_ms=self._clock(),
            request_id=request_id,
            keep_alive=keep_alive,
        )
        self._telemetry.observe_read(perf_counter_ns() - started, response[9:12])
        return response

    async def answer_fresh(self, body: bytes, accept: int, request_id: bytes) -> bytes:
        """The same, and a row of a newer catalog makes it load that one first (semantics 20)."""
        try:
            return self.answer(body, accept, request_id, keep_alive=True)
        except StaleCatalog:
            self._telemetry.stale_reads += 1
            await self._live.refresh()
        return self.answer(body, accept, request_id, keep_alive=True)

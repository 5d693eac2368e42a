"""The read path: one call into Rust per request, from the lane and from its ASGI twin alike."""

from __future__ import annotations

from time import perf_counter_ns

from headrace.codec import StaleCatalog
from headrace.gateway.catalog_in_force import CatalogInForce
from headrace.gateway.errors import CatalogMissing
from headrace.gateway.ports import Clock, Reads
from headrace.gateway.telemetry import Telemetry


class ReadPath:
    """Answers `/v1/read` bodies with whole HTTP/1.1 responses."""

    __slots__ = ("_clock", "_in_force", "_read", "_telemetry")

    def __init__(
        self, engine: Reads, in_force: CatalogInForce, clock: Clock, telemetry: Telemetry
    ) -> None:
        self._read = engine.read
        self._in_force = in_force
        self._clock = clock
        self._telemetry = telemetry

    @property
    def generation_text(self) -> bytes:
        """The generation as response headers carry it."""
        return self._in_force.generation_text

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
        """The same, and a row of a newer catalog makes it load that one first (semantics 20)."""
        try:
            return self.answer(body, accept, request_id, keep_alive=True)
        except StaleCatalog:
            self._telemetry.stale_reads += 1
            await self._in_force.refresh()
        return self.answer(body, accept, request_id, keep_alive=True, reloaded=True)

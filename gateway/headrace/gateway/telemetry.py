"""Metrics: own counters on the hot path, read out by a collector when Prometheus asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from headrace.codec import ReadTimes
from headrace.gateway.ports import Parts, no_parts

BOUNDS_NS = tuple(ReadTimes.BOUNDS_NS)
"""Upper bounds of the read histogram, in nanoseconds."""

NANOSECONDS = 1_000_000_000


class Telemetry:
    """Counts of one gateway process. Plain attributes: only the event loop's thread writes them."""

    __slots__ = ("_requests", "connections_cut", "observe_read", "reads", "stale_reads")

    def __init__(self, reads: ReadTimes | None = None) -> None:
        self.reads = reads or ReadTimes()
        """Answers by status and time; the lane counts there by itself."""
        self.observe_read = self.reads.observe
        """Count one answer by its nanoseconds and the three digits of its status."""
        self.stale_reads = 0
        self.connections_cut: dict[str, int] = {}
        self._requests: dict[tuple[str, int], int] = {}

    @property
    def lane_requests(self) -> int:
        """Reads that the lane answered."""
        return self.reads.lane_answers

    def count_request(self, route: str, status: int) -> None:
        """One request that went through ASGI, by route template and status."""
        counted = self._requests
        counted[route, status] = counted.get((route, status), 0) + 1

    def count_cut(self, reason: str) -> None:
        """One connection ended by a limit."""
        self.connections_cut[reason] = self.connections_cut.get(reason, 0) + 1

    def requests(self) -> dict[tuple[str, int], int]:
        return dict(self._requests)


class Gauges:
    """What the collector asks for at scrape time; set once by the application."""

    def __init__(
        self,
        *,
        generation: Callable[[], int],
        catalog_rejected: Callable[[], bool],
        draining: Callable[[], bool],
        held_bytes: Callable[[], int],
        connections: Callable[[], int],
        engine_counters: Callable[[], dict[str, int]],
        parts: Parts = no_parts,
    ) -> None:
        self.generation = generation
        self.catalog_rejected = catalog_rejected
        self.draining = draining
        self.held_bytes = held_bytes
        self.connections = connections
        self.engine_counters = engine_counters
        self.parts = parts


class GatewayCollector(Collector):
    """Turns the counts into metric families, once per scrape."""

    def __init__(self, telemetry: Telemetry, gauges: Gauges) -> None:
        self._telemetry = telemetry
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        yield from self._request_families()
        yield from self._gauge_families()
        yield from self._part_families()
        yield from self._engine_families()

    def _request_families(self) -> Iterator[Metric]:
        counts = self._telemetry
        requests = CounterMetricFamily(
            "headrace_http_requests", "Requests by route and status.", labels=["route", "status"]
        )
        for (route, status), number in sorted(counts.requests().items()):
            requests.add_metric([route, str(status)], number)
        yield requests
        reads = CounterMetricFamily(
            "headrace_reads", "Engine reads by response status.", labels=["status"]
        )
        for code, number in counts.reads.totals()[2]:
            reads.add_metric([str(code)], number)
        yield reads
        yield _histogram(counts)
        yield CounterMetricFamily(
            "headrace_lane_requests", "Reads answered by the lane.", value=counts.lane_requests
        )
        yield CounterMetricFamily(
            "headrace_stale_reads", "Reads that met a newer catalog.", value=counts.stale_reads
        )
        cut = CounterMetricFamily(
            "headrace_connections_cut", "Connections ended by a limit.", labels=["reason"]
        )
        for reason, number in sorted(counts.connections_cut.items()):
            cut.add_metric([reason], number)
        yield cut

    def _gauge_families(self) -> Iterator[Metric]:
        gauges = self._gauges
        for name, text, value in (
            ("headrace_catalog_generation", "Catalog generation in force.", gauges.generation()),
            (
                "headrace_catalog_rejected",
                "1 while a newer catalog cannot be loaded.",
                gauges.catalog_rejected(),
            ),
            ("headrace_draining", "1 while shutting down.", gauges.draining()),
            ("headrace_held_bytes", "Unfinished bodies and unread answers.", gauges.held_bytes()),
            ("headrace_connections", "Open connections.", gauges.connections()),
        ):
            yield GaugeMetricFamily(name, text, value=float(value))

    def _part_families(self) -> Iterator[Metric]:
        parts = GaugeMetricFamily(
            "headrace_part_up", "1 while this part can be reached.", labels=["part"]
        )
        for state in self._gauges.parts():
            parts.add_metric([state.part], float(state.problem is None))
        yield parts

    def _engine_families(self) -> Iterator[Metric]:
        engine = CounterMetricFamily(
            "headrace_engine", "Totals of the read engine, by name.", labels=["counter"]
        )
        for name, number in sorted(self._gauges.engine_counters().items()):
            engine.add_metric([name], number)
        yield engine


class Exposition:
    """The metrics of a process as text, the gateway's among them."""

    def __init__(self, registry: CollectorRegistry, collector: Collector) -> None:
        self._registry = registry
        self._registry.register(collector)

    def text(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self._registry)


def _histogram(counts: Telemetry) -> Metric:
    running = 0
    buckets: list[tuple[str, float]] = []
    bucket_counts, total_ns, _ = counts.reads.totals()
    for index, number in enumerate(bucket_counts):
        running += number
        bound = str(BOUNDS_NS[index] / NANOSECONDS) if index < len(BOUNDS_NS) else "+Inf"
        buckets.append((bound, running))
    return HistogramMetricFamily(
        "headrace_read_seconds",
        "Time of one engine read, from body bytes to response bytes.",
        buckets=buckets,
        sum_value=total_ns / NANOSECONDS,
    )

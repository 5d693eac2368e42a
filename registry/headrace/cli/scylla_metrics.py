"""What the store's driver knows of itself, for /metrics: asked of it when Prometheus asks us."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

MICROSECONDS: Final = 1_000_000

QUANTILES: Final = {
    "0.5": "requests_median",
    "0.75": "requests_percentile_75th",
    "0.95": "requests_percentile_95th",
    "0.98": "requests_percentile_98th",
    "0.99": "requests_percentile_99th",
    "0.999": "requests_percentile_999th",
    "1": "requests_max",
}
"""By the driver's names; it keeps a histogram over all requests since the session began."""

WINDOWS: Final = {
    "1m": "requests_one_minute_rate",
    "5m": "requests_five_minute_rate",
    "15m": "requests_fifteen_minute_rate",
}


class DriverCollector(Collector):
    """Metric families of one driver session; `measure` gives its numbers, None without a session.

    Without a session there are no connections, and nothing is said of requests.
    """

    def __init__(self, measure: Callable[[], Any]) -> None:
        self._measure = measure

    def collect(self) -> Iterator[Metric]:
        measured = self._measure()
        yield GaugeMetricFamily(
            "headrace_store_driver_connections",
            "Connections of the driver to nodes of the online store.",
            value=0 if measured is None else measured.stats_total_connections,
        )
        if measured is None:
            return
        yield CounterMetricFamily(
            "headrace_store_driver_request_timeouts",
            "Requests that the store did not answer in time.",
            value=measured.errors_request_timeouts,
        )
        yield CounterMetricFamily(
            "headrace_store_driver_connection_timeouts",
            "Connections to the store that could not be made in time.",
            value=measured.errors_connection_timeouts,
        )
        latencies = GaugeMetricFamily(
            "headrace_store_driver_request_seconds",
            "Time of a request to the store since the session began, by quantile.",
            labels=["quantile"],
        )
        for quantile, name in QUANTILES.items():
            latencies.add_metric([quantile], getattr(measured, name) / MICROSECONDS)
        yield latencies
        rates = GaugeMetricFamily(
            "headrace_store_driver_requests_per_second",
            "Requests to the store, as a moving average over a window.",
            labels=["window"],
        )
        for window, name in WINDOWS.items():
            rates.add_metric([window], getattr(measured, name))
        yield rates

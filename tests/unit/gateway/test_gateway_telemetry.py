"""The read histogram and the exposition."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from headrace.gateway.telemetry import BOUNDS_NS, Exposition, GatewayCollector, Gauges, Telemetry


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


def samples(telemetry: Telemetry) -> dict[tuple[str, str], float]:
    gauges = Gauges(
        generation=lambda: 7,
        catalog_rejected=lambda: True,
        draining=lambda: False,
        held_bytes=lambda: 5,
        connections=lambda: 2,
        engine_counters=lambda: {"plans/hit": 3},
    )
    text = Exposition(CollectorRegistry(), GatewayCollector(telemetry, gauges)).text().decode()
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_buckets_are_cumulative_and_bounds_inclusive(telemetry: Telemetry) -> None:
    for elapsed_ns in (1, BOUNDS_NS[0], BOUNDS_NS[0] + 1, BOUNDS_NS[-1] + 1):
        telemetry.observe_read(elapsed_ns, b"200")
    found = samples(telemetry)
    assert found["headrace_read_seconds_bucket", "1e-05"] == 2
    assert found["headrace_read_seconds_bucket", "2e-05"] == 3
    assert found["headrace_read_seconds_bucket", "0.1"] == 3
    assert found["headrace_read_seconds_bucket", "+Inf"] == 4
    assert found["headrace_read_seconds_count", ""] == 4
    assert found["headrace_read_seconds_sum", ""] == pytest.approx(
        (2 + 2 * BOUNDS_NS[0] + BOUNDS_NS[-1]) / 1e9
    )


def test_counts_and_gauges_are_exposed(telemetry: Telemetry) -> None:
    telemetry.observe_read(5, b"400")
    telemetry.count_request("/livez", 200)
    telemetry.count_cut("idle")
    found = samples(telemetry)
    assert found["headrace_reads_total", "400"] == 1
    assert found["headrace_http_requests_total", "/livez,200"] == 1
    assert found["headrace_connections_cut_total", "idle"] == 1
    assert found["headrace_catalog_generation", ""] == 7
    assert found["headrace_catalog_rejected", ""] == 1
    assert found["headrace_draining", ""] == 0
    assert found["headrace_engine_total", "plans/hit"] == 3

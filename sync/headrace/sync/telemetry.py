"""What the writing side counts: plain Prometheus counters, bound once and updated per batch."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

ROWS_BOUNDS = (1, 10, 100, 500, 1_000, 2_000, 5_000, 10_000)
STAGE_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
DELAY_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3_600)


class SyncTelemetry:
    """The metric families of one process; `topic` binds those of one writer loop."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.batch_rows = Histogram(
            "headrace_writer_batch_rows",
            "Commands of a batch.",
            ["topic"],
            buckets=ROWS_BOUNDS,
            registry=registry,
        )
        self.stage_s = Histogram(
            "headrace_writer_stage_seconds",
            "Time a batch spends in one stage of the writer.",
            ["topic", "stage"],
            buckets=STAGE_BOUNDS_S,
            registry=registry,
        )
        self.commands = Counter(
            "headrace_writer_commands",
            "Commands by outcome: written, expired on arrival, dead.",
            ["topic", "outcome"],
            registry=registry,
        )
        self.dead_letters = Counter(
            "headrace_writer_dead_letters",
            "Commands sent to the dead-letter topic, by reason.",
            ["topic", "code"],
            registry=registry,
        )
        self.commits = Counter(
            "headrace_writer_commits",
            "Commits of offsets by outcome: done, refused.",
            ["topic", "outcome"],
            registry=registry,
        )
        self.retries = Counter(
            "headrace_writer_retries",
            "Attempts that failed and are tried again, by stage.",
            ["topic", "stage"],
            registry=registry,
        )
        self.lag_rows = Gauge(
            "headrace_writer_lag_rows",
            "Commands on the log that are not committed yet.",
            ["topic"],
            registry=registry,
        )
        self.held_keys = Gauge(
            "headrace_writer_held_keys",
            "Written keys whose cache blocks are still to be invalidated.",
            ["topic"],
            registry=registry,
        )
        self.log_delay_s = Histogram(
            "headrace_writer_log_delay_seconds",
            "From a batch's oldest append to the log until it could be read from the store.",
            ["topic"],
            buckets=DELAY_BOUNDS_S,
            registry=registry,
        )
        self.event_delay_s = Histogram(
            "headrace_writer_event_delay_seconds",
            "From a batch's newest event time until it could be read from the store.",
            ["topic"],
            buckets=DELAY_BOUNDS_S,
            registry=registry,
        )

    def topic(self, topic: str) -> WriterTelemetry:
        return WriterTelemetry(self, topic)


class WriterTelemetry:
    """The metrics of the writer loop on one topic."""

    def __init__(self, families: SyncTelemetry, topic: str) -> None:
        self._families = families
        self._topic = topic
        self.batch_rows = families.batch_rows.labels(topic)
        self.written = families.commands.labels(topic, "written")
        self.expired = families.commands.labels(topic, "expired")
        self.dead = families.commands.labels(topic, "dead")
        self.commits_done = families.commits.labels(topic, "done")
        self.commits_refused = families.commits.labels(topic, "refused")
        self.lag_rows = families.lag_rows.labels(topic)
        self.held_keys = families.held_keys.labels(topic)
        self.log_delay_s = families.log_delay_s.labels(topic)
        self.event_delay_s = families.event_delay_s.labels(topic)

    @contextmanager
    def stage(self, stage: str) -> Generator[None]:
        """Observe how long one stage of one batch takes."""
        start_s = perf_counter()
        try:
            yield
        finally:
            self._families.stage_s.labels(self._topic, stage).observe(perf_counter() - start_s)

    def count_dead(self, code: str) -> None:
        self.dead.inc()
        self._families.dead_letters.labels(self._topic, code).inc()

    def count_retry(self, stage: str) -> None:
        self._families.retries.labels(self._topic, stage).inc()

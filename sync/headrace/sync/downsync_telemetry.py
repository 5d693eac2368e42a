"""What downsync counts, in the registry of its process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class DownsyncTelemetry:
    """The metrics of the downsync loop."""

    def __init__(self, registry: CollectorRegistry) -> None:
        commands = Counter(
            "headrace_downsync_commands",
            "Real-time commands that downsync has handled, by outcome: emitted, left out.",
            ["outcome"],
            registry=registry,
        )
        self.emitted = commands.labels("emitted")
        self.left_out = commands.labels("left out")
        self.waiting_rows = Gauge(
            "headrace_downsync_waiting_rows",
            "Commands that downsync holds until the writer has committed them.",
            registry=registry,
        )

"""Latencies of a run by kind of request: their percentiles as a table and as a plot."""

from __future__ import annotations

import csv
import io
import math
from array import array
from collections.abc import Sequence
from pathlib import Path

from matplotlib import style
from matplotlib.figure import Figure

from headrace.loadtest.peers.plots import STYLE, svg

SHARES = (0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999)


class Latencies:
    """In milliseconds, by name of the request."""

    def __init__(self) -> None:
        self._by_name: dict[str, array[float]] = {}

    def clear(self) -> None:
        """Forget what an earlier run left."""
        self._by_name.clear()

    def note(self, name: str, latency_ms: float) -> None:
        """Add one."""
        self._by_name.setdefault(name, array("f")).append(latency_ms)

    def write(self, folder: Path) -> None:
        """`percentiles.csv` and `percentiles.svg`; the folder is made."""
        folder.mkdir(parents=True, exist_ok=True)
        ordered = {name: sorted(values) for name, values in sorted(self._by_name.items())}
        (folder / "percentiles.csv").write_text(_table(ordered))
        (folder / "percentiles.svg").write_text(svg(_figure(ordered)))


def percentile(ordered: Sequence[float], share: float) -> float:
    """By nearest rank, of latencies in ascending order."""
    return ordered[max(1, math.ceil(share * len(ordered))) - 1]


def _table(ordered: dict[str, list[float]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["request", "count", *(f"p{share * 100:g}_ms" for share in SHARES), "max_ms"])
    for name, values in ordered.items():
        told = [*(percentile(values, share) for share in SHARES), values[-1]]
        writer.writerow([name, len(values), *(f"{value:.3f}" for value in told)])
    return text.getvalue()


def _figure(ordered: dict[str, list[float]]) -> Figure:
    """Latency by percentile; the axis gives each further nine the same room."""
    with style.context(STYLE):
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.add_subplot()
        nines = [-math.log10(1 - share) for share in SHARES]
        for name, values in ordered.items():
            heights = [percentile(values, share) for share in SHARES]
            axes.plot(nines, heights, marker=".", label=name)
        axes.set_xticks(nines, [f"{share * 100:g}" for share in SHARES])
        axes.set(yscale="log", xlabel="percentile", ylabel="ms")
        if ordered:
            axes.legend(frameon=False)
    return figure

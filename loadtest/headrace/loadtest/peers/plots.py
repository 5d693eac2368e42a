"""Plots of the peers page, from the raw results only; the same results give the same bytes."""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLORS = {
    "Headrace": "#0b6e4f",
    "Headrace, Avro answer": "#6bbf59",
    "FastAPI": "#c8553d",
    "FastAPI, tuned": "#f28f3b",
    "Litestar": "#588bc8",
    "Feast": "#6b4e9b",
}
OTHER_COLOR = "#555555"
STYLE: dict[str, Any] = {
    "svg.hashsalt": "headrace",
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
}
PER_KEYS = (1, 10, 100, 500)


def cpu_by_keys(report: dict[str, Any]) -> Figure:
    """Server CPU a request against keys a request, both logarithmic."""

    def draw(fields: str, axes: Axes) -> None:
        for peer in _names(report):
            points = [
                (_keys(entry), _median(entry, "cpu_us"))
                for entry in report["closed"]
                if entry["peer"] == peer and _is_plain(entry, fields)
            ]
            if points:
                points.sort()
                keys, cpu_us = zip(*points, strict=True)
                axes.plot(keys, cpu_us, marker="o", label=peer, color=_color(peer))
        axes.set(xscale="log", yscale="log", xlabel="keys a request", ylabel="server CPU, µs")
        axes.set_xticks(PER_KEYS, [str(keys) for keys in PER_KEYS], minor=False)

    return _side_by_side(
        {
            "20 fields": partial(draw, "record-v1"),
            "250 fields": partial(draw, "wide-v1"),
        }
    )


def cpu_by_absent(report: dict[str, Any]) -> Figure:
    """Server CPU of 100 keys as more of them have no row."""

    def draw(axes: Axes) -> None:
        for peer in _names(report):
            points = sorted(
                (_absent(entry), _median(entry, "cpu_us"))
                for entry in report["closed"]
                if entry["peer"] == peer and entry["cell"].startswith("record-v1, 100 keys")
            )
            if points:
                shares, cpu_us = zip(*points, strict=True)
                axes.plot(shares, cpu_us, marker="o", label=peer, color=_color(peer))
        axes.set(yscale="log", xlabel="% of keys without a row", ylabel="server CPU, µs")

    return _side_by_side({"100 keys of 20 fields": draw})


def latency_by_rate(report: dict[str, Any]) -> Figure:
    """Open-loop p50 and p99 of each server against the rate it is asked at."""

    def draw(keys: int, axes: Axes) -> None:
        for peer in _names(report):
            entries = [
                entry for entry in report["open"] if entry["peer"] == peer and _keys(entry) == keys
            ]
            entries.sort(key=lambda entry: entry["rate"])
            rates = [entry["rate"] for entry in entries]
            for name, dash in (("p99_ms", "-"), ("p50_ms", ":")) if entries else ():
                heights = [_median(entry, name) for entry in entries]
                label = peer if name == "p99_ms" else None
                axes.plot(rates, heights, dash, marker=".", label=label, color=_color(peer))
        axes.set(xscale="log", yscale="log", xlabel="requests a second", ylabel="ms")

    asked = sorted({_keys(entry) for entry in report["open"]})
    panels: dict[str, Callable[[Axes], None]] = {
        f"{keys} {'key' if keys == 1 else 'keys'}: p99, dotted p50": partial(draw, keys)
        for keys in asked
    }
    return _side_by_side(panels)


def svg(figure: Figure) -> str:
    """The figure as text: no date, no random names."""
    with style.context(STYLE):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


PLOTS: dict[str, Callable[[dict[str, Any]], Figure]] = {
    "peers-cpu": cpu_by_keys,
    "peers-absent": cpu_by_absent,
    "peers-latency": latency_by_rate,
}


def _side_by_side(panels: dict[str, Callable[[Axes], None]]) -> Figure:
    with style.context(STYLE):
        figure = Figure(figsize=(4.6 * len(panels) + 1.6, 4.2), layout="constrained")
        handles: dict[str, Any] = {}
        for number, (title, draw) in enumerate(panels.items(), 1):
            axes = figure.add_subplot(1, len(panels), number)
            draw(axes)
            axes.set_title(title)
            found, labels = axes.get_legend_handles_labels()
            handles |= dict(zip(labels, found, strict=True))
        figure.legend(handles.values(), handles.keys(), loc="outside right center", frameon=False)
    return figure


def _names(report: dict[str, Any]) -> list[str]:
    return [peer["name"] for peer in report["peers"]]


def _color(peer: str) -> str:
    return COLORS.get(peer, OTHER_COLOR)


def _keys(entry: dict[str, Any]) -> int:
    return int(entry["cell"].split(", ")[1].partition(" ")[0])


def _absent(entry: dict[str, Any]) -> int:
    parts = entry["cell"].split(", ")
    return int(parts[2].partition(" ")[0]) if len(parts) > 2 else 0


def _is_plain(entry: dict[str, Any], group: str) -> bool:
    return entry["cell"].startswith(group) and not _absent(entry)


def _median(entry: dict[str, Any], name: str) -> float:
    """Of the rounds; an endless latency is not drawn."""
    values = [one[name] for one in entry["rounds"]]
    if any(value is None for value in values):
        return float("nan")
    return float(statistics.median(values))

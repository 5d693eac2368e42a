"""The tables of the peers page, from the raw results only."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

OURS = "Headrace"

Report = dict[str, Any]
Table = tuple[list[str], list[list[str]]]


def answered(report: Report) -> Report:
    """The report without rounds in which any request was refused or failed, and cells of no other.

    A refusal costs a server little: no figure of such a round says what an answer costs.
    """
    kept = [
        entry | {"rounds": [one for one in entry["rounds"] if not one["errors"]]}
        for entry in report["closed"]
    ]
    return report | {"closed": [entry for entry in kept if entry["rounds"]]}


def refused(report: Report) -> str:
    """Which closed-loop cells had rounds that are left out, in a sentence; empty for none."""
    told = [
        f"{entry['cell']} of {entry['peer']} "
        f"({sum(not one['errors'] for one in entry['rounds'])} of {len(entry['rounds'])} kept)"
        for entry in _in_order(report)
        if any(one["errors"] for one in entry["rounds"])
    ]
    if not told:
        return ""
    return (
        " Rounds in which a server refused requests, being asked for more than it can answer in "
        f"time, are left out of all but the raw file: {'; '.join(told)}."
    )


def cpu_table(report: Report) -> Table:
    """Server CPU a request: a row a cell, a column a peer, and how many times ours."""
    names = [peer["name"] for peer in report["peers"]]
    rows: list[list[str]] = []
    for cell in _cells(report):
        ours = _median(report, cell, OURS, "cpu_us")
        rows.append([cell])
        for name in names:
            cpu_us = _median(report, cell, name, "cpu_us")
            rows[-1].append(_with_ratio(cpu_us, ours, is_ours=name == OURS))
    return ["request", *names], rows


def detail_table(report: Report) -> Table:
    """Closed-loop latency, bytes and Redis's own CPU, a row a cell and peer."""
    rows: list[list[str]] = []
    for entry in _in_order(report):
        rounds = entry["rounds"]
        rate = statistics.median(one["requests"] / one["seconds"] for one in rounds)
        rows.append(
            [
                entry["cell"],
                entry["peer"],
                *(f"{_of(rounds, name):,.2f}" for name in ("p50_ms", "p99_ms", "p999_ms")),
                f"{rate:,.0f}",
                f"{entry['bytes']:,}",
                f"{entry['bytes'] / entry['values']:.1f}" if entry["values"] else "–",
                f"{_of(rounds, 'redis_cpu_us'):,.0f}",
                f"{len(rounds)}",
                f"{sum(one['errors'] for one in rounds)}",
            ]
        )
    head = ["request", "server", "p50 ms", "p99 ms", "p99.9 ms", "requests/s", "bytes"]
    return [*head, "bytes a value", "Redis CPU µs", "rounds", "errors"], rows


def open_table(report: Report) -> Table:
    """Latency from the time a request was due, at shares of each server's own capacity.

    A control has none: it is asked at our rates.
    """
    controls = [control["name"] for control in _controls(report)]
    rows: list[list[str]] = []
    for entry in sorted(report["open"], key=lambda entry: (_order(report, entry), entry["share"])):
        rounds = entry["rounds"]
        names = ("p50_ms", "p99_ms", "p999_ms", "sent_late_p99_ms")
        wrong = sum(one["failed"] + one["wrong"] + one["refused"] + one["unsent"] for one in rounds)
        rows.append(
            [
                entry["cell"],
                entry["peer"],
                "–" if entry["peer"] in controls else f"{entry['share']:.0%}",
                f"{entry['rate']:,.0f}",
                *(_or_endless(rounds, name) for name in names),
                f"{wrong}",
            ]
        )
    head = ["request", "server", "of capacity", "requests/s", "p50 ms", "p99 ms", "p99.9 ms"]
    return [*head, "sent late p99 ms", "not OK"], rows


def controls(report: Report) -> str:
    """What the controls in the latency table are, in sentences; empty without any."""
    told = "; ".join(f"{each['name']}: {each['tuning']}" for each in _controls(report))
    if not told:
        return ""
    return (
        "A control does none of the work and is asked at half of what Headrace can do: what stands "
        f"there is the machine, the generator and the transport, no server. {told}."
    )


def peers_table(report: Report) -> Table:
    """Who is compared, what was done for each, and its memory after the run."""
    return ["server", "how it runs", "values checked", "RSS MiB"], [
        [
            peer["name"],
            peer["tuning"],
            f"{peer['values_checked']:,}",
            f"{peer['rss_mib']:.0f}",
        ]
        for peer in report["peers"]
    ]


def method(report: Report) -> str:
    """How the figures came about, in a paragraph."""
    how, machine = report["method"], report["machine"]
    loop_ms = machine.get("python_loop_ms")  # Older results do not tell.
    python = f"{machine['python']} for all" + (
        f" (a fixed piece of pure Python takes it {loop_ms:.1f} ms)" if loop_ms else ""
    )
    return (
        f"Each server on one core; on another wrk ({how['connections']} connections, saturated) or "
        f"the open-loop generator ({how['open_connections']} connections, Poisson arrivals), with "
        f"Valkey and Cassandra; all up at once. Medians of {how['rounds']} shuffled rounds of "
        f"{how['seconds']} s (fewer where the details say so), those that other processes "
        f"disturbed repeated; open loop of {how['open_rounds']} of {how['open_seconds']} s (fewer "
        f"and longer where requests take longer). {machine['cpu']}, Python {python}, "
        f"commit {report['commit']}, {report['measured_at'][:10]}.{refused(report)}"
    )


def stalls(report: Report) -> str:
    """What the idle machine itself did, in sentences: no percentile here can be finer.

    And who ran before all else in the open loop; nobody did in results that do not tell.
    """
    told = "Before anything was measured, with everything up and idle, "
    told += _of_both_cpus(report["stalls"])
    if not all(one.get("ahead") for entry in report["open"] for one in entry["rounds"]):
        return told
    return (
        f"{told} for an ordinary process. In the open loop the server that is asked, Valkey and "
        "the generator therefore run in the real-time class, every server alike; to such a process "
        f"{_of_both_cpus(report['stalls_ahead'])}"
    )


def _of_both_cpus(stalls: Sequence[dict[str, Any]]) -> str:
    return "; ".join(
        f"the CPU of {whose} stood still for {seen['share']:.2%} of the time, at most "
        f"{seen['longest_ms']:.1f} ms at once"
        for whose, seen in zip(("the servers", "the load"), stalls, strict=True)
    )


def _with_ratio(cpu_us: float | None, ours: float | None, *, is_ours: bool) -> str:
    if cpu_us is None:
        return "–"
    if ours is None or is_ours:
        return f"{cpu_us:,.1f}"
    return f"{cpu_us:,.1f} ({cpu_us / ours:,.1f}×)"


def _cells(report: Report) -> Sequence[str]:
    return list(dict.fromkeys(entry["cell"] for entry in _in_order(report)))


def _in_order(report: Report) -> list[dict[str, Any]]:
    return sorted(report["closed"], key=lambda entry: _order(report, entry))


def _order(report: Report, entry: dict[str, Any]) -> tuple[str, int, int, int]:
    """By group, absent share and keys, then ours, its controls, the peers as reported."""
    group, keys, *absent = entry["cell"].split(", ")
    share = int(absent[0].partition(" ")[0]) if absent else 0
    group = group.replace("record", "0")  # The 20-field cells come first.
    names = [OURS, *(each["name"] for each in (*_controls(report), *report["peers"]))]
    return group, share, int(keys.partition(" ")[0]), names.index(entry["peer"])


def _controls(report: Report) -> list[dict[str, str]]:
    """Results of the time before there were any have none."""
    controls: list[dict[str, str]] = report.get("controls", [])
    return controls


def _median(report: Report, cell: str, peer: str, name: str) -> float | None:
    for entry in report["closed"]:
        if (entry["cell"], entry["peer"]) == (cell, peer):
            return _of(entry["rounds"], name)
    return None


def _of(rounds: list[dict[str, Any]], name: str) -> float:
    return float(statistics.median(one[name] for one in rounds))


def _or_endless(rounds: list[dict[str, Any]], name: str) -> str:
    values = [one[name] for one in rounds]
    return "endless" if None in values else f"{statistics.median(values):,.2f}"

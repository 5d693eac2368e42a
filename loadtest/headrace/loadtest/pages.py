"""Tables and plots of the READMEs, made from the raw result files: nobody types a number.

    python -m headrace.loadtest.pages [--check]

What stands between `<!-- results:NAME -->` and `<!-- /results:NAME -->` in a document is replaced;
plots are SVG files beside the raw results. With `--check` nothing is written and the exit status is
1 when a document or a plot is not what the results say.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from headrace.loadtest.peers import page, plots

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "loadtest" / "results"
DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "loadtest" / "README.md",
    ROOT / "loadtest" / "RESULTS.md",
    ROOT / "loadtest" / "PEERS.md",
)
BLOCK = re.compile(r"<!-- results:(\w+) -->\n.*?<!-- /results:\1 -->", re.DOTALL)


def main(arguments: list[str]) -> int:
    """Write or check every document."""
    parser = argparse.ArgumentParser(prog="pages", description=__doc__)
    parser.add_argument("--check", action="store_true")
    checked: bool = parser.parse_args(arguments).check
    stale: list[Path] = []
    for path, made in [*_documents(), *_plots()]:
        if not path.exists() or made != path.read_text():
            stale.append(path)
            if not checked:
                path.write_text(made)
    for path in stale:
        print(f"{path.relative_to(ROOT)} {'is stale' if checked else 'is written'}")
    return 1 if checked and stale else 0


def _documents() -> Iterator[tuple[Path, str]]:
    for path in DOCUMENTS:
        yield path, BLOCK.sub(lambda found: _block(found.group(1)), path.read_text())


def _plots() -> Iterator[tuple[Path, str]]:
    if not (RESULTS / "peers.json").exists():
        return
    report = _load("peers")
    for name, draw in plots.PLOTS.items():
        yield RESULTS / f"{name}.svg", plots.svg(draw(page.answered(report)))


def _block(name: str) -> str:
    try:
        table = TABLES[name]()
    except FileNotFoundError as error:
        table = f"Not measured yet: `results/{Path(error.filename).name}` is not there."
    return f"<!-- results:{name} -->\n{table}\n<!-- /results:{name} -->"


def _load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return loaded


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def gateway_table() -> str:
    """One gateway process on LMDB, by cell of `make bench`."""
    return _http_table("bench", "LMDB")


def real_table() -> str:
    """The same over real servers, and the writer."""
    writer = _load("real")["writer"]
    return (
        _http_table("real", "Valkey in front of Cassandra (the last row: without the cache)")
        + f" The writer over Kafka takes {writer['cpu_us_per_command']:.1f} µs of its own CPU a "
        f"command, complete ({writer['commands_per_cpu_second']:,.0f} commands a CPU second); at "
        f"2,000 commands a second they are readable within {writer['delay_p99_s_at_most']} s (p99)."
    )


def _http_table(name: str, store: str) -> str:
    report = _load(name)
    rows = [
        [
            kind,
            f"{cell['cpu_us']:,.1f}",
            f"{cell['requests_per_core_second']:,.0f}",
            f"{cell['p50_ms']:.2f}",
            f"{cell['p99_ms']:.2f}",
            f"{cell['bytes_per_value']:.1f}",
        ]
        for kind, cell in report["medians"].items()
    ]
    method, machine = report["method"], report["machine"]
    head = ["request", "server CPU µs", "requests/s a core", "p50 ms", "p99 ms", "bytes a value"]
    setting = (
        f"20 fields a key, {store}, one process on one core, wrk with {method['connections']} "
        f"connections on another, saturated; medians of {method['rounds']} shuffled rounds of "
        f"{method['seconds']} s; {machine['cpu']}, Python {machine['python']}, commit "
        f"{report['commit']}, {report['measured_at'][:10]}."
    )
    return f"{_table(head, rows)}\n\n{setting}"


def codec_table() -> str:
    """The codec beside fastavro, in nanoseconds of CPU a record."""
    report = _load("codec")
    names = sorted({name for times in report["timings"].values() for name in times})
    rows = [
        [
            group,
            *(f"{times[name]['median_ns']:,.0f}" if name in times else "–" for name in names),
            f"{report['ratios'][group]}",
            f"{report['sizes'][group]['json']:.0f} / {report['sizes'][group]['avro_body']:.0f}"
            if group in report["sizes"]
            else "–",
        ]
        for group, times in report["timings"].items()
    ]
    head = ["ns a record", *names, "ratio", "bytes: JSON / Avro"]
    return (
        _table(head, rows)
        + f"\n\n{report['method']} {report['machine']}, Python {report['python']}, fastavro "
        f"{report['fastavro']}, {report['build']} build, {report['measured_at'][:10]}."
    )


def transcode_table() -> str:
    """The codec's core in Rust beside the fastest Rust Avro crate, in nanoseconds a record."""
    report = _load("transcode")
    times, ratios = report["medians_ns"], report["ratios"]
    rows = [
        [
            record,
            f"{times[f'{kind}objects']:,.0f}",
            f"{times[f'{kind}rows']:,.0f}",
            f"{times[f'{kind}objects, serde_avro_fast']:,.0f}",
            f"{ratios[f'{kind}objects']:.1f}",
        ]
        for record, kind in (("20 fields", ""), ("20 nullable fields", "nullable, "))
    ]
    versions = " and ".join(f"{name} {version}" for name, version in report["versions"].items())
    head = ["ns a record", "objects", "rows", "objects by serde_avro_fast and serde_json", "ratio"]
    return (
        f"{_table(head, rows)}\n\nStored Avro to JSON text in Rust, no cell header, no checksum, "
        f"no call from Python; medians of {report['method']['rounds']} shuffled rounds of one run. "
        f"{versions}, {report['rustc'].partition(' (')[0]}; {report['machine']['cpu']}, commit "
        f"{report['commit']}, {report['measured_at'][:10]}."
    )


def writer_table() -> str:
    """Commands a second and core, and memory."""
    store, pipeline = _load("writer"), _load("pipeline")
    rows = [
        [
            f"encode and store {store['rows']:,}, pass {number}",
            f"{each['commands_per_cpu_second']:,}",
            f"{each['rss_anon_max_bytes'] / 2**20:.0f}",
        ]
        for number, each in enumerate(store["passes"], 1)
    ]
    rows.append(
        [
            f"{pipeline['rows']:,} end to end: append, poll, encode, store, commit",
            f"{pipeline['commands_per_cpu_second']:,}",
            f"{pipeline['rss_anon_max_bytes'] / 2**20:.0f}",
        ]
    )
    return (
        _table(["commands of 20 fields", "commands a CPU second", "RSS MiB"], rows)
        + f"\n\nRSS without LMDB's map. {store['machine']}, Python {store['python']}, "
        f"{store['measured_at'][:10]}."
    )


def faults_table() -> str:
    """What callers see while the cache or the store fails."""
    report = _load("faults")
    faults = report["faults"]
    rows: list[list[str]] = []
    for name, case in faults["cases"].items():
        phases = case["phases"]
        healthy_ms, then_ms = phases["healthy"]["p99_ms"], phases["then"]["p99_ms"]
        ratio = then_ms / healthy_ms if healthy_ms and then_ms else None
        rows.append(
            [
                name,
                *(_figure(case[count], ",") for count in ("requests", "failed", "wrong")),
                *(_figure(phases[phase]["p99_ms"], ".1f") for phase in PHASES),
                _figure(ratio, ".1f"),
                _figure(case["opened_after_s"], ".3f"),
                _figure(case["closed_after_s"], ".3f"),
            ]
        )
    head = ["fault", "requests", "failed", "wrong", *(f"p99 ms {phase}" for phase in PHASES)]
    head += ["then / healthy", "breaker opens after s", "closes after s"]
    return (
        f"{_table(head, rows)}\n\n{report['method']['fault_keys']} keys a request, "
        f"{faults['rate_per_s']:,.0f} requests a second, Poisson: half of what the store alone "
        f"answers. Failed: not answered in full. {_setting(report)}"
    )


def overload_table() -> str:
    """What becomes of reads when more come than can be answered."""
    report = _load("faults")
    rows = [
        [
            f"{kind}, {multiple} x {cell['peak_per_s']:,.0f}/s",
            _figure(measured["goodput_share"], ".0%"),
            _cores(measured["cores"]),
            _figure(measured["refused_since_sent_p50_ms"], ".1f"),
            _figure(measured["refused_since_sent_p99_ms"], ".1f"),
            _figure(measured["admitted_p50_ms"], ".1f"),
            _figure(measured["admitted_p99_ms"], ".1f"),
            _figure(measured["rss_growth_share"], ".0%"),
            _figure(measured["calm_after_s"], ".2f"),
            _figure(measured["wrong"], ","),
        ]
        for kind, cell in report["overload"].items()
        for multiple, measured in cell["multiples"].items()
    ]
    head = ["reads", "goodput of peak", "cores of gateway, cache and generator"]
    head += ["refused median ms", "refused p99 ms", "admitted p50 ms", "admitted p99 ms"]
    head += ["RSS growth", "calm after s", "wrong"]
    return (
        f"{_table(head, rows)}\n\nOpen loop over {report['method']['connections']} connections, "
        "whose callers do not heed Retry-After. Goodput: medians of rounds that alternate the rate "
        "of the peak with 2 and 5 times the peak, second by second. The generator shares a core "
        "with the cache: where the two fill it, it is not the gateway that is asked for more than "
        "it can. Refusals are timed from when they were sent to when they were heard, the rest "
        "from when it was due; "
        f"the machine stands still now and then (`stalls.py`), and all with it. {_setting(report)}"
    )


def _cores(used: dict[str, float]) -> str:
    return " / ".join(f"{used[name]:.2f}" for name in ("gateway", "cache", "generator"))


PHASES = ("healthy", "first second", "then", "after healing")


def _figure(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _setting(report: dict[str, Any]) -> str:
    machine = report["machine"]
    return (
        f"Valkey in front of Cassandra, one gateway process on one core, all else on another; "
        f"{machine['cpu']}, Python {machine['python']}, commit {report['commit']}, "
        f"{report['measured_at'][:10]}."
    )


def client_table() -> str:
    """What a read costs its caller, by library and number of keys."""
    report = _load("client")
    names = list(report["medians_us"])
    sizes = list(report["medians_us"][names[0]])
    rows = [
        [name, *(f"{report['medians_us'][name][keys]:,.1f}" for keys in sizes)] for name in names
    ]
    installed = sum(report["installed_bytes"].values()) / 1e6
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    return (
        _table(["CPU µs of the caller a request", *(f"{keys} keys" for keys in sizes)], rows)
        + "\n\n20 fields a key, JSON to Python values, one request after another; medians of "
        f"{report['method']['rounds']} shuffled rounds. The client alone is {installed:.1f} MB "
        f"with all it needs, and takes {report['import_ms']:.0f} ms to import. "
        f"{report['machine']['cpu']}, Python {report['machine']['python']}, {versions}, "
        f"{report['measured_at'][:10]}."
    )


def peers_cpu() -> str:
    """Server CPU of every peer, drawn and told."""
    report = _load("peers")
    table = _table(*page.cpu_table(page.answered(report)))
    return f"{_plot('peers-cpu')}\n\n{table}\n\n{page.method(report)}"


def peers_absent() -> str:
    """The same where keys have no row; its figures are in the table above it."""
    _load("peers")
    return _plot("peers-absent")


def peers_open() -> str:
    """Latency in an open loop."""
    report = _load("peers")
    table = _table(*page.open_table(report))
    told = "\n\n".join(filter(None, (page.controls(report), f"{page.stalls(report)}.")))
    return f"{_plot('peers-latency')}\n\n{table}\n\n{told}"


def peers_detail() -> str:
    """Latency, bytes and Redis's share in a closed loop."""
    return _table(*page.detail_table(page.answered(_load("peers"))))


def peers_list() -> str:
    """Who is compared."""
    return _table(*page.peers_table(_load("peers")))


def _plot(name: str) -> str:
    return f"![{name}](results/{name}.svg)"


def scaling_table() -> str:
    """The read path by what is registered, stored and asked for."""
    report = _load("scaling")
    curves = report["curves"]
    rows = [
        [
            f"{curve}: {point['size']:,.0f}",
            f"{point['cpu_us']:,.1f}",
            f"{point['cpu_us'] / points[0]['cpu_us']:.2f}",
            f"{point['cpu_us'] * 1_000 / point['values']:.1f}",
        ]
        for curve, points in curves.items()
        if curve != "bytes"
        for point in points
    ]
    head = ["curve", "CPU µs a request", "x of the first", "ns a value"]
    return (
        f"{_table(head, rows)}\n\nThe read path alone over LMDB, body in, response out. Groups "
        "registered: 10 keys x 20 fields. Rows stored: 10 keys x 4 numbers, of all rows (2,000 "
        "of them, at random) or of the same few. Fields of the group: 100 keys x 20 of them. Keys "
        f"of a request: x 20 fields. Medians of {report['method']['rounds']} shuffled rounds; "
        f"{report['machine']['cpu']}, Python {report['machine']['python']}, commit "
        f"{report['commit']}, {report['measured_at'][:10]}."
    )


def skipping_table() -> str:
    """What a field costs that is not asked for, apart from its bytes."""
    report = _load("scaling")
    curves = report["curves"]
    if "bytes" not in curves:
        return "Not measured yet: `make bench-scaling`."
    first, *wider = curves["fields"]
    least_us = curves["bytes"][0]["cpu_us"]
    rows: list[list[str]] = []
    for point, padded in zip(wider, curves["bytes"][1:], strict=True):
        skipped = (point["size"] - first["size"]) * report["method"]["wide_keys"]
        alone_ns = (point["cpu_us"] - padded["cpu_us"]) * 1_000 / skipped
        moved_ns = (padded["cpu_us"] - least_us) * 1_000 / skipped
        rows.append(
            [
                f"{point['size']:,.0f}",
                f"{point['cpu_us']:,.1f}",
                f"{padded['cpu_us']:,.1f}",
                f"{alone_ns:.1f}",
                f"{moved_ns:.1f}",
            ]
        )
    head = ["fields", "CPU µs a request", "as many bytes, 20 fields", "ns a skipped field"]
    return (
        f"{_table([*head, 'ns its bytes'], rows)}\n\n100 keys, 20 fields asked for, the others "
        "numbers of 3 bytes. A record is moved and checked whole whatever is asked for: beside it "
        "stands one of as many bytes whose other fields are one Text."
    )


def cached_rows_table() -> str:
    """The gateway process over Valkey by the rows that are cached."""
    report = _load("scaling")
    if "rates" not in report.get("cached", {}):
        return "Not measured yet: `make bench-scaling`."
    cached = report["cached"]
    first: dict[int, float] = {}
    rows: list[list[str]] = []
    for point in sorted(cached["points"], key=lambda each: (each["keys"], each["rows"])):
        least = first.setdefault(point["keys"], point["cpu_us"])
        rows.append(
            [
                f"{point['keys']} keys, {point['rows']:,} rows",
                f"{cached['rates'][str(point['keys'])]:,.0f}",
                f"{point['cpu_us']:.1f}",
                f"{point['cpu_us'] / least:.2f}",
                f"{point['valkey_us']:.1f}",
            ]
        )
    worst = max(point["cpu_us"] / first[point["keys"]] for point in cached["points"])
    head = ["cached rows", "requests/s", "gateway CPU µs a request", "x of the first"]
    return (
        f"{_table([*head, 'Valkey CPU µs'], rows)}\n\nA `headrace serve` process alone on a CPU, "
        "random keys over all rows x 4 numbers, JSON, requests of equal length at one rate for all "
        "sizes (open loop, every answer compared). So the loop finds a request or two a turn, and "
        "each costs more than where it is saturated. LMDB's curve above grows by the steps of its "
        "B-tree and how far its memory is, which lies inside the process; over Valkey the "
        f"gateway's own cost is at most {worst:.2f} times that of the fewest rows. Medians of "
        f"{cached['rounds']} shuffled rounds of {cached['seconds']} s; "
        f"{report['machine']['cpu']}, commit {report['commit']}, {report['measured_at'][:10]}."
    )


def workers_table() -> str:
    """Balance and memory of several workers, and latency around a catalog swap."""
    report = _load("workers")
    rows = [
        [
            count,
            ", ".join(str(worker["connections"]) for worker in workers),
            f"{max(worker['rss_bytes'] for worker in workers) / 2**20:.0f}",
            f"{max(worker['uss_bytes'] for worker in workers) / 2**20:.0f}",
        ]
        for count, workers in report["workers"].items()
    ]
    method, swap = report["method"], report["swap"]
    head = ["workers", f"of {method['connections']} connections", "RSS MiB each", "USS MiB each"]
    return (
        f"{_table(head, rows)}\n\nAround {method['swaps']} swaps of a catalog of "
        f"{method['groups']:,} groups, a read of 10 keys takes {swap['around_swap_p99_ms']:.2f} ms "
        f"(p99) and {swap['around_swap_worst_ms']:.0f} at worst, and between them "
        f"{swap['usual_p99_ms']:.2f} and {swap['usual_worst_ms']:.0f}. {report['machine']['cpu']}, "
        f"Python {report['machine']['python']}, commit {report['commit']}, "
        f"{report['measured_at'][:10]}."
    )


def instructions_table() -> str:
    """Instructions of the codec at each renewal of the baseline, oldest first."""
    cases = {
        "objects": "objects",
        "rows_of_values": "rows",
        "events_of_a_history": "event",
        "vectors_of_128": "Vector<128>",
        "cached_read_of_1_row": "1 cached key",
        "cached_read_of_100_rows": "100",
        "cached_read_of_100_rows_as_avro": "100, Avro",
    }
    rows = [
        [renewal["why"], *(f"{renewal['instructions'][case]:,}" for case in cases)]
        for renewal in reversed(_load("instructions")["renewals"])
    ]
    return _table(["what changed", *cases.values()], rows)


def process_instructions_table() -> str:
    """Instructions of the gateway process a request at each renewal, oldest first."""
    cases = {
        "1_key_alone": "1 key, one caller",
        "1_key": "1 key",
        "10_keys": "10 keys",
        "100_keys": "100 keys",
        "100_keys_as_avro": "100 keys, Avro",
    }
    report = _load("process_instructions")
    renewals: list[dict[str, Any]] = report["renewals"]
    by_hand = report["by_hand"]
    rows = [
        [step["why"], *(_figure(step["instructions"].get(case), ",") for case in cases)]
        for step in by_hand["steps"]
    ]
    rows.append([f"*Above: {by_hand['method']}*", *("" for _ in cases)])
    rows += [
        [renewal["why"], *(f"{renewal['instructions'][case]:,}" for case in cases)]
        for renewal in reversed(renewals)
    ]
    last = renewals[0]
    spread = ", ".join(f"{last['spread'][case]:.1%}" for case in cases)
    return (
        f"{_table(['what changed', *cases.values()], rows)}\n\nMedians; the middle half of the "
        f"last one's rounds lies within {spread}. CPython {last['python']}, uvloop "
        f"{last['uvloop']}, codec by rustc {last['rustc']}."
    )


TABLES: dict[str, Callable[[], str]] = {
    "gateway": gateway_table,
    "real": real_table,
    "codec": codec_table,
    "transcode": transcode_table,
    "writer": writer_table,
    "instructions": instructions_table,
    "process_instructions": process_instructions_table,
    "faults": faults_table,
    "overload": overload_table,
    "client": client_table,
    "peers_cpu": peers_cpu,
    "peers_absent": peers_absent,
    "peers_open": peers_open,
    "peers_detail": peers_detail,
    "peers_list": peers_list,
    "scaling": scaling_table,
    "skipping": skipping_table,
    "cached_rows": cached_rows_table,
    "workers": workers_table,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

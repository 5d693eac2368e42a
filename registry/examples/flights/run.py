"""The flight example from end to end, by the same commands a user would type.

data → check, apply → transform → upsync → up (gateway, writer, downsync) → replay of the last day →
check that online equals offline → reads. `make run` runs it; run it again and it only does what is
new. With `--once` it makes one read of each kind and exits.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import data
import replay
from comparing import Comparison, compare
from deployments import REAL_DEADLINE_MS, Deployment, Embedded, Real
from serving import (
    HOST,
    Client,
    CommandLine,
    ExampleError,
    Role,
    ended,
    refuse_taken_port,
)

from headrace.registry.catalog import Group
from headrace.sync.downsync import DOWNSYNC_GROUP
from headrace.sync.writer import WRITER_GROUP

HERE = Path(__file__).resolve().parent
FOLDERS = {
    "embedded": Path(".headrace") / "flights",
    "real": Path(".headrace") / "flights-real",
}
PORT = 6566
STEPS = 8
LOOK_EVERY_S = 0.5
COMPARED_KEYS = 1_000
UPSYNCED = ("flights::plane-history", "flights::plane-stats-v1", "flights::route-stats-v1")
NOW = "flights::airport-now"
AVRO = "application/vnd.headrace.avro"

OBJECT_READ = {
    "reads": [
        {
            "feature_group": "flights::plane-stats-v1",
            "fields": ["flights", "departure_delay_mean_min", "main_carrier", "model", "seats"],
            "keys": {"tailnum": ["N14228", "N725MQ"]},
        }
    ]
}
HISTORY_READ = {
    "reads": [
        {
            "feature_group": "flights::plane-history",
            "fields": ["carrier", "flight", "origin", "dest", "arrival_delay_min"],
            "keys": {"tailnum": ["N14228"]},
            "limit": 3,
        }
    ]
}
SERVICE_READ = {
    "service": "flights::delay-ranker-v1",
    "keys": {"tailnum": ["N14228"], "origin": ["EWR"], "dest": ["ORD"]},
}
KINDS = {"Object": OBJECT_READ, "History": HISTORY_READ, "service": SERVICE_READ}
SHOWN_FIELDS = 6
AVRO_READ = {
    "reads": [{"feature_group": "flights::plane-stats-v1", "keys": {"tailnum": ["N14228"]}}]
}


class Steps:
    """Prints one line a step: what it is while it runs, what came of it when it is done."""

    def __init__(self) -> None:
        self._number = 0

    @contextlib.contextmanager
    def step(self, name: str, doing: str) -> Generator[list[str], None, None]:
        """Collects sentences about the outcome in the list it gives."""
        self._number += 1
        head = f"[{self._number}/{STEPS}] {name:<10}"
        if sys.stdout.isatty():
            say(f"\033[1m{head}\033[0m {doing} …")
        start_s = time.monotonic()
        outcome: list[str] = []
        yield outcome
        took = f"  ({time.monotonic() - start_s:.1f} s)"
        margin = " " * len(head)
        for number, sentence in enumerate(outcome):
            lead = head if number == 0 and not sys.stdout.isatty() else margin
            say(f"{lead} {sentence}{took if number == 0 else ''}")


def say(text: str = "") -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    folder = (options.folder or FOLDERS[options.engines]).resolve()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)  # However we are ended, the server drains first.
    try:
        with contextlib.ExitStack() as stack:
            deployment: Deployment = Embedded()
            if options.engines == "real":
                deployment = _start_real(stack)
            _run(stack, deployment, folder, options.port, is_once=options.once)
    except (ExampleError, data.DownloadError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        say("\nstopped")
    return 0


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run the flight example from end to end.")
    parser.add_argument("--once", action="store_true", help="make one read of each kind and exit")
    parser.add_argument("--engines", choices=list(FOLDERS), default="embedded")
    parser.add_argument("--folder", type=Path, help="where everything is kept")
    parser.add_argument("--port", type=int, default=PORT, help=f"port of the gateway [{PORT}]")
    return parser.parse_args(arguments)


def _start_real(stack: contextlib.ExitStack) -> Real:
    say("Starting Cassandra, Kafka and Valkey on free ports of this machine …")
    scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-flights-"))
    return Real(stack, Path(scratch))


def _run(
    stack: contextlib.ExitStack, deployment: Deployment, folder: Path, port: int, *, is_once: bool
) -> None:
    refuse_taken_port(port)
    say(f"Headrace, the flight example. Everything it makes is in {_short(folder)}\n")
    line = CommandLine(_prepared(deployment, folder, port))
    steps = Steps()
    sources = _fetch(steps)
    _apply(steps, line)
    _transform(steps, line, sources)
    sent = _upsync(steps, line)
    with contextlib.ExitStack() as serving:
        roles = _up(steps, serving, deployment, (folder, port), sent)
        client = serving.enter_context(contextlib.closing(Client(port)))
        _replay(steps, line, deployment, sources, roles)
        _compare(steps, deployment, folder, client)
        _read_each_kind(steps, client)
        _show_curl(port, is_once=is_once)
        if not is_once:
            say(f"\nServing on http://{HOST}:{port} until Ctrl-C.")
            _keep_serving(roles)


def _prepared(deployment: Deployment, folder: Path, port: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    gateway: dict[str, object] = {"host": HOST, "port": port}
    if isinstance(deployment, Real):
        gateway["default_deadline_ms"] = REAL_DEADLINE_MS
    settings = {"registry": str(HERE), "gateway": gateway} | deployment.settings(folder)
    # JSON is YAML, and quotes every path right.
    (folder / "headrace.yaml").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return folder


def _fetch(steps: Steps) -> Path:
    with steps.step("data", f"fetching {data.PACKAGE} {data.VERSION}") as outcome:
        sources = data.fetch()
        counts = {name: _row_count(sources / f"{name}.csv") for name in data.TABLES}
        told = [f"{counts[name]:,} {name}" for name in ("flights", "planes", "airports")]
        outcome.append(f"{', '.join(told)} (CC0, kept in {_short(sources)})")
    return sources


def _row_count(path: Path) -> int:
    with path.open("rb") as lines:
        return sum(1 for _ in lines) - 1


def _apply(steps: Steps, line: CommandLine) -> None:
    with steps.step("registry", "checking the YAML, publishing the catalog") as outcome:
        line.run("check")
        outcome.append(line.run("apply").strip())


def _transform(steps: Steps, line: CommandLine, sources: Path) -> None:
    with steps.step("transform", "running the SQL over all flights") as outcome:
        reports = line.run_json("transform", "--sources", str(sources))
        rows = sum(report["rows"] for report in reports)
        new = sum(report["appended"] for report in reports)
        outcome.append(f"{rows:,} rows from {len(reports)} SQL files, {new:,} of them new")


def _upsync(steps: Steps, line: CommandLine) -> int:
    with steps.step("upsync", "sending changed rows to the command log") as outcome:
        start_s = time.monotonic()
        reports = line.run_json("upsync", *UPSYNCED)
        seconds = time.monotonic() - start_s
        sent = sum(report["sent"] for report in reports)
        latest = sum(report["scanned"] for report in reports)
        rate = f", {sent / seconds:,.0f} rows/s" if sent else ""
        outcome.append(f"{sent:,} of {latest:,} latest rows had changed and were sent{rate}")
    return int(sent)


def _up(
    steps: Steps,
    serving: contextlib.ExitStack,
    deployment: Deployment,
    place: tuple[Path, int],
    sent: int,
) -> list[Role]:
    folder, port = place
    with steps.step("up", deployment.what) as outcome:
        start_s = time.monotonic()
        roles = deployment.start(serving, folder, port)
        deployment.wait_until_handled(folder, "bulk", WRITER_GROUP, roles)
        seconds = time.monotonic() - start_s
        rate = (
            f"; the writer applied {sent:,} commands, {sent / seconds:,.0f} a second from its start"
        )
        outcome.append(f"http://{HOST}:{port} is ready{rate if sent else ''}")
    return roles


def _replay(
    steps: Steps, line: CommandLine, deployment: Deployment, sources: Path, roles: list[Role]
) -> None:
    with steps.step("replay", "sending the last day as it happens now") as outcome:
        file = line.folder / "replay.ndjson"
        counts = replay.write_commands(sources, file, time.time_ns() // 1_000_000)
        before = _downsynced(deployment, line.folder)
        start_s = time.monotonic()
        line.run("send", str(file))
        deployment.wait_until_handled(line.folder, "realtime", WRITER_GROUP, roles)
        seconds = time.monotonic() - start_s
        total = sum(counts.values())
        told = ", ".join(f"{count:,} {name}" for name, count in counts.items())
        outcome.append(f"{total:,} real-time commands ({told}), {total / seconds:,.0f} a second")
        deployment.wait_until_handled(line.folder, "realtime", DOWNSYNC_GROUP, roles)
        kept = _downsynced(deployment, line.folder) - before
        changes = total - counts["legs"]
        outcome.append(
            f"downsync kept {kept:,} of {changes:,} airport changes (1 a minute, 90 % sample)"
        )


def _compare(steps: Steps, deployment: Deployment, folder: Path, client: Client) -> None:
    with steps.step("check", f"comparing {COMPARED_KEYS:,} random keys") as outcome:
        offline = asyncio.run(_offline_rows(deployment, folder, UPSYNCED))
        seed = time.time_ns() % 1_000_000
        found = compare(client, offline, keys=COMPARED_KEYS, seed=seed)
        outcome.append(_verdict(found, seed))
    if found.differences:
        told = "\n".join(found.differences[:5])
        raise ExampleError(f"{len(found.differences)} rows differ online from offline:\n{told}")


def _verdict(found: Comparison, seed: int) -> str:
    rate = found.values / max(found.seconds, 1e-6)
    return (
        f"online = offline for {found.keys:,} random keys (seed {seed}): "
        f"{len(found.differences)} differences in {found.values:,} values, "
        f"{rate:,.0f} values/s read"
    )


async def _offline_rows(
    deployment: Deployment, folder: Path, names: Sequence[str], *, is_stored: bool = False
) -> list[tuple[Group, Any]]:
    """Offline rows as Arrow: all that are stored, or the latest that upsync may send."""
    from headrace.cli.engines import open_offline, open_online
    from headrace.cli.live import group_named, live_catalog

    urls = deployment.settings(folder)
    online = await open_online(str(urls["online"]), read_only=True)
    offline = open_offline(str(urls["offline"]))
    try:
        _, document = await live_catalog(online)
        groups = [group_named(document, name) for name in names]
        read = offline.stored if is_stored else offline.latest
        return [(group, await read(group)) for group in groups]
    finally:
        offline.close()
        await online.close()


def _downsynced(deployment: Deployment, folder: Path) -> int:
    ((_, rows),) = asyncio.run(_offline_rows(deployment, folder, [NOW], is_stored=True))
    return int(rows.num_rows)


def _read_each_kind(steps: Steps, client: Client) -> None:
    with steps.step("read", "one read of each kind") as outcome:
        for kind, body in KINDS.items():
            outcome.append(f"{kind}:")
            for result in client.rows(body):
                name = result.get("as") or result["feature_group"]
                outcome += [f"  {name}  {sentence}" for sentence in _sentences(result)]
        avro, plain = client.read(AVRO_READ, accept=AVRO), client.read(AVRO_READ)
        described = client.get("/v1/feature-groups/flights::plane-stats-v1").body
        fingerprint = json.loads(described)["fingerprint"]
        outcome.append("Avro:")
        outcome.append(
            f"  {len(avro.body):,} bytes of {avro.content_type} where JSON takes "
            f"{len(plain.body):,}; schema at /v1/schemas/{fingerprint}"
        )


def _sentences(result: dict[str, Any]) -> list[str]:
    """Rows (or events) of a result with their field names, cut to what fits a line."""
    fields: list[str] = result["fields"]
    rows = result["rows"]
    if fields and fields[0] == "_event_time_ms":
        rows = [event for events in rows for event in events]
    return [_sentence(fields, row) for row in rows]


def _sentence(fields: list[str], row: list[Any]) -> str:
    named = [f"{name}={_brief(value)}" for name, value in zip(fields, row, strict=True)]
    more = f" … {len(named) - SHOWN_FIELDS} more" if len(named) > SHOWN_FIELDS else ""
    return " ".join(named[:SHOWN_FIELDS]) + more


def _brief(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)


def _show_curl(port: int, *, is_once: bool) -> None:
    say("\nTry it while `make run` serves:" if is_once else "\nTry it:")
    for body in KINDS.values():
        text = json.dumps(body, separators=(",", ":"))
        say(f"curl -s http://{HOST}:{port}/v1/read -H 'content-type: application/json' -d '{text}'")


def _keep_serving(roles: list[Role]) -> None:
    while not (gone := ended(roles)):
        time.sleep(LOOK_EVERY_S)
    raise ExampleError(f"a role ended with {gone[0].process.returncode}; see `{gone[0].log}`")


def _short(path: Path) -> str:
    for base, sign in ((Path.cwd(), "."), (Path.home(), "~")):
        if path.is_relative_to(base):
            return f"{sign}/{path.relative_to(base)}"
    return str(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

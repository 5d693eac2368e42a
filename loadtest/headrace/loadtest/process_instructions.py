"""Instructions of a whole gateway process a request, held against a committed baseline.

    python -m headrace.loadtest.process_instructions            compares; fails beyond 3 %
    python -m headrace.loadtest.process_instructions --renew WHY  writes the baseline anew

`headrace serve` as it starts (interpreter, event loop, lane, codec), over a real Valkey that holds
every row asked for; system calls themselves are not counted. Each count is the median of several
rounds, a round many turns of the event loop, each with one request from every caller. The counts
belong to one interpreter, event loop and compiler of the codec: with others than the baseline's the
comparison would say nothing, so nothing is counted then and that is said. The codec is the one that
is installed, which has to be a release build; `make codec` makes a quick one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import random
import re
import statistics
import sys
import tempfile
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, cast

from redis import Redis

from headrace import codec
from headrace.cli.scylla import ScyllaEngine
from headrace.codec import Catalog, Placement, encode_commands
from headrace.loadtest import feature_data
from headrace.loadtest.baseline import changes, newest, renew
from headrace.loadtest.counted_gateway import Callers, CountedGateway, Urls, counted_gateway
from headrace.loadtest.servers import Server, ServerFailed, start_cassandra, start_valkey
from headrace.loadtest.valgrind import Refused
from headrace.loadtest.wrk import AVRO_TYPE, JSON_TYPE
from headrace.registry.catalog import encode_document

ROOT = Path(__file__).resolve().parents[3]
BASELINE = ROOT / "loadtest" / "results" / "process_instructions.json"
RENEW = "`python -m headrace.loadtest.process_instructions --renew 'why'`"
NOW_MS = feature_data.EVENT_MS + 86_400_000
CALLERS = 16
ROUNDS = 12
WARMING_TURNS = 8
TASK_STEPS_SHARE_MAX = 0.8
"""Of the requests: a read that the cache answers takes no step of a task; what polls takes some."""


class Case(NamedTuple):
    """One kind of request, the callers who send it at once, and the turns of a round."""

    keys: int
    accept: str
    callers: int
    turns: int


CASES = {
    "1_key_alone": Case(1, JSON_TYPE, 1, 60),
    "1_key": Case(1, JSON_TYPE, CALLERS, 10),
    "10_keys": Case(10, JSON_TYPE, CALLERS, 5),
    "100_keys": Case(100, JSON_TYPE, CALLERS, 2),
    "100_keys_as_avro": Case(100, AVRO_TYPE, CALLERS, 2),
}


class Counted(NamedTuple):
    """What one case takes."""

    instructions: int
    spread: float
    """Of the middle half of its rounds, as a share of the median."""


def count() -> dict[str, Counted]:
    """Instructions a request of each case."""
    with tempfile.TemporaryDirectory(prefix="headrace-counted-") as name:
        folder = Path(name)
        with _stores(folder) as (cassandra, valkey):
            online = f"scylla://127.0.0.1:{cassandra.port}/counted?replication=1"
            asyncio.run(_publish(online))
            fill(valkey.port)
            cache = f"redis://127.0.0.1:{valkey.port}/0"
            urls = Urls(online, cache, f"sqlite:{folder / 'commands.db'}")
            with (
                counted_gateway(urls, folder / "gateway") as gateway,
                Callers(gateway.server, CALLERS) as callers,
            ):
                for case in CASES.values():
                    _warm(case, callers)
                return {name: _count(case, gateway, callers) for name, case in CASES.items()}


@contextmanager
def _stores(folder: Path) -> Generator[tuple[Server, Server]]:
    """Cassandra, which holds the catalog, and Valkey."""
    with ExitStack() as stack, ThreadPoolExecutor(2) as threads:
        starting = [
            threads.submit(start_cassandra, folder / "cassandra"),
            threads.submit(start_valkey, folder / "valkey"),
        ]
        servers: list[Server] = []
        for each in starting:
            if each.exception() is None:
                servers.append(each.result())
                stack.callback(servers[-1].stop)
        cassandra, valkey = (each.result() for each in starting)
        yield cassandra, valkey


async def _publish(online: str) -> None:
    engine = await ScyllaEngine.open(online, create=True)
    document = feature_data.catalog_document()
    await engine.table_admin().create(document.groups)
    await engine.catalog_writer().publish(document)
    await engine.close()


def fill(port: int) -> None:
    """Put the block of every row into the Valkey at this port, as reads that miss would."""
    catalog = Catalog(encode_document(feature_data.catalog_document()))
    placement = Placement([f"127.0.0.1:{port}"], epoch=1)
    encoded = encode_commands(catalog, list(feature_data.sample(histories=0)), now_ms=NOW_MS)
    cells: dict[bytes, list[tuple[int, bytes]]] = {}
    for mutation in encoded.mutations():
        cells.setdefault(mutation.key, []).append((mutation.field_id, mutation.cell))
    blocks: dict[bytes, bytes] = {}
    for key, row in cells.items():
        folded = catalog.fold_object(feature_data.OBJECT, row, delete_timestamp=None, now_ms=NOW_MS)
        if folded is not None:
            blocks[placement.block_key(key)] = folded.block(key)
    with Redis(port=port) as valkey:
        valkey.mset(cast("Mapping[Any, Any]", blocks))


def _warm(case: Case, callers: Callers) -> None:
    """Have heads learned and memory at its size; every answer must be whole, from the cache."""
    source = random.Random(case.keys)
    for _ in range(WARMING_TURNS):
        answers = callers.ask([request(case, source) for _ in range(case.callers)])
        for answer in answers if case.accept == JSON_TYPE else ():
            result = json.loads(answer)["results"][0]
            if result["statuses"] or len(result["rows"]) != case.keys:
                raise Refused(f"the cache does not hold every row: {answer[:300]!r}")


def _count(case: Case, gateway: CountedGateway, callers: Callers) -> Counted:
    source = random.Random(case.keys)
    rounds: list[float] = []
    for _ in range(ROUNDS):
        gateway.zero()
        for _ in range(case.turns):
            callers.ask([request(case, source) for _ in range(case.callers)])
        taken, requests = gateway.taken(), case.turns * case.callers
        if taken.task_steps > requests * TASK_STEPS_SHARE_MAX:
            raise Refused(f"{requests} reads took {taken.task_steps} steps of tasks, not one each")
        rounds.append(taken.instructions / requests)
    low, middle, high = statistics.quantiles(rounds, n=4)
    return Counted(round(middle), (high - low) / middle)


def request(case: Case, source: random.Random) -> bytes:
    """One request for random rows."""
    body = feature_data.read_body(case.keys, source)
    head = (
        f"POST /v1/read HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: {case.accept}\r\n"
        f"Content-Type: {JSON_TYPE}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def counted_with() -> dict[str, str]:
    """What the counts belong to."""
    extension = Path(codec.__file__).with_name("_codec.abi3.so").read_bytes()
    compiler = re.search(rb"rustc version (\S+)", extension)
    return {
        "rustc": compiler[1].decode() if compiler else "unknown",
        "python": f"{platform.python_version()} by {platform.python_compiler()}",
        "uvloop": version("uvloop"),
    }


def other_than(baseline: Mapping[str, Any], here: Mapping[str, str]) -> list[str]:
    """One sentence for each thing that is not as the baseline was counted with."""
    return [
        f"the baseline was counted with {name} `{baseline[name]}`, here is `{found}`: the counts of"
        f" two cannot be compared, and none are made. Install that one, or renew it: {RENEW}"
        for name, found in here.items()
        if baseline[name] != found
    ]


def check(path: Path) -> list[str]:
    """Counts, and tells what changed."""
    baseline = newest(path)
    counted = count()
    _show(counted)
    now = {name: case.instructions for name, case in counted.items()}
    return changes(cast("dict[str, int]", baseline["instructions"]), now)


def count_anew(path: Path, why: str) -> None:
    """Counts with what is at hand and puts that before the older renewals."""
    counted = count()
    _show(counted)
    renewal = {
        "why": why,
        **counted_with(),
        "instructions": {name: case.instructions for name, case in counted.items()},
        "spread": {name: round(case.spread, 4) for name, case in counted.items()},
    }
    renew(path, renewal)


def _show(counted: Mapping[str, Counted]) -> None:
    for name, case in counted.items():
        print(f"{case.instructions:12,}  {name} (spread {case.spread:.2%})")


def main(arguments: list[str] | None = None) -> int:
    """0 when nothing changed by more than the limit, else 1."""
    parser = argparse.ArgumentParser(prog="process_instructions", description=__doc__)
    parser.add_argument("--renew", metavar="WHY", help="write the baseline, with this reason")
    options = parser.parse_args(arguments)
    try:
        if options.renew:
            count_anew(BASELINE, options.renew)
            return 0
        if others := other_than(newest(BASELINE), counted_with()):
            print(*others, sep="\n", file=sys.stderr)
            return 0
        told = check(BASELINE)
    except (Refused, ServerFailed) as refused:
        told = [str(refused)]
    for sentence in told:
        print(sentence, file=sys.stderr)
    if told:
        print("The codec that `make codec` makes is no release build.", file=sys.stderr)
        print(f"If it is meant so, renew the baseline in the same commit: {RENEW}", file=sys.stderr)
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())

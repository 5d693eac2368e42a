"""The flight example, as `make run` runs it: real data, real processes, and what it prints."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RUN = ROOT / "registry" / "examples" / "flights" / "run.py"
CLIENT = ROOT / "docs" / "client.md"
CODE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SAID = re.compile(r"^([a-z][^\n#]+?)  # ([\[(][^\n]*[\])])", re.MULTILINE)
"""A line of an example and the value that the document says it has."""
LIMIT_S = 300


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Example:
    """One working folder, in which the example has run once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.first = self.run_once()

    def command(self, *arguments: str) -> list[str]:
        place = ["--folder", str(self.folder), "--port", str(self.port)]
        return [sys.executable, str(RUN), *arguments, *place]

    def run_once(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command("--once"), capture_output=True, text=True, timeout=LIMIT_S, check=False
        )

    def is_served(self) -> bool:
        with closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Example:
    return Example(tmp_path_factory.mktemp("flights"))


def number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found is not None, f"`{pattern}` is not in\n{text}"
    return int(found[1].replace(",", ""))


def test_the_example_ends_well_and_leaves_nothing_running(example: Example) -> None:
    assert example.first.returncode == 0, example.first.stdout + example.first.stderr
    assert not example.is_served()


def test_a_thousand_random_keys_are_online_as_they_are_offline(example: Example) -> None:
    text = example.first.stdout
    assert number(r"for ([\d,]+) random keys", text) == 1_000
    assert number(r": ([\d,]+) differences", text) == 0
    assert number(r"differences in ([\d,]+) values", text) > 50_000


def test_every_flight_with_a_plane_goes_through_the_transforms(example: Example) -> None:
    text = example.first.stdout
    assert number(r"([\d,]+) flights", text) == 336_776
    assert number(r"\[3/8\] transform +([\d,]+) rows", text) == 338_531
    assert number(r"the writer applied ([\d,]+) commands", text) == 231_841


def test_downsync_keeps_a_sample_of_the_replay(example: Example) -> None:
    """About 0.9 of the changes, less those that come within a minute of the last."""
    text = example.first.stdout
    kept = number(r"downsync kept ([\d,]+) of", text)
    changes = number(r"downsync kept [\d,]+ of ([\d,]+)", text)
    assert 0.8 * changes < kept < 0.95 * changes


def test_one_read_of_each_kind_is_printed(example: Example) -> None:
    for said in (
        r'flights::plane-stats-v1  flights=111 .*main_carrier="UA" model="737-824" seats=149',
        r'flights::plane-history  _event_time_ms=1388274420000 carrier="UA" flight=1481',
        r"plane  departure_delay_mean_min=14\.28",
        r"origin_airport  temperature_f=28\.94",
        r"destination_airport  arrivals_last_hour=\d",
        r"bytes of application/vnd\.headrace\.avro where JSON takes [\d,]+; schema at",
    ):
        assert re.search(said, example.first.stdout), said


@pytest.fixture(scope="module")
def serving(example: Example) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The second run, without `--once`, as it says that it serves: process and lines so far."""
    process = subprocess.Popen(example.command(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines: list[str] = []
    give_up_s = time.monotonic() + LIMIT_S
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith("Serving on") or time.monotonic() > give_up_s:
            break
    yield process, lines
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_second_run_sends_nothing_again(
    serving: tuple[subprocess.Popen[str], list[str]],
) -> None:
    text = "\n".join(serving[1])
    assert number(r"([\d,]+) of them new", text) == 0
    assert number(r"upsync +([\d,]+) of 231,841", text) == 0
    assert number(r": ([\d,]+) differences", text) == 0


def pasted(line: str) -> Any:
    """What a curl line that was printed is answered; only the options it uses are known here."""
    words = shlex.split(line)
    url, header, body = words[2], words[words.index("-H") + 1], words[words.index("-d") + 1]
    request = urllib.request.Request(url, body.encode(), dict([header.split(": ", 1)]))
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def run_example(code: str, names: dict[str, object]) -> None:
    """One example of the document, which may await at its top level."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    compiled = compile(code, str(CLIENT), "exec", flags=flags, dont_inherit=True)
    running = FunctionType(compiled, names)()
    if asyncio.iscoroutine(running):
        asyncio.run(running)


@pytest.mark.usefixtures("serving")
def test_the_examples_of_the_client_run_and_say_what_the_document_says(example: Example) -> None:
    examples = CODE.findall(CLIENT.read_text())
    assert len(examples) == 6
    names: dict[str, object] = {"__name__": "examples"}
    said: list[tuple[str, str]] = []
    for code in examples:
        run_example(code.replace("127.0.0.1:6566", f"127.0.0.1:{example.port}"), names)
        said += SAID.findall(code)
    assert len(said) == 7
    found = [repr(eval(statement.rpartition(" = ")[2], names)) for statement, _ in said]
    assert found == [expected.replace('"', "'") for _, expected in said]


def test_the_curl_lines_work_until_the_example_is_interrupted(
    example: Example, serving: tuple[subprocess.Popen[str], list[str]]
) -> None:
    process, lines = serving
    curls = [line for line in lines if line.startswith("curl ")]
    answers = [pasted(line)["results"] for line in curls]
    assert [len(results) for results in answers] == [1, 1, 4]
    assert answers[0][0]["rows"][0][0] == 111
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert not example.is_served()


def test_a_port_in_use_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, str(RUN), "--folder", str(tmp_path), "--port", str(port)]
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert f"error: port {port} of 127.0.0.1 is in use" in refused.stderr

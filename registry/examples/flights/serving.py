"""Runs Headrace for the example: its commands, its server process, and requests to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HOST = "127.0.0.1"
START_LIMIT_S = 60
DRAIN_LIMIT_S = 20
LOOK_EVERY_S = 0.1


class ExampleError(Exception):
    """The example cannot go on; the text says why and what to do."""


class Answer(NamedTuple):
    """One HTTP answer, body undecoded."""

    status: int
    content_type: str
    body: bytes


class Role(NamedTuple):
    """A running part of Headrace and where it logs."""

    process: subprocess.Popen[bytes]
    log: Path


class CommandLine:
    """The `headrace` command in a working folder that holds its own headrace.yaml."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *arguments: str, succeeds_with: Sequence[int] = (0,)) -> str:
        """Run one command to its end and return what it printed; progress shows on a terminal."""
        command = [sys.executable, "-m", "headrace.cli", *arguments]
        stderr = None if sys.stderr.isatty() else subprocess.PIPE
        done = subprocess.run(  # noqa: S603 - our own command line
            command, cwd=self.folder, stdout=subprocess.PIPE, stderr=stderr, text=True, check=False
        )
        if done.returncode not in succeeds_with:
            told = "\n".join(part.strip() for part in (done.stdout, done.stderr or "") if part)
            raise ExampleError(
                f"`headrace {' '.join(arguments)}` ended with {done.returncode}\n{told}"
            )
        return done.stdout

    def run_json(self, *arguments: str) -> Any:
        """Run one command with `--json` and return its document."""
        return json.loads(self.run(*arguments, "--json"))


class Client:
    """Requests to the example's gateway over one kept connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection(HOST, port, timeout=30)

    def get(self, path: str) -> Answer:
        return self._request("GET", path, None, {})

    def read(self, body: object, *, accept: str = "application/json") -> Answer:
        """`POST /v1/read`."""
        headers = {"content-type": "application/json", "accept": accept}
        return self._request("POST", "/v1/read", json.dumps(body).encode(), headers)

    def rows(self, body: object) -> list[dict[str, Any]]:
        """The results of a read that has to succeed."""
        answer = self.read(body)
        if answer.status != http.client.OK:
            raise ExampleError(f"a read was answered {answer.status}: {answer.body.decode()}")
        results: list[dict[str, Any]] = json.loads(answer.body)["results"]
        return results

    def close(self) -> None:
        self._connection.close()

    def _request(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> Answer:
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        return Answer(response.status, response.headers["content-type"] or "", response.read())


@contextlib.contextmanager
def process(folder: Path, name: str, *arguments: str) -> Generator[Role, None, None]:
    """A long-running `headrace` command until the block ends; then it drains. It logs to a file."""
    log = folder / f"{name}.log"
    command = [sys.executable, "-m", "headrace.cli", *arguments]
    with log.open("wb") as output:
        # A group of its own: Ctrl-C reaches us alone, and we let the role drain.
        running = subprocess.Popen(  # noqa: S603 - our own command line
            command, cwd=folder, stdout=output, stderr=output, start_new_session=True
        )
        try:
            yield Role(running, log)
        finally:
            _stop(running)


def refuse_taken_port(port: int) -> None:
    """Raise when somebody else listens already: their answers would pass for ours."""
    with contextlib.closing(socket.socket()) as probe:
        if probe.connect_ex((HOST, port)) == 0:
            raise ExampleError(
                f"port {port} of {HOST} is in use; stop what listens there, or give another "
                "port with --port"
            )


def wait_until_ready(roles: Sequence[Role], port: int) -> None:
    """Return once the gateway says that it is ready; raise when a role ends before."""
    give_up_s = time.monotonic() + START_LIMIT_S
    while time.monotonic() < give_up_s and not ended(roles):
        with contextlib.suppress(OSError), contextlib.closing(Client(port)) as client:
            if client.get("/readyz").status == http.client.OK:
                return
        time.sleep(LOOK_EVERY_S)
    log = (ended(roles) or list(roles))[0].log
    told = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:])
    raise ExampleError(f"the gateway did not become ready; `{log}` ends with\n{told}")


def ended(roles: Sequence[Role]) -> list[Role]:
    """Roles whose process is gone."""
    return [role for role in roles if role.process.poll() is not None]


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(DRAIN_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

"""Roles as processes over whatever engines the URLs name: started, asked, stopped, killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import Any

from headrace.loadtest.servers.process import free_port

SOON_S = 60
LOOK_EVERY_S = 0.05
REGISTRY = """\
live::room-v1:
  feature_type: Object
  owner: "tests"
  description: "What a room looks like now"
  cache: {ttl: 10m}
  downsync: {enabled: true, min_interval_by_key: "0s", random_sampling_ratio: 1.0}
  schema:
    room_id: {type: Long, is_key_field: true}
    viewers: {type: Long, description: "People watching", default_value: 0}
    title:   {type: Text, description: "Shown above it", default_value: ""}
live::room-visits:
  feature_type: History
  owner: "tests"
  description: "Who came in"
  ttl: 30d
  schema:
    room_id: {type: Long, is_key_field: true}
    visitor: {type: Text, description: "Who", default_value: ""}
live::user-v1:
  feature_type: Object
  owner: "tests"
  description: "What the nightly job knows of a user"
  upsync: {enabled: true, updated_at: seen_at}
  schema:
    user_id: {type: Long, is_key_field: true}
    level:   {type: Long, description: "Reached so far", default_value: 0}
    seen_at: {type: Timestamp, description: "When the job saw it", nullable: true}
"""


class Deployment:
    """A registry, the URLs of real engines, and the processes that were started over them."""

    def __init__(self, folder: Path, urls: dict[str, str]) -> None:
        self.folder = folder
        self.port = free_port()
        features = folder / "registry" / "features"
        features.mkdir(parents=True)
        (features / "live.yaml").write_text(REGISTRY)
        settings = {
            "registry": str(folder / "registry"),
            "offline": f"duckdb:{folder}/offline",
            "gateway": {"port": self.port, "default_deadline_ms": 2_000},
        }
        (folder / "headrace.yaml").write_text(json.dumps(settings | urls))
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("HEADRACE_")}
        self.started: dict[str, subprocess.Popen[bytes]] = {}
        self.before_apply: tuple[int, Any] = (0, None)

    def run(self, *arguments: str, text: str = "") -> tuple[int, str, str]:
        """Exit status, standard output, standard error of a command."""
        done = subprocess.run(
            [sys.executable, "-m", "headrace.cli", *arguments],
            input=text,
            capture_output=True,
            text=True,
            timeout=SOON_S,
            cwd=self.folder,
            env=self.environment,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def apply(self) -> None:
        """Apply the registry; a server that is busy, or has just started, is asked again."""
        give_up_s = time.monotonic() + SOON_S
        while (applied := self.run("apply"))[0] != 0:
            assert time.monotonic() < give_up_s, applied

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """A role in the background; what it says is `NAME.log`."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.started[name] = subprocess.Popen(
                [sys.executable, "-m", "headrace.cli", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self.environment,
                start_new_session=True,
            )
        return self.started[name]

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def url(self, name: str) -> str:
        """The URL of an engine as the roles have it."""
        settings = json.loads((self.folder / "headrace.yaml").read_text())
        return str(settings[name])

    def until_said(self, name: str, words: str, *, since: int = 0) -> None:
        """Wait for words of a role, which may end once it has said them."""
        give_up_s = time.monotonic() + SOON_S
        while words not in self.said(name)[since:]:
            assert time.monotonic() < give_up_s, self.said(name)[-3_000:]
            time.sleep(LOOK_EVERY_S)

    def request(self, path: str, body: object = None) -> tuple[int, Any]:
        """Status and JSON body of one answer of the gateway."""
        status, _, answer = self.ask(path, body)
        return status, answer

    def ask(self, path: str, body: object = None) -> tuple[int, Message, Any]:
        """Status, headers and JSON body of one answer of the gateway."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data)
        request.add_header("content-type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=SOON_S) as response:
                return response.status, response.headers, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, error.headers, json.load(error)

    def rows(self, *rooms: int) -> list[Any]:
        """Viewers and title of rooms as the gateway answers them."""
        fields = ["viewers", "title"]
        read = {"feature_group": "live::room-v1", "fields": fields, "keys": {"room_id": rooms}}
        status, answer = self.request("/v1/read", {"reads": [read]})
        give_up_s = time.monotonic() + SOON_S
        # Each worker finds a new catalog by itself, within a second of `apply`.
        while answer.get("code") == "NO_CATALOG" and time.monotonic() < give_up_s:
            time.sleep(LOOK_EVERY_S)
            status, answer = self.request("/v1/read", {"reads": [read]})
        assert status == 200, answer
        rows: list[Any] = answer["results"][0]["rows"]
        return rows

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait for a condition; a role that ended meanwhile is shown."""
        give_up_s = time.monotonic() + SOON_S
        while not holds():
            for name, process in self.started.items():
                assert process.poll() is None, self.said(name)[-3_000:]
            told = {name: self.said(name)[-1_000:] for name in self.started}
            assert time.monotonic() < give_up_s, told
            time.sleep(LOOK_EVERY_S)

    def is_ready(self) -> bool:
        try:
            return self.request("/readyz")[0] == 200
        except OSError:
            return False

    def asks_for_apply(self) -> bool:
        """Whether the gateway has found out that nothing was ever applied."""
        with contextlib.suppress(OSError):  # It says so a moment before it listens.
            self.before_apply = self.request("/readyz")
        return "`headrace apply` makes it" in str(self.before_apply[1])

    def stop(self, name: str) -> int:
        """SIGTERM, and how the role ended."""
        process = self.started.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(SOON_S)

    def kill_all(self) -> None:
        """End what still runs: each role leads a group, its workers are in it."""
        for process in self.started.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def update(room: int, viewers: int, **more: object) -> str:
    values = {"viewers": viewers, "_last_updated_at_ms": time.time_ns() // 1_000_000}
    body = {"feature_name": "live::room-v1", "method": "UPDATE", "keys": {"room_id": room}}
    return json.dumps(body | {"values": values | more})


def children(pid: int) -> list[int]:
    """Processes whose parent is `pid`, as Linux lists them."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]

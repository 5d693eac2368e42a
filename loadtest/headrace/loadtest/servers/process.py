"""One server process: started, probed until ready, frozen, resumed, killed; never a shell."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

READY_LIMIT_S = 60.0
PROBE_INTERVAL_S = 0.05
LOG_TAIL_LINES = 30


class ServerFailed(Exception):
    """A server did not start. The message holds the end of its log."""


def free_port() -> int:
    """A loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def ask(port: int, question: bytes, *, answer_bytes: int, timeout_s: float = 1.0) -> bytes:
    """Send bytes to a loopback port and read back up to `answer_bytes`; empty when refused."""
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection,
    ):
        connection.settimeout(timeout_s)
        connection.sendall(question)
        return connection.recv(answer_bytes)
    return b""


class Server:
    """A started server. `stop` is immediate: its data is thrown away anyway."""

    def __init__(
        self, name: str, argv: Sequence[str], *, folder: Path, port: int, ready: Callable[[], bool]
    ) -> None:
        self.name = name
        self.host = "127.0.0.1"
        self.port = port
        self.folder = folder
        self.log_path = folder / "server.log"
        self._argv = list(argv)
        self._ready = ready
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id; the server must be running."""
        if self._process is None:
            raise ServerFailed(f"{self.name} is not running")
        return self._process.pid

    def start(self) -> Server:
        """Start (again, on the same port and folder) and wait until the ready probe answers."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + READY_LIMIT_S
        while not self._ready():
            if self._process.poll() is not None:
                raise ServerFailed(
                    f"{self.name} ended with {self._process.returncode}:\n{self.tail()}"
                )
            if time.monotonic() > deadline:
                self.stop()
                raise ServerFailed(
                    f"{self.name} not ready in {READY_LIMIT_S:.0f} s:\n{self.tail()}"
                )
            time.sleep(PROBE_INTERVAL_S)
        return self

    def tail(self) -> str:
        """The last lines of the log."""
        lines = self.log_path.read_text(errors="replace").splitlines()
        return "\n".join(lines[-LOG_TAIL_LINES:])

    def freeze(self) -> None:
        """SIGSTOP: returns once every thread stands still; the sockets stay open."""
        os.kill(self.pid, signal.SIGSTOP)
        while not all(map(_is_stopped, Path(f"/proc/{self.pid}/task").iterdir())):
            time.sleep(0.001)

    def resume(self) -> None:
        """SIGCONT after `freeze`."""
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        """SIGKILL and reap; harmless when it is not running."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.resume()
            os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None


def _is_stopped(thread: Path) -> bool:
    """Whether a thread is in state T (proc(5)); one that ended meanwhile is no obstacle."""
    with contextlib.suppress(OSError):
        return (thread / "stat").read_text().rpartition(")")[2].split()[0] == "T"
    return True

"""The blocking client: the same as the asynchronous one, for threads and scripts."""

# pyarrow has no types.
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Self

from headrace.client.address import Address
from headrace.client.answers import Read, Sent, Unusable
from headrace.client.attempts import again_after_failure, again_after_s, checked_deadline_ms
from headrace.client.errors import (
    ClientError,
    ConnectionFailed,
    DeadlineExceeded,
    MalformedAnswer,
)
from headrace.client.exchange import Answer, AnswerReader, arrow_of, read_of, sent_of
from headrace.client.requests import (
    ARROW_TYPE,
    Command,
    GroupRead,
    Keys,
    ReadOptions,
    Request,
    RequestWriter,
)

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

    import pyarrow as pa

NO_OPTIONS = ReadOptions()
RECEIVED_BYTES_MAX = 256 * 1024
LATE = "the answer did not come within the deadline"


class Client:
    """Reads from and writes to one gateway; threads may share it.

        with Client("http://127.0.0.1:6566") as client:
            read = client.read("room-ranker-v1", {"user_id": [1001]})

    Raises what `AsyncClient` raises.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        deadline_ms: int = 100,
        connections_max: int = 64,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._deadline_ms = checked_deadline_ms(deadline_ms)
        address = Address.parse(url)
        self._writer = RequestWriter(address, api_key)
        self._pool = _Pool(address, connections_max, tls)

    def read(
        self,
        service: str,
        keys: Keys,
        *,
        deadline_ms: int | None = None,
        options: ReadOptions = NO_OPTIONS,
    ) -> Read:
        """Read a feature service; `keys` are its request keys."""
        limit_ms = self._limit(deadline_ms)
        request = self._writer.read_service(service, keys, options=options)
        return read_of(self._answer(request, limit_ms))

    def read_group(
        self,
        feature_group: str,
        keys: Keys,
        *,
        fields: Sequence[str] | None = None,
        limit: int | None = None,
        deadline_ms: int | None = None,
        options: ReadOptions = NO_OPTIONS,
    ) -> Read:
        """Read one feature group; `limit` is how many events of a History."""
        reads = [GroupRead(feature_group, keys, fields, limit)]
        return self.read_groups(reads, deadline_ms=deadline_ms, options=options)

    def read_groups(
        self,
        reads: Sequence[GroupRead],
        *,
        deadline_ms: int | None = None,
        options: ReadOptions = NO_OPTIONS,
    ) -> Read:
        """Read several feature groups in one request."""
        limit_ms = self._limit(deadline_ms)
        request = self._writer.read_groups(reads, options=options)
        return read_of(self._answer(request, limit_ms))

    def read_arrow(
        self,
        service: str,
        keys: Keys,
        *,
        deadline_ms: int | None = None,
        options: ReadOptions = NO_OPTIONS,
        unusable: Unusable = "raise",
    ) -> pa.Table:
        """Read a feature service as one Arrow table, over the bytes that came. Needs pyarrow.

        Its columns are those of `docs/formats.md`, with the types that fields have. Raises
        `UnusableValue` for values that could not be served, unless null is asked for instead.
        """
        from headrace.client.arrays import table

        limit_ms = self._limit(deadline_ms)
        request = self._writer.read_service(service, keys, options=options, accept=ARROW_TYPE)
        return table(arrow_of(self._answer(request, limit_ms)), unusable)

    def read_groups_arrow(
        self,
        reads: Sequence[GroupRead],
        *,
        deadline_ms: int | None = None,
        options: ReadOptions = NO_OPTIONS,
        unusable: Unusable = "raise",
    ) -> pa.Table:
        """Read feature groups as one Arrow table, as `read_arrow`."""
        from headrace.client.arrays import table

        limit_ms = self._limit(deadline_ms)
        request = self._writer.read_groups(reads, options=options, accept=ARROW_TYPE)
        return table(arrow_of(self._answer(request, limit_ms)), unusable)

    def send(
        self, commands: Sequence[Command | Mapping[str, Any]], *, deadline_ms: int = 5_000
    ) -> Sent:
        """Append commands to the command log; as `AsyncClient.send`."""
        limit_ms = checked_deadline_ms(deadline_ms)
        return sent_of(self._answer(self._writer.send(commands), limit_ms))

    def close(self) -> None:
        """Close every idle connection; one in use closes with its answer."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _limit(self, deadline_ms: int | None) -> int:
        return self._deadline_ms if deadline_ms is None else checked_deadline_ms(deadline_ms)

    def _answer(self, request: Request, limit_ms: int) -> Answer:
        limit_s = time.monotonic() + limit_ms / 1000
        attempt = 0
        while True:
            attempt += 1
            try:
                answer = self._pool.exchange(request, limit_s)
            except ClientError as error:
                if not again_after_failure(request, error, attempt):
                    raise
                continue
            wait_s = again_after_s(request, answer, attempt, limit_s - time.monotonic())
            if wait_s is None:
                return answer
            time.sleep(wait_s)


class _Pool:
    """Connections to one address; at most `connections_max` at a time."""

    def __init__(self, address: Address, connections_max: int, tls: ssl.SSLContext | None) -> None:
        if connections_max < 1:
            raise ValueError(f"connections_max: expected at least 1, got {connections_max}")
        self._address = address
        self._tls = tls
        self._tls_lock = threading.Lock()
        self._idle: list[_Connection] = []  # append and pop are atomic
        self._turns = threading.BoundedSemaphore(connections_max)
        self._closed = False

    def exchange(self, request: Request, limit_s: float) -> Answer:
        if not self._turns.acquire(timeout=max(0.0, limit_s - time.monotonic())):
            raise DeadlineExceeded(
                "every connection is in use; the deadline passed before one was free"
            )
        try:
            connection = self._idle_one() or self._connect(limit_s)
            try:
                answer = connection.exchange(request, limit_s)
            except BaseException:
                # Failed, late or interrupted: what may still come answers nobody.
                connection.close()
                raise
            if answer.lasting and not self._closed:
                self._idle.append(connection)
            else:
                connection.close()
            return answer
        finally:
            self._turns.release()

    def close(self) -> None:
        self._closed = True
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _idle_one(self) -> _Connection | None:
        if self._closed:
            raise ConnectionFailed("this client is closed", sent=False)
        with contextlib.suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if connection.usable():
                    return connection
                connection.close()
        return None

    def _connect(self, limit_s: float) -> _Connection:
        address = self._address
        try:
            link = _connected(_addresses(address.host, address.port, limit_s), limit_s)
            try:
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if address.tls:
                    link.settimeout(_left_s(limit_s))
                    link = self._context().wrap_socket(link, server_hostname=address.host)
            except BaseException:
                link.close()
                raise
        except TimeoutError:
            raise DeadlineExceeded(f"no connection to `{address.authority}` in time") from None
        except OSError as error:
            raise ConnectionFailed(
                f"no connection to `{address.authority}`: {error.strerror or error}", sent=False
            ) from None
        return _Connection(link)

    def _context(self) -> ssl.SSLContext:
        with self._tls_lock:
            if self._tls is None:
                import ssl

                self._tls = ssl.create_default_context()
            return self._tls


class _Connection:
    """One connection with at most one request under way."""

    __slots__ = ("_link", "_reader")

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._reader = AnswerReader()

    def usable(self) -> bool:
        """Whether nothing came while it was idle: neither the gateway's end nor stray bytes."""
        self._link.settimeout(0)
        try:
            self._link.recv(1)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError as error:
            # TLS says "nothing to read" in its own way.
            return type(error).__name__ == "SSLWantReadError"
        return False

    def exchange(self, request: Request, limit_s: float) -> Answer:
        link, reader = self._link, self._reader
        reader.expect()
        try:
            left_s = _left_s(limit_s)
            link.settimeout(left_s)
            link.sendall(request.payload(left_s))
            while True:
                link.settimeout(_left_s(limit_s))
                received = link.recv(RECEIVED_BYTES_MAX)
                if not received:
                    raise ConnectionFailed("the connection ended early", sent=True)
                answer = reader.feed(received)
                if answer is not None:
                    return answer
        except TimeoutError:
            raise DeadlineExceeded(LATE) from None
        except MalformedAnswer:
            raise
        except OSError as error:
            raise ConnectionFailed(
                f"the connection ended early: {error.strerror or error}", sent=True
            ) from None

    def close(self) -> None:
        self._link.close()


_Place = tuple[int, tuple[Any, ...]]
"""A family and a socket address of it."""


def _connected(places: Sequence[_Place], limit_s: float) -> socket.socket:
    """A connection to the first place that takes one, within the deadline of all."""
    refused = OSError("the name has no address")
    for family, place in places:
        link = socket.socket(family, socket.SOCK_STREAM)
        try:
            link.settimeout(_left_s(limit_s))
            link.connect(place)
        except BaseException as error:
            link.close()
            if not isinstance(error, OSError) or isinstance(error, TimeoutError):
                raise
            refused = error
        else:
            return link
    raise refused


def _addresses(host: str, port: int, limit_s: float) -> list[_Place]:
    """What a name stands for. No resolver takes a deadline, so one that is late is left behind."""
    try:
        return _resolve(host, port, socket.AI_NUMERICHOST)
    except socket.gaierror:
        pass  # a name
    found: SimpleQueue[list[_Place] | OSError] = SimpleQueue()

    def look_up() -> None:
        try:
            found.put(_resolve(host, port, 0))
        except OSError as error:
            found.put(error)

    threading.Thread(target=look_up, name="headrace-resolve", daemon=True).start()
    try:
        places = found.get(timeout=_left_s(limit_s))
    except Empty:
        raise TimeoutError from None
    if isinstance(places, OSError):
        raise places
    return places


def _resolve(host: str, port: int, flags: int) -> list[_Place]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return [(family, place) for family, _, _, _, place in found]


def _left_s(limit_s: float) -> float:
    left_s = limit_s - time.monotonic()
    if left_s <= 0:
        raise DeadlineExceeded(LATE)
    return left_s

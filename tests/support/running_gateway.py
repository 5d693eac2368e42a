"""A gateway on a free loopback port in this event loop, and raw sockets to talk to it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
from litestar import Litestar
from prometheus_client import CollectorRegistry

from headrace.codec import Catalog, ReadEngine, StaleCatalog
from headrace.gateway.app import Ports, create_app
from headrace.gateway.catalog_in_force import CatalogInForce
from headrace.gateway.lane_state import Lane
from headrace.gateway.limits import Limits
from headrace.gateway.ports import Appended, LateReads, Reads, RowInspector
from headrace.gateway.serve import GatewayServer, listen
from headrace.gateway.stores.memory import MemoryCatalogReader
from headrace.registry.catalog import (
    CatalogDocument,
    Group,
    KeyField,
    Schema,
    Service,
    ServiceRead,
    ValueField,
    encode_document,
)
from headrace.registry.physical import CATALOG_DOCUMENT, CATALOG_GENERATION
from headrace.registry.watch import CatalogWatcher

NOW_MS = 1_700_000_000_000
GROUP_NAME = "live::host-stat-v1"
HISTORY_NAME = "live::host-history"
SERVICE_NAME = "room-ranker-v1"


def document(generation: int = 3) -> CatalogDocument:
    """One Object, one History and one service over both."""
    fields = (
        ValueField(id=1, name="level", type="Long", default=0),
        ValueField(id=2, name="country_code", type="Text", default="XX"),
    )
    return CatalogDocument(
        generation=generation,
        published_at_ms=NOW_MS,
        groups=(
            Group(
                id=1,
                name=GROUP_NAME,
                feature_type="Object",
                owner="shawn.s",
                keys=(KeyField(name="user_id", type="Long"),),
                schemas=(Schema(ordinal=1, fields=fields),),
                max_age_ms=7_200_000,
            ),
            Group(
                id=2,
                name=HISTORY_NAME,
                feature_type="History",
                owner="shawn.s",
                keys=(KeyField(name="user_id", type="Long"),),
                schemas=(Schema(ordinal=1, fields=fields),),
            ),
        ),
        services=(
            Service(
                name=SERVICE_NAME,
                owner="shawn.s",
                reads=(
                    ServiceRead(feature_group=GROUP_NAME, keys={"user_id": "user_id"}),
                    ServiceRead(
                        feature_group=HISTORY_NAME,
                        keys={"user_id": "peer_user_id"},
                        alias="peer",
                        limit=5,
                    ),
                ),
            ),
        ),
        next_group_id=3,
    )


@dataclass
class TinyEngine:
    """Answers any body in the engine's response shape: what it read is what it says.

    `size` in a JSON body asks for an answer of that many bytes, `stale` for as many `StaleCatalog`.
    """

    bodies: list[bytes] = field(default_factory=list)
    installed: list[int] = field(default_factory=list)
    stale_left: int = 0
    fails: bool = False

    def install(self, catalog: Catalog) -> None:
        self.installed.append(catalog.generation)

    def read(
        self,
        body: bytes,
        *,
        accept: int,
        now_ms: int,
        request_id: bytes,
        keep_alive: bool,
        reloaded: bool = False,
    ) -> bytes:
        self.bodies.append(body)
        if self.fails:
            raise OSError("the store is gone")
        if self.stale_left and not reloaded:
            self.stale_left -= 1
            raise StaleCatalog
        asked = json.loads(body) if body[:1] == b"{" else {}
        answer = json.dumps(
            {"length": len(body), "n": asked.get("n"), "accept": accept, "now_ms": now_ms}
        ).encode()
        answer = answer.ljust(int(asked.get("size", 0)))
        generation = self.installed[-1] if self.installed else 0
        return (
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
            b"x-request-id: %b\r\nheadrace-generation: %d\r\n%b\r\n%b"
            % (
                len(answer),
                request_id,
                generation,
                b"" if keep_alive else b"connection: close\r\n",
                answer,
            )
        )

    def counters(self) -> dict[str, int]:
        return {"requests": len(self.bodies)}


@dataclass
class ListAppender:
    """A command log in memory; `broken` makes it unreachable, `bytes_max` refuses long commands."""

    records: list[tuple[bytes, bytes]] = field(default_factory=list)
    broken: Exception | None = None
    bytes_max: int = 1 << 30

    async def append(self, records: Sequence[tuple[bytes, bytes]]) -> Sequence[Appended | None]:
        if self.broken is not None:
            raise self.broken
        places: list[Appended | None] = []
        for key, command in records:
            fits = len(command) <= self.bytes_max
            places.append(Appended("realtime", 0, len(self.records)) if fits else None)
            if fits:
                self.records.append((key, command))
        return places


@dataclass
class Running:
    """A live gateway and the parts a test looks into."""

    port: int
    app: Litestar
    engine: TinyEngine
    in_force: CatalogInForce
    watcher: CatalogWatcher
    published: dict[str, bytes]
    server: GatewayServer
    connections: list[Connection] = field(default_factory=list)

    @property
    def lane(self) -> Lane:
        lane: Lane = self.app.state.lane
        return lane

    def forget(self) -> None:
        """Count and remember from zero."""
        self.engine.bodies.clear()
        telemetry = self.lane.telemetry
        telemetry.reads.clear()  # The lane and the collector hold these very objects.
        telemetry.__init__(telemetry.reads)  # type: ignore[misc]

    async def connect(self, receive_buffer_bytes: int | None = None) -> Connection:
        """A raw connection; a small receive buffer makes a caller that is slow to read."""
        client = socket.socket()
        client.setblocking(False)
        if receive_buffer_bytes is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", self.port))
        reader, writer = await asyncio.open_connection(sock=client, limit=2**24)
        connection = Connection(reader, writer)
        self.connections.append(connection)
        return connection


@dataclass
class Answer:
    """One parsed HTTP answer and its bytes."""

    status: int
    headers: dict[str, str]
    body: bytes
    raw: bytes

    def json(self) -> dict[str, object]:
        parsed: dict[str, object] = json.loads(self.body)
        return parsed


@dataclass
class Connection:
    """A raw client connection that reads whole answers."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, *requests: bytes) -> None:
        self.writer.write(b"".join(requests))

    async def answer(self) -> Answer:
        """The next answer, of known length or chunked."""
        async with asyncio.timeout(10):
            head = await self.reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            headers = {
                name.lower(): value
                for name, _, value in (line.partition(": ") for line in lines[1:] if line)
            }
            if headers.get("transfer-encoding") == "chunked":
                body = await self._chunks()
            else:
                body = await self.reader.readexactly(int(headers.get("content-length", "0")))
            return Answer(int(lines[0].split(" ")[1]), headers, body, head + body)

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readexactly(2)
        return body

    async def exchange(self, *requests: bytes) -> Answer:
        self.send(*requests)
        return await self.answer()

    async def ended(self) -> bytes:
        """Everything until the server's end of the connection."""
        async with asyncio.timeout(10):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    def close(self) -> None:
        self.writer.close()

    def abort(self) -> None:
        self.writer.transport.abort()


def post(
    body: bytes,
    *headers: str,
    path: str = "/v1/read",
    version: str = "1.1",
    content_type: str | None = "application/json",
) -> bytes:
    """A POST as a plain client writes it."""
    lines = [f"POST {path} HTTP/{version}", "host: gateway", f"content-length: {len(body)}"]
    if content_type is not None:
        lines.append(f"content-type: {content_type}")
    return ("\r\n".join([*lines, *headers]) + "\r\n\r\n").encode("latin-1") + body


def get(path: str, *headers: str) -> bytes:
    """A GET as a plain client writes it."""
    lines = [f"GET {path} HTTP/1.1", "host: gateway", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def publish(published: dict[str, bytes], text: bytes, generation: int) -> None:
    """What `apply` does to the named values of a store."""
    published[CATALOG_DOCUMENT] = text
    published[CATALOG_GENERATION] = b"%d" % generation


def make_app(
    engine: Reads,
    in_force: CatalogInForce,
    watcher: CatalogWatcher,
    *,
    bounds: Limits | None = None,
    appender: ListAppender | None = None,
    inspector: RowInspector | None = None,
    late: LateReads | None = None,
) -> Litestar:
    """An application that follows a watcher."""
    watcher.subscribe(lambda live: engine.install(live.compiled))
    watcher.subscribe(lambda live: in_force.install(live.compiled, live.document))
    ports = Ports(
        engine=engine,
        in_force=in_force,
        clock=lambda: NOW_MS,
        envelope_schema=ReadEngine.envelope_schema(),
        metrics=CollectorRegistry(),
        appender=appender or ListAppender(),
        inspector=inspector,
        late=late,
    )
    return create_app(ports, bounds or limits())


@asynccontextmanager
async def running(
    bounds: Limits | None = None,
    *,
    appender: ListAppender | None = None,
    published: dict[str, bytes] | None = None,
    late: Callable[[TinyEngine], LateReads] | None = None,
) -> AsyncGenerator[Running]:
    """Serve on a free loopback port; stopped and drained at the end."""
    if published is None:
        published = {}
        publish(published, encode_document(document()), document().generation)
    engine, watcher = TinyEngine(), CatalogWatcher(MemoryCatalogReader(published), lambda: NOW_MS)
    in_force = CatalogInForce(watcher)
    app = make_app(
        engine,
        in_force,
        watcher,
        bounds=bounds,
        appender=appender,
        late=late(engine) if late is not None else None,
    )
    await watcher.refresh()
    server = GatewayServer(app)
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    task = asyncio.create_task(server.serve_on(listener))
    await until(lambda: server.started or task.done())
    gateway = Running(port, app, engine, in_force, watcher, published, server)
    try:
        yield gateway
    finally:
        for connection in gateway.connections:
            connection.abort()
        server.stop()
        await task


def limits(**changes: float) -> Limits:
    """The limits of the product with changes, and a drain that waits for nobody."""
    at_once = {
        "drain_notice_seconds": 0.0,
        "drain_quiet_seconds": 0.0,
        "drain_finish_seconds": 2,
    }
    return msgspec.convert({**at_once, **changes}, Limits)


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for a condition of this event loop."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - any condition at all
            await asyncio.sleep(0.002)

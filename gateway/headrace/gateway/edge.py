"""What every ASGI answer carries and every ASGI request passes, around Litestar's own handling.

Request id and generation headers, the loopback rule (semantics 14), paths that are written
otherwise than the routes, HEAD as GET without a body, shedding when too many bytes are held, the
end of connections while draining, and the count by route and status.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import cast

import msgspec
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, ReceiveMessage, Scope, Send

from headrace.gateway.catalog_in_force import CatalogInForce
from headrace.gateway.errors import (
    PROBLEM_TYPE,
    CallerGone,
    GatewayError,
    Overloaded,
    RefusedCaller,
    UnknownName,
    refusal_of,
)
from headrace.gateway.heads import is_plain_path
from headrace.gateway.lane_state import Lane
from headrace.gateway.negotiation import kept_request_id

REQUEST_ID_KEY = "request_id"
"""Where handlers find the request id, in `request.scope["state"]`."""


class Edge:
    """An ASGI application around another; answers refused callers itself."""

    def __init__(
        self, inner: ASGIApp, lane: Lane, in_force: CatalogInForce, names_under: Sequence[bytes]
    ) -> None:
        self._inner = inner
        self._lane = lane
        self._in_force = in_force
        self._names_under = names_under

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._inner(scope, receive, send)
            return
        without_body = scope["method"] == "HEAD"
        if without_body:  # RFC 9110, 9.3.2; the server still knows what was asked
            scope = cast("HTTPScope", {**scope, "method": "GET"})
        exchange = _Exchange(
            scope,
            receive,
            send,
            self._lane,
            self._in_force.generation_text,
            without_body=without_body,
        )
        refused = _refused(scope) or self._misspelt(scope) or self._shed(scope)
        if refused is None:
            await self._inner(scope, exchange.receive, exchange.send)
        else:
            await _answer(refused, scope, exchange.send)

    def _misspelt(self, scope: HTTPScope) -> GatewayError | None:
        raw_path = scope["raw_path"] or scope["path"].encode()
        if is_plain_path(raw_path, self._names_under):
            return None
        return UnknownName(
            f"no route `{raw_path[:80].decode('latin-1')}`: a path is taken as it is written,"
            " without empty parts, a slash at the end, or %-encoding outside of names; `/schema`"
            " lists the routes",
            code="NOT_FOUND",
        )

    def _shed(self, scope: HTTPScope) -> GatewayError | None:
        """What carries no body goes on, so that health and metrics can be asked for."""
        if self._lane.overloaded and scope["method"] == "POST":
            return Overloaded("this gateway holds as many unfinished requests as it may")
        return None


class _Exchange:
    """One request and its answer on their way through the edge."""

    def __init__(
        self,
        scope: HTTPScope,
        receive: Receive,
        send: Send,
        lane: Lane,
        generation: bytes,
        *,
        without_body: bool,
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._lane = lane
        self._generation = generation
        self._without_body = without_body
        self._awaits_continue = False
        self._gone = False
        inbound = None
        for name, value in scope["headers"]:
            if name == b"x-request-id":
                inbound = kept_request_id(value)
            elif name == b"expect":
                self._awaits_continue = True
        self._request_id = inbound or lane.request_ids.make()
        cast("dict[str, object]", scope.setdefault("state", {}))[REQUEST_ID_KEY] = self._request_id

    async def receive(self) -> ReceiveMessage:
        self._awaits_continue = False
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._gone = True
            raise CallerGone("the caller left before its request was whole")
        return message

    async def send(self, message: Message) -> None:
        if self._gone:
            return
        if message["type"] == "http.response.start":
            message["headers"] = self._headers(message["headers"])
            template = self._scope.get("path_template") or "unmatched"
            self._lane.telemetry.count_request(str(template), message["status"])
        elif message["type"] == "http.response.body" and self._without_body:
            message["body"] = b""
        await self._send(message)

    def _headers(self, given: object) -> list[tuple[bytes, bytes]]:
        headers = [
            (name, _with_head(value) if name == b"allow" else value)
            for name, value in cast("list[tuple[bytes, bytes]]", given)
        ]
        present = {name for name, _ in headers}
        if b"x-request-id" not in present:
            headers.append((b"x-request-id", self._request_id))
        if b"headrace-generation" not in present:
            headers.append((b"headrace-generation", self._generation))
        # A caller that was not told to go on may send its body or not: the connection ends here.
        if self._lane.draining or self._awaits_continue:
            headers.append((b"connection", b"close"))
        return headers


def _with_head(allowed: bytes) -> bytes:
    """The methods of an Allow header with the one that comes with GET."""
    methods = [method.strip() for method in allowed.split(b",")]
    return b", ".join([*methods, b"HEAD"] if b"GET" in methods else methods)


def _refused(scope: HTTPScope) -> GatewayError | None:
    client = scope["client"]
    if client is not None and not _is_loopback(client[0]):
        return RefusedCaller(
            f"without `access.yaml` only loopback callers are answered, and you are `{client[0]}`"
        )
    for name, _ in scope["headers"]:
        if name == b"forwarded" or name.startswith(b"x-forwarded-"):
            return RefusedCaller(
                "without `access.yaml` a request that came through a proxy is refused: "
                f"it carries `{name.decode('latin-1')}`"
            )
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:  # not an address: an in-process caller, such as a test client
        return True


async def _answer(error: GatewayError, scope: HTTPScope, send: Send) -> None:
    refusal = refusal_of(error, method=scope["method"], path=scope["path"])
    body = msgspec.json.encode(refusal.problem)
    headers = [
        (b"content-type", PROBLEM_TYPE.encode()),
        (b"content-length", b"%d" % len(body)),
        *((name.encode(), value.encode()) for name, value in refusal.headers),
    ]
    await send(
        {"type": "http.response.start", "status": refusal.problem.status, "headers": headers}
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})

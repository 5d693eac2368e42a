"""The lane: reads answered inside uvicorn's HTTP protocol, without a task or an ASGI scope.

It takes `POST /v1/read` and Feast's `POST /get-online-features`, and a request only when everything
about it is usual: HTTP/1.1, a content length within the limit, JSON in, a media type we have out, a
direct loopback caller, no earlier request of the connection unanswered and a caller that reads its
answers. Whatever is not falls through to ASGI and Litestar, where the same path is an ordinary
route that makes equal bytes. A lane request is answered before its last parser callback returns
when the store is embedded; over a networked store its answer may come later, and then waits its
turn. It cannot overtake an ASGI answer (it is not taken while one is due) nor be overtaken (ASGI
starts when the lane owes nothing).

Bytes arrive at `headrace.codec.LaneConnection`, which holds the turns. While the connection is
`usual` and the head is one that was parsed and taken before, it answers without a Python frame;
all else is passed on to the protocol here, which says when the connection is usual again.

`uvicorn_members` names all we rely on in uvicorn's protocol classes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from ipaddress import ip_address
from typing import Any, cast

import httptools
from litestar import Litestar
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from headrace.codec import LaneConnection, StaleCatalog
from headrace.gateway.errors import problem
from headrace.gateway.heads import head_mistake
from headrace.gateway.lane_state import Lane
from headrace.gateway.negotiation import accepted, is_json, kept_request_id
from headrace.gateway.ports import ACCEPT_FEAST, ACCEPT_JSON
from headrace.gateway.responses import problem_response

logger = logging.getLogger(__name__)

READ_URL = b"/v1/read"
FEAST_URL = b"/get-online-features"

# What is being received on a connection.
BETWEEN = 0  # nothing
HEAD = 1  # a request line or header fields
LANE = 2  # the body of a request that the lane answers
REST = 3  # the body of a request that ASGI answers
ENDED = 4  # nothing more: whatever still comes is thrown away

HEAD_END = b"\r\n\r\n"
HTTP_MARK = b" HTTP/1.1"
"""Stands once in the head of every request that the lane may take."""
READ_STARTS = (b"POST /v1/read HTTP/1.1\r\n", b"POST /get-online-features HTTP/1.1\r\n")

UNUSUAL = frozenset(
    {b"forwarded", b"expect", b"content-encoding", b"transfer-encoding", b"trailer"}
)
"""Header fields that send a request to ASGI; so does any that starts with `x-forwarded-`."""

UPGRADING = frozenset({b"upgrade", b"http2-settings"})
"""Header fields, and words of `Connection`, by which a caller asks for another protocol."""

NEGOTIATED = frozenset({b"content-type", b"accept", b"accept-encoding"})
"""Header fields that decide about the answer; one that stands twice sends a request to ASGI."""

NOT_FEASTS = frozenset({b"content-type", b"accept"})
"""What Feast's callers send as they like, or not at all: the path says what they speak."""


def uvicorn_members() -> dict[str, tuple[str, ...]]:
    """Members of uvicorn that the lane reads, calls or overrides, by class.

    A test holds the installed uvicorn against this list.
    """
    return {
        "HttpToolsProtocol": (
            "connection_made", "connection_lost", "eof_received", "data_received",
            "on_message_begin", "on_url", "on_header", "on_headers_complete", "on_body",
            "on_message_complete", "on_response_complete", "shutdown", "pause_writing",
            "resume_writing", "_unset_keepalive_if_required", "_start_asgi_task",
        ),
        "HttpToolsProtocol()": (
            "parser", "transport", "flow", "client", "url", "headers", "cycle", "pipeline",
            "loop", "config", "server_state", "expect_100_continue", "timeout_keep_alive_task",
        ),
        "RequestResponseCycle()": (
            "response_complete", "response_started", "keep_alive", "disconnected", "message_event",
        ),
        "FlowControl()": (
            "read_paused", "write_paused", "pause_reading", "resume_reading",
        ),
    }  # fmt: skip


class LaneProtocol(HttpToolsProtocol):
    """One connection. The lane is found in the state of the Litestar application it serves."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._lane: Lane = cast("Litestar", config.app).state.lane
        # uvicorn forgets its parser at the end of the connection; this one is never None before.
        self._http: httptools.HttpRequestParser = self.parser  # pyright: ignore[reportAttributeAccessIssue]
        self._asgi_used = False
        self._active: RequestResponseCycle
        self._stage = BETWEEN
        self._local = False
        self._head_bytes = 0
        self._chunk_bytes = 0
        self._whole = b""
        self._began = False
        self._accept = ACCEPT_JSON
        self._request_id: bytes | None = None
        self._body: bytes | bytearray = b""
        self._content_length = 0
        self._held = 0
        self._rest_held: deque[int] = deque()
        self._crowd = False
        self._unparsed = b""
        self._unread = 0
        self._discarded = 0
        self._last_words: bytes | None = None
        self._waiting_start: tuple[RequestResponseCycle, ASGI3Application] | None = None
        self.turns = LaneConnection(
            self._lane.direct,
            received=self._received,
            end=self._end,
            crowded=self._crowded,
            over=self._turns_over,
        )
        # The event loop asks for this method once and then calls it without us.
        self.data_received = self.turns.data_received  # type: ignore[method-assign]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self._local = self.client is None or ip_address(self.client[0]).is_loopback
        self.turns.connected(transport.write)
        self._settle()
        self._lane.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stage = ENDED
        self._release()
        self._taken_back()
        self.turns.close()
        self._lane.direct.hold(-self._unread - sum(self._rest_held))
        self._rest_held.clear()
        self._unread = 0
        self._waiting_start = None
        self._lane.leave(self)
        if self._asgi_used and not self._active.response_complete:
            # uvicorn tells the newest cycle only; the one that runs would write to nobody.
            self._active.disconnected = True
            self._active.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)
        del self._http  # it holds us: a cycle the collector would have to find
        del self.data_received

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn's never keeps one open
        """A caller that only ended its own side still gets the answers that are due."""
        if self._stage == REST and not self._withdraw():
            return False
        if not (self._answer_due() or self.turns.due) or self.transport.is_closing():
            return False
        self._end_after_due()
        return True

    def _received(self, data: bytes) -> None:
        """Bytes that are no usual request."""
        if self._stage == ENDED:
            self._discard(len(data))
            return
        self.turns.usual = False
        self._whole = data if self._stage == BETWEEN else b""
        self._read_on(data)

    def _settle(self) -> None:
        """Let usual requests be answered again, once nothing stands against it.

        Every method that may stand against it unsets `usual` first.
        """
        self.turns.usual = (
            self._stage == BETWEEN
            and self._local
            and not self._answer_due()
            and not self.flow.write_paused
            and self._waiting_start is None
            and self.timeout_keep_alive_task is None
            and not self._crowd
            and not self._unparsed
        )

    def _read_on(self, data: bytes = b"") -> None:
        """Parse what was received, as far as no more answers fall due than may."""
        if self._unparsed:
            data = self._taken_back() + data
            self._whole = b""
        if data and self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        start, length = 0, len(data)
        while start < length and not self._crowd and not self.flow.write_paused:
            end = self._end_of_room(data, start)
            if end < length:
                self._whole = b""
            self._parse(data[start:end])
            start = end if self._stage != ENDED else length
        if start < length:
            self._unparsed = data[start:]
            self._lane.direct.hold(length - start)
            self.flow.pause_reading()
        self._settle()

    def _taken_back(self) -> bytes:
        """What was received and left unparsed."""
        data, self._unparsed = self._unparsed, b""
        self._lane.direct.hold(-len(data))
        return data

    def _end_of_room(self, data: bytes, start: int) -> int:
        """Up to where these bytes hold no more requests than lane answers may still fall due."""
        if self._answer_due():  # the lane takes none
            return len(data)
        begun = self._stage != BETWEEN
        end = start - 1
        for _ in range(self._lane.limits.due_answers_max - self.turns.due - begun + 1):
            end = data.find(HTTP_MARK, end + 1)
            if end < 0:
                return len(data)
        return max(end, start + 1)  # at `start` it is the mark of the request that has begun

    def _parse(self, data: bytes) -> None:
        self._chunk_bytes = len(data)
        self._began = False
        self._feed(data)
        if self._stage == HEAD and not self._began:
            # A head that a whole chunk did not finish.
            self._head_bytes += len(data)
            if self._head_bytes > self._lane.limits.head_bytes_max:
                self._refuse_head()

    def _feed(self, data: bytes) -> None:
        try:
            self._feed_plainly(data)
        except httptools.HttpParserCallbackError as error:
            self._callback_failed(error)
        except httptools.HttpParserError:
            self._refuse(400, "MALFORMED_HTTP", "the request is not well-formed HTTP/1.1")

    def _feed_plainly(self, data: bytes) -> None:
        """Parse, as if callers who would rather speak another protocol had not said so.

        The JDK's own client asks for HTTP/2 in every first request. RFC 9110, 7.8 lets a server
        ignore that; the parser stops at such a head, so it is given the same one without it.
        """
        while data:
            try:
                self._http.feed_data(data)
            except httptools.HttpParserUpgrade as stopped:
                if self._http.get_method() == b"CONNECT":
                    self._refuse(400, "UPGRADE_REFUSED", "this server speaks HTTP/1.1 only")
                    return
                data = self._without_upgrade() + data[stopped.args[0] :]
            else:
                return

    def _without_upgrade(self) -> bytes:
        """The head that was parsed last, without the wish for another protocol."""
        if self._stage == ENDED:
            return b""
        self._whole = b""
        method, version = self._http.get_method(), self._http.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (method, self.url, version)]
        for name, value in self.headers:
            if name == b"connection":
                kept = (part.strip() for part in value.split(b","))
                value = b", ".join(part for part in kept if part.lower() not in UPGRADING)
            elif name in UPGRADING:
                continue
            lines.append(b"%b: %b" % (name, value))
        return b"\r\n".join(lines) + HEAD_END

    def on_message_begin(self) -> None:
        if self._stage == ENDED:
            return
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._stage = HEAD
        self.turns.touch()
        self._head_bytes = 0
        self._began = True

    def on_url(self, url: bytes) -> None:
        if self._stage != ENDED:
            self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._stage != ENDED:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._stage == ENDED or not self._head_within_limits() or self._http.should_upgrade():
            return  # the last: `_feed_plainly` comes back to it
        version = self._http.get_http_version()
        mistake = head_mistake(version, self.url, self.headers)
        if mistake is not None:
            self._refuse(*mistake)
        elif (
            self.url in (READ_URL, FEAST_URL)
            and self._local
            and self._http.get_method() == b"POST"
            and self._takes_headers()
            and not self._answer_due()
            and not self.flow.write_paused
            and version == "1.1"
            and not self._lane.overloaded
        ):
            self._stage = LANE
        else:
            self._fall_through()

    def on_body(self, body: bytes) -> None:
        stage = self._stage
        if stage == LANE:
            if not self._body:
                self._body = body
                self._hold(len(body))
            elif isinstance(self._body, bytearray):
                self._body += body
            else:
                self._body = bytearray(self._body) + body
        elif stage == REST:
            self._take_rest(body)

    def on_message_complete(self) -> None:
        stage = self._stage
        if stage == LANE:
            self._stage = BETWEEN
            self.turns.touch()
            self._answer()
        elif stage == REST:
            self._stage = BETWEEN
            self.turns.touch()
            super().on_message_complete()
            if len(self.pipeline) > self._lane.limits.queued_requests_max:
                self._end_after_due()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._active = cycle
        if self.turns.due:  # It would overtake the lane's answers.
            self._waiting_start = cycle, app
            return
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        if self._rest_held:
            self._lane.direct.hold(-self._rest_held.popleft())
        super().on_response_complete()
        self.turns.touch()
        if self._last_words is not None and not self._answer_due():
            self._end(self._last_words)
        elif self._unparsed:
            self.flow.pause_reading()  # uvicorn has just resumed it
            self._resume()

    def pause_writing(self) -> None:
        """The caller does not read its answers: take no more requests from it until it does."""
        self.turns.usual = False
        super().pause_writing()
        self.flow.pause_reading()
        self._unread = self.transport.get_write_buffer_size()
        self._lane.direct.hold(self._unread)
        self.turns.touch()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._lane.direct.hold(-self._unread)
        self._unread = 0
        self.turns.touch()
        self._resume()

    def shutdown(self) -> None:
        """Called once by uvicorn: finish what is due or under way, then close."""
        if self._answer_due() or self.turns.due:
            self._end_after_due()
        elif self._stage == BETWEEN:
            self.transport.close()

    @property
    def receiving(self) -> bool:
        """Whether a request has begun and not yet wholly come."""
        return self._stage in (HEAD, LANE, REST)

    @property
    def quiet(self) -> bool:
        """Nothing due, nothing under way, and nothing since the last sweep but one."""
        return (
            self._stage == BETWEEN
            and not self._answer_due()
            and not self.turns.due
            and self._lane.sweep - self.turns.since > 1
        )

    def keep_time(self, sweep: int) -> None:
        """Hold this connection against every time limit; called once a sweep."""
        limits, age = self._lane.limits, sweep - self.turns.since
        if self.transport.is_closing():
            return
        if self.flow.write_paused:
            self._keep_time_of_reader(age)
        elif self._stage == ENDED:
            if age >= limits.linger_sweeps and not self._answer_due() and not self.turns.due:
                self.transport.abort()
        elif self._stage == BETWEEN:
            if age >= limits.idle_sweeps and not self._answer_due() and not self.turns.due:
                self._cut("idle")
                self.transport.close()
        elif age >= limits.receive_sweeps and not self.flow.read_paused:
            self._cut("slow_sender")
            self._refuse(408, "REQUEST_TIMEOUT", "the request did not arrive in time")

    def _takes_headers(self) -> bool:
        """Whether the headers leave nothing for Litestar to decide; notes what the answer needs."""
        feast = self.url == FEAST_URL
        self._accept = ACCEPT_FEAST if feast else ACCEPT_JSON
        self._request_id = None
        length = -1
        seen: list[bytes] = []
        for name, value in self.headers:
            if name == b"content-length":
                length = int(value)
            elif feast and name in NOT_FEASTS:
                continue
            elif name in NEGOTIATED:
                if name in seen or not self._negotiates(name, value, feast=feast):
                    return False
                seen.append(name)
            elif name == b"x-request-id":
                self._request_id = kept_request_id(value)
                if self._request_id is None:
                    self._whole = b""  # such a head asks for another id than it shows
            elif name in UNUSUAL or name.startswith(b"x-forwarded-"):
                return False
        self._content_length = length
        return 0 <= length <= self._lane.limits.body_bytes_max

    def _negotiates(self, name: bytes, value: bytes, *, feast: bool) -> bool:
        """Note what a field says of the answer's form; False when Litestar must refuse it."""
        if name == b"content-type":
            return is_json(value)
        if name == b"accept-encoding":
            coding = self._lane.chosen_coding(value, feast=feast)
            self._accept |= max(coding, 0)
            return coding >= 0
        form = accepted(value)
        self._accept |= max(form, 0)
        return form >= 0

    def _answer(self) -> None:
        lane = self._lane
        body, self._body = bytes(self._body), b""
        if self._held:
            self._release()
        lasting = self._http.should_keep_alive()
        keep_alive = lasting and not lane.draining
        if not self._read(body, self._accept, self._request_id, keep_alive=keep_alive):
            self._hand_over(body)
            return
        whole = self._whole
        if lasting and whole.startswith(READ_STARTS):
            end = whole.find(HEAD_END) + 4
            if len(whole) - end == self._content_length:
                lane.direct.learn(whole[:end], self._accept)

    def _read(
        self, body: bytes, accept: int, request_id: bytes | None, *, keep_alive: bool
    ) -> bool:
        """Answer, now or later; False when ASGI must repeat the read, and tell what is wrong."""
        try:
            return self.turns.read(body, accept, request_id, keep_alive=keep_alive)
        except StaleCatalog:
            return False
        except Exception as error:
            logger.debug("the lane hands a request over", exc_info=error)
            return False

    def _crowded(self) -> None:
        """Too many answers are due: read no more until all of them are written."""
        self._crowd = True
        self.flow.pause_reading()

    def _turns_over(self) -> None:
        """No answer of the lane is due any more: let go what waited for that."""
        self._crowd = False
        if self.transport.is_closing():
            return
        if self._waiting_start is not None:
            (cycle, app), self._waiting_start = self._waiting_start, None
            super()._start_asgi_task(cycle, app)
        elif self._last_words is not None:
            self._end(self._last_words)
        elif self._stage == ENDED and not self._answer_due():
            self._end(b"")
        else:
            self._resume()

    def _resume(self) -> None:
        """Take requests again unless something stands against it, those already here first."""
        if self.flow.write_paused or self.pipeline or self._crowd or self.transport.is_closing():
            return
        self._read_on()
        if not (self._unparsed or self._crowd or self.flow.write_paused or self.pipeline):
            self.flow.resume_reading()

    def _hand_over(self, body: bytes) -> None:
        """Give a request whose body is already here to ASGI."""
        self._fall_through()
        self._take_rest(body)
        self._stage = BETWEEN
        super().on_message_complete()

    def _fall_through(self) -> None:
        """Let uvicorn make its scope and start its cycle from what was parsed so far."""
        self.turns.usual = False
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        self.headers.extend(headers)
        self.expect_100_continue = any(
            name == b"expect" and value.lower() == b"100-continue" for name, value in headers
        )
        self._stage = REST
        super().on_headers_complete()
        self._rest_held.append(0)
        self._asgi_used = True
        if self._lane.draining:
            self.cycle.keep_alive = False

    def _take_rest(self, body: bytes) -> None:
        """Give ASGI a part of a body; it is held until the request is answered."""
        if not self.cycle.response_complete:
            self._rest_held[-1] += len(body)
            self._lane.direct.hold(len(body))
        super().on_body(body)

    def _answer_due(self) -> bool:
        """Whether ASGI still owes an answer on this connection."""
        return self._asgi_used and (bool(self.pipeline) or not self.cycle.response_complete)

    def _head_within_limits(self) -> bool:
        limits = self._lane.limits
        if len(self.url) > limits.target_bytes_max:
            self._refuse(
                414, "TARGET_TOO_LONG", f"the target exceeds {limits.target_bytes_max} bytes"
            )
            return False
        if len(self.headers) > limits.headers_max or (
            self._head_bytes + self._chunk_bytes > limits.head_bytes_max
            and sum(len(name) + len(value) for name, value in self.headers) > limits.head_bytes_max
        ):
            self._refuse_head()
            return False
        return True

    def _refuse_head(self) -> None:
        limits = self._lane.limits
        self._refuse(
            431,
            "HEADERS_TOO_LARGE",
            f"expected at most {limits.headers_max} header fields and "
            f"{limits.head_bytes_max} bytes of them",
        )

    def _callback_failed(self, error: httptools.HttpParserCallbackError) -> None:
        cause = error.__context__
        if isinstance(cause, UnicodeError | httptools.HttpParserError):
            self._refuse(400, "MALFORMED_HTTP", "the request target is not a valid URL")
            return
        logger.error("a parser callback failed", exc_info=cause or error)
        self._refuse(500, "INTERNAL", "the gateway failed; its log has the request id")

    def _refuse(self, status: int, code: str, detail: str) -> None:
        """Answer with a problem, after the answers that are due, and end the connection."""
        if self._stage == ENDED:
            return
        response = problem_response(
            problem(status, code, detail),
            request_id=self._lane.request_ids.make(),
            generation=self._lane.reads.generation_text,
        )
        self.turns.usual = False
        self._lane.telemetry.count_request("protocol", status)
        if self._stage == REST and not self._withdraw():
            self.transport.abort()
        elif self._answer_due() or self.turns.due:
            self._last_words = response
            self._stage = ENDED
        else:
            self._end(response)

    def _withdraw(self) -> bool:
        """Take back the cycle whose body cannot be finished; False when its answer has begun."""
        cycle = self.cycle
        if self.pipeline and self.pipeline[0][0] is cycle:
            self._lane.direct.hold(-self._rest_held.pop())
            self.pipeline.popleft()
            self.cycle = self.pipeline[0][0] if self.pipeline else self._active
            return True
        if cycle.response_started:
            return False
        self._lane.direct.hold(-self._rest_held.pop())
        cycle.disconnected = True
        cycle.response_complete = True
        cycle.message_event.set()
        return True

    def _end(self, response: bytes) -> None:
        """Send the last answer and our end of the connection, then read until the caller's.

        Closing at once would reset the connection while the caller still sends, and the reset
        would take the answer with it.
        """
        self._stage = ENDED
        self.turns.usual = False
        self.turns.touch()
        self._last_words = None
        self._body = b""
        self._release()
        self._taken_back()
        if self.transport.is_closing():
            return
        if response:
            self.transport.write(response)
        if not self.transport.can_write_eof():  # TLS has no half-closed state
            self.transport.close()
            return
        self.transport.write_eof()
        self.flow.resume_reading()

    def _end_after_due(self) -> None:
        self._stage = ENDED
        self._taken_back()
        self.turns.usual = False
        if self._asgi_used:
            self.cycle.keep_alive = False

    def _discard(self, length: int) -> None:
        self._discarded += length
        if self._discarded > self._lane.limits.discarded_bytes_max:
            self.transport.abort()

    def _hold(self, received: int) -> None:
        """Count a body that did not come in one piece, whole, until it is answered."""
        if received < self._content_length:
            self._held = self._content_length
            self._lane.direct.hold(self._held)

    def _release(self) -> None:
        self._lane.direct.hold(-self._held)
        self._held = 0

    def _cut(self, reason: str) -> None:
        self._lane.telemetry.count_cut(reason)

    def _keep_time_of_reader(self, age: int) -> None:
        """Count what is unread anew: late answers come on top of it while the caller reads on."""
        left = self.transport.get_write_buffer_size()
        read_some = left < self._unread
        self._lane.direct.hold(left - self._unread)
        self._unread = left
        if read_some:
            self.turns.touch()
        elif age >= self._lane.limits.send_sweeps:
            self._cut("slow_reader")
            self.transport.abort()

"""One HTTP exchange, without any socket: bytes in, an answer out; answers to results or errors.

The asynchronous and the blocking client differ only in how bytes come and go.
"""

from __future__ import annotations

import contextlib

import httptools
import msgspec

from headrace.client.answers import Read, Sent
from headrace.client.errors import (
    GatewayFailed,
    GatewayUnavailable,
    MalformedAnswer,
    ProblemAnswer,
    RefusedRequest,
)

ANSWER_BYTES_MAX = 256 << 20
"""A longer answer is not one of a gateway's."""


class Answer(msgspec.Struct, frozen=True):
    """A whole HTTP answer; of its header fields what we use."""

    status: int
    body: bytes
    request_id: str
    retry_after_seconds: float | None
    lasting: bool
    """Whether the connection may be used again."""


class AnswerReader:
    """Reads the answers of one connection, one at a time."""

    __slots__ = ("_answer", "_body", "_due", "_parser", "_request_id", "_retry_after", "_size")

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._due = False
        self._answer: Answer | None = None
        self._body: list[bytes] = []
        self._size = 0
        self._request_id = b""
        self._retry_after = b""

    def expect(self) -> None:
        """A request goes out: one answer is due."""
        self._due = True

    def feed(self, received: bytes) -> Answer | None:
        """The answer once it is whole; raises `MalformedAnswer`, after which nothing may follow."""
        if not self._due:
            raise MalformedAnswer("bytes came that answer no request")
        try:
            self._parser.feed_data(received)
        except httptools.HttpParserCallbackError as error:
            if isinstance(error.__context__, MalformedAnswer):
                raise error.__context__ from None
            raise
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise MalformedAnswer(f"the answer is not HTTP/1.1: {error}") from None
        answer, self._answer = self._answer, None
        return answer

    def on_message_begin(self) -> None:
        if not self._due:
            raise MalformedAnswer("two answers came to one request")
        self._body = []
        self._size = 0
        self._request_id = self._retry_after = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        # Ours come in lower case; a proxy may write them as it likes.
        if len(name) == 12 and name.lower() == b"x-request-id":
            self._request_id = value
        elif len(name) == 11 and name.lower() == b"retry-after":
            self._retry_after = value

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > ANSWER_BYTES_MAX:
            raise MalformedAnswer(f"the answer is longer than {ANSWER_BYTES_MAX} bytes")
        self._body.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            return  # An interim answer: the one that counts follows.
        body = self._body
        self._due = False
        self._answer = Answer(
            status,
            body[0] if len(body) == 1 else b"".join(body),
            self._request_id.decode("latin-1"),
            _seconds(self._retry_after),
            self._parser.should_keep_alive(),
        )


def _seconds(retry_after: bytes) -> float | None:
    """Delay seconds of a Retry-After; its date form is not used by gateways and not read."""
    return float(retry_after) if retry_after.isdigit() and len(retry_after) < 9 else None


def read_of(answer: Answer) -> Read:
    """What a read gave; raises the error that the answer is instead."""
    if answer.status != 200:
        raise problem_of(answer)
    try:
        decoded = _decode_read(answer.body)
    except msgspec.DecodeError as error:
        raise MalformedAnswer(f"the answer is not a read's: {error}") from None
    return Read(
        generation=decoded.generation, results=decoded.results, request_id=answer.request_id
    )


def arrow_of(answer: Answer) -> bytes:
    """The Arrow stream that a read gave; raises the error that the answer is instead."""
    if answer.status != 200:
        raise problem_of(answer)
    return answer.body


def sent_of(answer: Answer) -> Sent:
    """What became of commands; raises the error that the answer is instead."""
    if answer.status not in (202, 207):
        raise problem_of(answer)
    try:
        decoded = _decode_sent(answer.body)
    except msgspec.DecodeError as error:
        raise MalformedAnswer(f"the answer is not one about commands: {error}") from None
    return msgspec.structs.replace(decoded, request_id=answer.request_id)


def problem_of(answer: Answer) -> ProblemAnswer | MalformedAnswer:
    """The error that an answer is."""
    status = answer.status
    problem = _Problem()
    with contextlib.suppress(msgspec.DecodeError):
        problem = _decode_problem(answer.body)
    if 400 <= status < 500 and status != 429:
        kind: type[ProblemAnswer] = RefusedRequest
    elif status in (429, 502, 503, 504):
        kind = GatewayUnavailable
    elif status >= 500:
        kind = GatewayFailed
    else:
        return MalformedAnswer(f"a gateway never answers with status {status}")
    return kind(
        status=status,
        code=problem.code,
        detail=problem.detail or "the answer does not say why",
        request_id=answer.request_id,
        nearest=problem.nearest,
        retry_after_seconds=answer.retry_after_seconds,
    )


class _Problem(msgspec.Struct):
    """The members of a problem that we use; a proxy's own error page has none of them."""

    code: str = "HTTP_ERROR"
    detail: str = ""
    nearest: str | None = None


_decode_read = msgspec.json.Decoder(Read).decode
_decode_sent = msgspec.json.Decoder(Sent).decode
_decode_problem = msgspec.json.Decoder(_Problem).decode

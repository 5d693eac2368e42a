"""What can go wrong between a caller and a gateway.

ClientError
├── RefusedRequest         the gateway says that the request is wrong, and why: repair it
├── GatewayUnavailable     503 (or 429): `retriable`, after `retry_after_seconds` if it is said
├── GatewayFailed          another 5xx: the gateway's own mistake, `request_id` finds it in its log
├── DeadlineExceeded       no whole answer came in time
├── ConnectionFailed       no connection, or it ended before the answer did
├── MalformedAnswer        what answered is not a gateway, or a newer one
├── UnusableValue          a value that the gateway could not serve was asked for
└── CommandsRefused        `Sent.check` found commands that were not appended
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from headrace.client.answers import RefusedCommand


class ClientError(Exception):
    """Root of the hierarchy. `retriable` says whether the same request may be answered later."""

    retriable: ClassVar[bool] = False


class ProblemAnswer(ClientError):
    """An answer that is an RFC 9457 problem, with everything it says."""

    def __init__(
        self,
        *,
        status: int,
        code: str,
        detail: str,
        request_id: str,
        nearest: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {detail} (request {request_id or 'without an id'})")
        self.status = status
        self.code = code
        self.detail = detail
        self.request_id = request_id
        self.nearest = nearest
        self.retry_after_seconds = retry_after_seconds


class RefusedRequest(ProblemAnswer):
    """A 4xx: the caller's mistake, `detail` names it and `nearest` the name that was perhaps
    meant."""


class GatewayUnavailable(ProblemAnswer):
    """Nothing could be served, or `strict` was asked for and something could not."""

    retriable = True


class GatewayFailed(ProblemAnswer):
    """A 5xx that trying again does not mend."""


class DeadlineExceeded(ClientError):
    """No whole answer within the deadline. Of commands it is then unknown what became of them."""

    retriable = True


class ConnectionFailed(ClientError):
    """No connection, or one that ended early. `sent`: whether the request may have been read."""

    retriable = True

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class MalformedAnswer(ClientError):
    """Bytes that are not an answer of a gateway."""


class UnusableValue(ClientError):
    """A value is UNAVAILABLE or CORRUPT: null stands in its place, which means nothing."""


class CommandsRefused(ClientError):
    """Commands that the gateway did not append; the others of the list are durable."""

    def __init__(self, refused: Sequence[RefusedCommand]) -> None:
        first = refused[0]
        more = f", and {len(refused) - 1} more" if len(refused) > 1 else ""
        super().__init__(f"command {first.index} was refused: {first.code}: {first.detail}{more}")
        self.refused = tuple(refused)

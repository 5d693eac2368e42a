"""Errors of the reading side and the one table that turns any exception into problem+json.

GatewayError
├── CallerError             the caller can repair the request
│   ├── UnreadableRequest      UnsupportedMediaType      NotAcceptable
│   ├── TooManyCommands        UnknownName            RefusedCaller
│   ├── BodyTooLarge           CallerGone
│   └── BadParameter            of `/v1/explain`, with the parameter's name
│       └── MissingParameter       UnknownParameter       DuplicateParameter     BadKey
└── Unavailable             retriable: the caller may try again after `retry_after_seconds`
    └── CatalogMissing         StoreUnavailable          LogUnavailable       Overloaded
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar

import msgspec
from litestar.exceptions import HTTPException
from litestar.params import Parameter

from headrace.gateway.problem_codes import PROBLEM_CODES, type_of

PROBLEM_TYPE = "application/problem+json"


class GatewayError(Exception):
    """Root of the hierarchy. `code` is stable; `retriable` says whether trying again can help."""

    code: ClassVar[str] = "GATEWAY_ERROR"
    retriable: ClassVar[bool] = False


class CallerError(GatewayError):
    code = "BAD_REQUEST"


class UnreadableRequest(CallerError):
    """A body that is not what the route reads."""

    code = "UNREADABLE_BODY"


class TooManyCommands(CallerError):
    """A list of more commands than one request may carry."""

    code = "TOO_MANY_COMMANDS"


class BadParameter(CallerError):
    """A query parameter that is wrong; `nearest` is the valid name closest to an unknown one."""

    code = "BAD_PARAMETER"

    def __init__(
        self, message: str, *, parameter: str | None = None, nearest: str | None = None
    ) -> None:
        super().__init__(message)
        self.parameter = parameter
        self.nearest = nearest


class MissingParameter(BadParameter):
    code = "MISSING_PARAMETER"


class UnknownParameter(BadParameter):
    code = "UNKNOWN_PARAMETER"


class DuplicateParameter(BadParameter):
    code = "DUPLICATE_PARAMETER"


class BadKey(BadParameter):
    code = "BAD_KEY"


class UnsupportedMediaType(CallerError):
    code = "UNSUPPORTED_MEDIA_TYPE"


class NotAcceptable(CallerError):
    code = "NOT_ACCEPTABLE"


class BodyTooLarge(CallerError):
    code = "BODY_TOO_LARGE"


class CallerGone(CallerError):
    """The caller left before its request was whole; nobody reads the answer."""

    code = "CALLER_GONE"


class RefusedCaller(CallerError):
    """Without `access.yaml` only direct loopback callers are answered (semantics 14)."""

    code = "LOOPBACK_ONLY"


class UnknownName(CallerError):
    """A group, service or schema the catalog does not have."""

    code = "UNKNOWN_NAME"

    def __init__(self, message: str, *, code: str, nearest: str | None = None) -> None:
        super().__init__(message)
        self.word = code
        self.nearest = nearest


class Unavailable(GatewayError):
    code = "UNAVAILABLE"
    retriable = True
    retry_after_seconds: ClassVar[int] = 1


class CatalogMissing(Unavailable):
    code = "NO_CATALOG"


class StoreUnavailable(Unavailable):
    code = "STORE_UNAVAILABLE"


class LogUnavailable(Unavailable):
    code = "LOG_UNAVAILABLE"


class Overloaded(Unavailable):
    code = "OVERLOADED"


STATUS_BY_ERROR: dict[type[GatewayError], int] = {
    UnsupportedMediaType: 415,
    NotAcceptable: 406,
    BodyTooLarge: 413,
    RefusedCaller: 403,
    UnknownName: 404,
    CallerError: 400,
    Unavailable: 503,
    GatewayError: 500,
}
"""HTTP status of each error; an error not listed has the status of its nearest listed parent."""

CODE_BY_STATUS: dict[int, str] = {
    400: "BAD_REQUEST",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    408: "REQUEST_TIMEOUT",
    413: "BODY_TOO_LARGE",
    414: "TARGET_TOO_LONG",
    415: "UNSUPPORTED_MEDIA_TYPE",
    431: "HEADERS_TOO_LARGE",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
"""Code of the framework's own errors, which carry a status only."""


def _one_of(words: Iterable[str]) -> Any:
    """What the OpenAPI document says of a text that has one of these values."""
    return Parameter(schema_extra={"enum": [*words]})


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """RFC 9457 problem details; `code` is stable and upper-case, `detail` is one sentence.

    `path` and `offset` say where in the body, or which query parameter; `nearest` is the valid name
    closest to one that is unknown.
    """

    type: Annotated[str, _one_of(code.type for code in PROBLEM_CODES)]
    title: str
    status: int
    code: Annotated[str, _one_of(code.word for code in PROBLEM_CODES)]
    detail: str
    path: str | None = None
    offset: int | None = None
    nearest: str | None = None


class Refusal(msgspec.Struct, frozen=True):
    """A problem with the response headers that go with it."""

    problem: Problem
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def body(self) -> bytes:
        return msgspec.json.encode(self.problem)


def problem(
    status: int, code: str, detail: str, nearest: str | None = None, path: str | None = None
) -> Problem:
    """A problem of the same shape as those the read engine makes."""
    return Problem(
        type=type_of(code),
        title=code.replace("_", " ").capitalize(),
        status=status,
        code=code,
        detail=detail,
        path=path,
        nearest=nearest,
    )


def refusal_of(
    error: Exception, *, method: str, path: str, body_bytes_max: int | None = None
) -> Refusal:
    """The answer to any exception a route raised; what is not ours or Litestar's is a plain 500."""
    if isinstance(error, GatewayError):
        return _refusal_of_ours(error)
    if isinstance(error, HTTPException):
        return _refusal_of_litestar(error, method, path, body_bytes_max)
    return Refusal(problem(500, "INTERNAL", "the gateway failed; its log has the request id"))


def _refusal_of_ours(error: GatewayError) -> Refusal:
    status = next(STATUS_BY_ERROR[kind] for kind in type(error).__mro__ if kind in STATUS_BY_ERROR)
    if isinstance(error, UnknownName):
        return Refusal(problem(status, error.word, str(error), error.nearest))
    if isinstance(error, BadParameter):
        return Refusal(problem(status, error.code, str(error), error.nearest, error.parameter))
    headers: tuple[tuple[str, str], ...] = ()
    if isinstance(error, Unavailable):
        headers = (("retry-after", str(error.retry_after_seconds)),)
    return Refusal(problem(status, error.code, str(error)), headers)


def _refusal_of_litestar(
    error: HTTPException, method: str, path: str, body_bytes_max: int | None
) -> Refusal:
    status = error.status_code
    most = "this gateway takes" if body_bytes_max is None else f"{body_bytes_max} bytes"
    details = {
        404: f"no route `{path}`; `/schema` lists the routes",
        405: f"`{path}` does not take {method}; `/schema` lists what it takes",
        413: f"the body is longer than {most}; send fewer keys or commands a request",
        500: "the gateway failed; its log has the request id",
    }
    headers = tuple(
        (name, value)
        for name, value in (error.headers or {}).items()
        if name.lower() in {"allow", "retry-after"}
    )
    detail = details.get(status) or _one_sentence(error)
    return Refusal(problem(status, CODE_BY_STATUS.get(status, "BAD_REQUEST"), detail), headers)


def _one_sentence(error: HTTPException) -> str:
    extra = error.extra
    if isinstance(extra, list) and extra and isinstance(extra[0], dict):
        first = extra[0]
        return f"`{first.get('key', '?')}`: {first.get('message', error.detail)}"
    return error.detail

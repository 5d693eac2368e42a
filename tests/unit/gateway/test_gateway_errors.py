"""The table from exceptions to problem+json."""

from __future__ import annotations

import msgspec
import pytest
from litestar.exceptions import (
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
    ValidationException,
)

from headrace.gateway import errors
from headrace.gateway.errors import GatewayError, refusal_of


def every_error(root: type[GatewayError] = GatewayError) -> list[type[GatewayError]]:
    return [root, *(found for child in root.__subclasses__() for found in every_error(child))]


def of(error: Exception) -> errors.Refusal:
    return refusal_of(error, method="GET", path="/v1/read")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.UnsupportedMediaType("x"), 415, "UNSUPPORTED_MEDIA_TYPE"),
        (errors.NotAcceptable("x"), 406, "NOT_ACCEPTABLE"),
        (errors.BadKey("x"), 400, "BAD_KEY"),
        (errors.RefusedCaller("x"), 403, "LOOPBACK_ONLY"),
        (errors.UnknownName("x", code="UNKNOWN_GROUP", nearest="y"), 404, "UNKNOWN_GROUP"),
        (errors.LogUnavailable("x"), 503, "LOG_UNAVAILABLE"),
        (NotFoundException(), 404, "NOT_FOUND"),
        (MethodNotAllowedException(), 405, "METHOD_NOT_ALLOWED"),
        (ValidationException("bad"), 400, "BAD_REQUEST"),
        (HTTPException("big", status_code=413), 413, "BODY_TOO_LARGE"),
        (ZeroDivisionError("secret"), 500, "INTERNAL"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_an_exception_has_its_status_and_code(error: Exception, status: int, code: str) -> None:
    refusal = of(error)
    assert (refusal.problem.status, refusal.problem.code) == (status, code)


def test_a_problem_has_the_members_of_rfc_9457_and_ours() -> None:
    body = msgspec.json.decode(of(errors.UnknownName("no `x`", code="A_B", nearest="y")).body)
    assert body == {
        "type": "urn:headrace:problem:a-b",
        "title": "A b",
        "status": 404,
        "code": "A_B",
        "detail": "no `x`",
        "nearest": "y",
    }


def test_what_may_help_later_says_when() -> None:
    for error in every_error(errors.Unavailable):
        assert dict(of(error("x")).headers)["retry-after"] == "1"
        assert error.retriable


def test_no_unexpected_exception_tells_its_cause() -> None:
    assert b"secret" not in of(ValueError("secret")).body


def test_every_code_is_upper_case_and_its_own() -> None:
    codes = [error.code for error in every_error() if error is not errors.UnknownName]
    assert all(code.replace("_", "").isalpha() and code.isupper() for code in codes)
    assert len(set(codes)) == len(codes)

"""Every problem that a caller can meet: the stable word, its HTTP statuses and when it is answered.

Those of reads come from the codec, which answers with them itself. `/schema` and `docs/http.md`
are made from this table, and a test holds the sources against it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from headrace.codec import ReadEngine


class ProblemCode(NamedTuple):
    """One kind of problem. `word` stands in `code`, and in lower case with hyphens in `type`."""

    word: str
    status: int
    meaning: str

    @property
    def type(self) -> str:
        return type_of(self.word)


def type_of(word: str) -> str:
    """The URI of a problem's type (RFC 9457, 3.1.1)."""
    return f"urn:headrace:problem:{word.lower().replace('_', '-')}"


READS: Final = tuple(ProblemCode(*code) for code in ReadEngine.problems())
"""Of `/v1/read`."""

ROUTES: Final = (
    ProblemCode("UNREADABLE_BODY", 400, "A body that is no JSON list of commands."),
    ProblemCode("TOO_MANY_COMMANDS", 400, "More commands than one request may have."),
    ProblemCode("MISSING_PARAMETER", 400, "A query parameter that is needed is not there."),
    ProblemCode("UNKNOWN_PARAMETER", 400, "A query parameter that is no key field of the group."),
    ProblemCode("DUPLICATE_PARAMETER", 400, "A query parameter that stands twice."),
    ProblemCode("BAD_REQUEST", 400, "Another mistake in a request, told by `detail`."),
    ProblemCode("LOOPBACK_ONLY", 403, "Without `access.yaml` only loopback callers are answered."),
    ProblemCode("NOT_FOUND", 404, "No such route, or a path written otherwise than its route."),
    ProblemCode("UNKNOWN_SCHEMA", 404, "No schema has that fingerprint."),
    ProblemCode("METHOD_NOT_ALLOWED", 405, "The route does not take the method; see `Allow`."),
    ProblemCode("NOT_ACCEPTABLE", 406, "No media type or coding that is accepted is one we have."),
    ProblemCode("BODY_TOO_LARGE", 413, "A body that is longer than it may be."),
    ProblemCode("UNSUPPORTED_MEDIA_TYPE", 415, "A body that is not JSON, or is coded."),
    ProblemCode("INTERNAL", 500, "The gateway's own mistake; its log has the request id."),
    ProblemCode("STORE_UNAVAILABLE", 503, "The online store cannot be reached."),
    ProblemCode("LOG_UNAVAILABLE", 503, "The command log cannot be reached, or there is none."),
    ProblemCode("OVERLOADED", 503, "More is asked for than can be answered soon."),
)
"""Of the other routes, or of all."""

PROTOCOL: Final = (
    ProblemCode("MALFORMED_HTTP", 400, "Bytes that are no well-formed HTTP/1.1 request."),
    ProblemCode("BAD_HOST", 400, "No `Host`, more than one, or one that is no host."),
    ProblemCode("UPGRADE_REFUSED", 400, "A tunnel was asked for."),
    ProblemCode("REQUEST_TIMEOUT", 408, "The request did not arrive in time."),
    ProblemCode("TARGET_TOO_LONG", 414, "Path and query are longer than they may be."),
    ProblemCode("HEADERS_TOO_LARGE", 431, "Header fields too many or too long."),
    ProblemCode("UNSUPPORTED_TRANSFER_CODING", 501, "A `Transfer-Encoding` other than `chunked`."),
    ProblemCode("HTTP_VERSION", 505, "Another version than HTTP/1.1 and HTTP/1.0."),
)
"""Of the protocol itself, before there is a route; each ends its connection."""

PROBLEM_CODES: Final = (*READS, *ROUTES, *PROTOCOL)

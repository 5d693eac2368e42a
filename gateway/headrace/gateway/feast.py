"""What `/schema` says of `POST /get-online-features`, which takes and gives what Feast does.

Its errors are JSON too: a text that holds `{"module", "class", "message"}` of one of Feast's own
exceptions where one fits, so that Feast's client raises just that, else a problem document.
"""

from __future__ import annotations

from dataclasses import dataclass

from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema
from litestar.openapi.spec.header import OpenAPIHeader
from litestar.openapi.spec.response import OpenAPIResponse

from headrace.gateway.errors import PROBLEM_TYPE
from headrace.gateway.negotiation import JSON_TYPE
from headrace.gateway.openapi import ACCEPT_ENCODING, FORM_HEADERS, HEADERS, PROBLEMS

STATUSES = ("INVALID", "PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE")

MISTAKES = {400: PROBLEMS[400], 404: "no such group, feature or service", 503: PROBLEMS[503]}

WARNING = "headrace-warning"


def _text(description: str) -> Schema:
    return Schema(type=OpenAPIType.STRING, description=description)


def _request() -> Schema:
    key = Schema(one_of=[Schema(type=OpenAPIType.INTEGER), _text("a Text key")])
    return Schema(
        type=OpenAPIType.OBJECT,
        required=["entities"],
        properties={
            "entities": Schema(
                type=OpenAPIType.OBJECT,
                description="one list per join key, all of one length",
                additional_properties=Schema(type=OpenAPIType.ARRAY, items=key),
            ),
            "features": Schema(
                type=OpenAPIType.ARRAY,
                items=_text("`group:field`, split at the last colon"),
                description="needed without `feature_service`",
            ),
            "feature_service": _text("wins over `features`"),
            "full_feature_names": Schema(type=OpenAPIType.BOOLEAN),
            "include_feature_view_version_metadata": Schema(type=OpenAPIType.BOOLEAN),
        },
    )


def _answer() -> Schema:
    column = Schema(
        type=OpenAPIType.OBJECT,
        required=["values", "statuses", "event_timestamps"],
        properties={
            "values": Schema(type=OpenAPIType.ARRAY),
            "statuses": Schema(type=OpenAPIType.ARRAY, items=Schema(enum=list(STATUSES))),
            "event_timestamps": Schema(type=OpenAPIType.ARRAY, items=_text("RFC 3339, UTC")),
        },
    )
    names = Schema(type=OpenAPIType.ARRAY, items=_text("join keys first, then in request order"))
    return Schema(
        type=OpenAPIType.OBJECT,
        required=["results", "metadata"],
        properties={
            "results": Schema(type=OpenAPIType.ARRAY, items=column),
            "metadata": Schema(
                type=OpenAPIType.OBJECT,
                required=["feature_names"],
                properties={"feature_names": names},
            ),
        },
    )


def _headers(*names: str) -> dict[str, OpenAPIHeader]:
    described = {
        **HEADERS,
        **FORM_HEADERS,
        WARNING: "members and join keys that were sent and not used",
    }
    text = Schema(type=OpenAPIType.STRING)
    return {name: OpenAPIHeader(description=described[name], schema=text) for name in names}


def _mistake(description: str) -> OpenAPIResponse:
    problem = Schema(type=OpenAPIType.OBJECT)
    either = Schema(one_of=[_text("JSON text that names a class of Feast's"), problem])
    content = {
        JSON_TYPE.decode(): OpenAPIMediaType(schema=either),
        PROBLEM_TYPE: OpenAPIMediaType(schema=problem),
    }
    return OpenAPIResponse(description=description, content=content, headers={**_headers(*HEADERS)})


@dataclass
class FeastOperation(Operation):
    """Its handler takes the raw body, so request and answer are described here."""

    def __post_init__(self) -> None:
        json = JSON_TYPE.decode()
        self.parameters = [*(self.parameters or []), ACCEPT_ENCODING]
        self.request_body = RequestBody(
            content={json: OpenAPIMediaType(schema=_request())}, required=True
        )
        answer = OpenAPIResponse(
            description="one result a column, in request order",
            content={json: OpenAPIMediaType(schema=_answer())},
            headers={**_headers(*HEADERS, *FORM_HEADERS, WARNING)},
        )
        mistakes = {str(status): _mistake(text) for status, text in MISTAKES.items()}
        self.responses = {**(self.responses or {}), **mistakes, "200": answer}

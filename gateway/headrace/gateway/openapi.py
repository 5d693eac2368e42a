"""What `/schema` says beyond what Litestar reads off the handlers."""

from __future__ import annotations

from dataclasses import dataclass

from litestar.datastructures import ResponseHeader
from litestar.openapi import ResponseSpec
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin, YamlRenderPlugin
from litestar.openapi.spec import (
    OpenAPIMediaType,
    OpenAPIType,
    Operation,
    Parameter,
    RequestBody,
    Schema,
)
from litestar.openapi.spec.header import OpenAPIHeader
from litestar.openapi.spec.response import OpenAPIResponse

from headrace.gateway.errors import PROBLEM_TYPE, Problem
from headrace.gateway.negotiation import ARROW_TYPE, AVRO_TYPE, JSON_TYPE
from headrace.gateway.wire import Shape

PROBLEMS: dict[int, str] = {
    400: "the request is not what the route reads",
    403: "only direct loopback callers are answered",
    404: "no such feature group, service, schema or route",
    405: "the route does not take this method",
    406: "no media type or no coding that the request accepts is one we have",
    408: "the request did not arrive in time",
    413: "the body is too long",
    415: "the body is not application/json",
    431: "the header fields are too many or too long",
    503: "nothing can be served now; `Retry-After` says when to come back",
}

ANYWHERE = (400, 403, 503)
"""Problems that every route can answer with."""


def problems(*statuses: int) -> dict[int, ResponseSpec]:
    """Problem responses of a route, those of every route included."""
    return {
        status: ResponseSpec(
            data_container=Problem,
            generate_examples=False,
            description=PROBLEMS[status],
            media_type=PROBLEM_TYPE,
        )
        for status in sorted({*statuses, *ANYWHERE})
    }


def answers(shape: type[Shape], description: str) -> ResponseSpec:
    """An answer beside the ordinary one."""
    return ResponseSpec(shape, generate_examples=False, description=description)


HEADERS = {
    "x-request-id": "the caller's own id, or one made here",
    "headrace-generation": "catalog generation in force",
}

FORM_HEADERS = {
    "vary": "what of the request the answer's form depends on",
    "content-encoding": "`zstd` or `gzip`, for a caller who asked and an answer that gains by it",
}
"""Of answers to reads, beside those of every answer."""

ACCEPT_ENCODING = Parameter(
    name="accept-encoding",
    param_in="header",
    required=False,
    description=(
        "how the answer may be coded, as in RFC 9110: `zstd` and `gzip` are ours, and a header that"
        " rules out `identity` beside them is met with 406"
    ),
    schema=Schema(type=OpenAPIType.STRING),
)
"""Of reads: which coding the caller takes."""

EVERY_ANSWER = tuple(
    ResponseHeader(name=name, description=description, documentation_only=True)
    for name, description in HEADERS.items()
)


def config(version: str) -> OpenAPIConfig:
    """Served at `/schema` (page), `/schema/openapi.json` and `/schema/openapi.yaml`."""
    return OpenAPIConfig(
        title="Headrace",
        version=version,
        description="Reads of an online feature store, and the commands that change it.",
        path="/schema",
        render_plugins=[SwaggerRenderPlugin(), JsonRenderPlugin(), YamlRenderPlugin()],
    )


def _text(description: str) -> Schema:
    return Schema(type=OpenAPIType.STRING, description=description)


def _columns() -> Schema:
    return Schema(
        type=OpenAPIType.OBJECT,
        description="one list per key field, all of one length or 1",
        additional_properties=Schema(
            type=OpenAPIType.ARRAY,
            items=Schema(one_of=[Schema(type=OpenAPIType.INTEGER), _text("a Text key")]),
        ),
    )


def _options() -> dict[str, Schema]:
    boolean = OpenAPIType.BOOLEAN
    return {
        "deadline_ms": Schema(type=OpenAPIType.INTEGER, minimum=1),
        "strict": Schema(type=boolean, description="a partial answer becomes an error"),
        "event_times": Schema(type=boolean, description="adds the event time of each row"),
        "layout": Schema(enum=["rows", "columns"]),
        "missing": Schema(enum=["default", "null"]),
        "int64_as_text": Schema(type=boolean),
    }


def _read() -> Schema:
    return Schema(
        type=OpenAPIType.OBJECT,
        required=["feature_group", "keys"],
        additional_properties=False,
        properties={
            "feature_group": _text("name of the group"),
            "fields": Schema(
                one_of=[
                    Schema(type=OpenAPIType.ARRAY, items=_text("a value field")),
                    Schema(const="*"),
                ],
                description="left out or `*`: all value fields in schema order",
            ),
            "keys": _columns(),
            "limit": Schema(type=OpenAPIType.INTEGER, minimum=1, description="History only"),
        },
    )


def _read_request() -> Schema:
    groups = Schema(
        type=OpenAPIType.OBJECT,
        required=["reads"],
        additional_properties=False,
        properties={
            "reads": Schema(type=OpenAPIType.ARRAY, items=_read(), min_items=1, max_items=64),
            **_options(),
        },
    )
    service = Schema(
        type=OpenAPIType.OBJECT,
        required=["service", "keys"],
        additional_properties=False,
        properties={"service": _text("name of the service"), "keys": _columns(), **_options()},
    )
    return Schema(one_of=[groups, service])


def _read_answer() -> Schema:
    result = Schema(
        type=OpenAPIType.OBJECT,
        required=["feature_group", "fields", "statuses"],
        properties={
            "feature_group": _text("name of the group"),
            "as": _text("alias of a service's read"),
            "fields": Schema(type=OpenAPIType.ARRAY, items=_text("in request order")),
            "rows": Schema(type=OpenAPIType.ARRAY, items=Schema(type=OpenAPIType.ARRAY)),
            "columns": Schema(type=OpenAPIType.ARRAY, items=Schema(type=OpenAPIType.ARRAY)),
            "event_times": Schema(type=OpenAPIType.ARRAY),
            "statuses": Schema(
                type=OpenAPIType.ARRAY,
                items=Schema(
                    type=OpenAPIType.OBJECT,
                    required=["row", "status"],
                    properties={
                        "row": Schema(type=OpenAPIType.INTEGER),
                        "status": _text("what is not OK"),
                        "fields": Schema(type=OpenAPIType.ARRAY, items=_text("only these")),
                    },
                ),
            ),
        },
    )
    return Schema(
        type=OpenAPIType.OBJECT,
        required=["generation", "results"],
        properties={
            "generation": Schema(type=OpenAPIType.INTEGER),
            "results": Schema(type=OpenAPIType.ARRAY, items=result),
        },
    )


def _command() -> Schema:
    return Schema(
        type=OpenAPIType.OBJECT,
        required=["feature_name", "method", "keys", "values"],
        properties={
            "feature_name": _text("name of the feature group"),
            "method": Schema(enum=["UPDATE", "APPEND", "DELETE"]),
            "keys": Schema(type=OpenAPIType.OBJECT),
            "values": Schema(
                type=OpenAPIType.OBJECT,
                required=["_last_updated_at_ms"],
                properties={"_last_updated_at_ms": Schema(type=OpenAPIType.INTEGER)},
            ),
        },
    )


def _json_body(schema: Schema) -> RequestBody:
    return RequestBody(content={JSON_TYPE.decode(): OpenAPIMediaType(schema=schema)}, required=True)


@dataclass
class ReadOperation(Operation):
    """`/v1/read`: its handler takes the raw body, so request and answer are described here."""

    def __post_init__(self) -> None:
        self.parameters = [*(self.parameters or []), ACCEPT_ENCODING]
        self.request_body = _json_body(_read_request())
        answer = OpenAPIResponse(
            description="rows in request order, partial answers included",
            content={
                JSON_TYPE.decode(): OpenAPIMediaType(schema=_read_answer()),
                AVRO_TYPE.decode(): OpenAPIMediaType(
                    schema=_text("an Avro envelope, see `/v1/schemas/read-response`")
                ),
                ARROW_TYPE.decode(): OpenAPIMediaType(
                    schema=_text("an Arrow IPC stream of one record batch, see `docs/formats.md`")
                ),
            },
            headers={
                name: OpenAPIHeader(description=description, schema=Schema(type=OpenAPIType.STRING))
                for name, description in (HEADERS | FORM_HEADERS).items()
            },
        )
        self.responses = {**(self.responses or {}), "200": answer}


@dataclass
class CommandsOperation(Operation):
    """`/v1/commands`: each command of the list is kept as the caller's own bytes."""

    def __post_init__(self) -> None:
        self.request_body = _json_body(Schema(type=OpenAPIType.ARRAY, items=_command()))


@dataclass
class ExplainOperation(Operation):
    """`/v1/explain`: its handler misses a parameter itself, to say so as it says all else."""

    def __post_init__(self) -> None:
        for parameter in self.parameters or []:
            if isinstance(parameter, Parameter):
                parameter.required = True

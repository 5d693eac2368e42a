"""HTTP ↔ structs: every route, none longer than it takes to call the part behind it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery
from litestar.types import ASGIApp, Receive, Scope, Send

from headrace.codec import FORMAT_VERSION
from headrace.gateway.catalog_in_force import CatalogInForce
from headrace.gateway.commands import CommandIntake
from headrace.gateway.edge import REQUEST_ID_KEY
from headrace.gateway.errors import (
    DuplicateParameter,
    MissingParameter,
    NotAcceptable,
    UnknownName,
    UnsupportedMediaType,
)
from headrace.gateway.explain import Explainer, known_group
from headrace.gateway.feast import FeastOperation
from headrace.gateway.lane_state import Lane
from headrace.gateway.negotiation import OFFERS, accepted, is_json
from headrace.gateway.openapi import (
    EVERY_ANSWER,
    CommandsOperation,
    ExplainOperation,
    ReadOperation,
    answers,
    problems,
)
from headrace.gateway.ports import ACCEPT_FEAST, Parts, PartState
from headrace.gateway.read_path import ReadPath
from headrace.gateway.release import program_version
from headrace.gateway.responses import split_response
from headrace.gateway.telemetry import Exposition
from headrace.gateway.wire import (
    CommandsShape,
    ExplanationShape,
    GroupShape,
    GroupsShape,
    LivenessShape,
    MissingShape,
    ReadinessShape,
    ServiceShape,
    ServicesShape,
    VersionShape,
    group_shape,
    service_shape,
)
from headrace.registry.names import nearest

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
IMMUTABLE = "public, max-age=31536000, immutable"


class Gateway:
    """What the handlers call; one per application."""

    def __init__(
        self,
        *,
        in_force: CatalogInForce,
        reads: ReadPath,
        lane: Lane,
        commands: CommandIntake,
        explainer: Explainer,
        exposition: Exposition,
        envelope_schema: str,
        parts: Parts,
    ) -> None:
        self.in_force = in_force
        self.reads = reads
        self.lane = lane
        self.commands = commands
        self.explainer = explainer
        self.exposition = exposition
        self.envelope_schema = envelope_schema
        self.parts = parts


AnyRequest = Request[Any, Any, Any]
TheGateway = NamedDependency[Gateway]


class PreparedResponse:
    """An ASGI application that sends a response the read engine made."""

    def __init__(self, response: bytes) -> None:
        self.status, self.headers, self.body = split_response(response)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


@post(
    "/v1/read",
    status_code=200,
    operation_class=ReadOperation,
    responses=problems(404, 406, 408, 413, 415),
    summary="Read features of many keys",
)
async def read(request: AnyRequest, gateway: TheGateway) -> ASGIApp:
    """The lane's twin: equal bytes, for everything that is unusual about a request."""
    form = answer_form(request) | answer_coding(request, gateway, feast=False)
    request_id = request.scope["state"][REQUEST_ID_KEY]
    return PreparedResponse(
        await gateway.reads.answer_fresh(await request.body(), form, request_id)
    )


@post(
    "/get-online-features",
    status_code=200,
    operation_class=FeastOperation,
    responses=problems(406, 408, 413, 415),
    summary="Read features as Feast's clients do",
)
async def read_feast(request: AnyRequest, gateway: TheGateway) -> ASGIApp:
    """Feast's request and answer (semantics 16), whatever the Content-Type says."""
    require_plain(request)
    request_id = request.scope["state"][REQUEST_ID_KEY]
    body = await request.body()
    form = ACCEPT_FEAST | answer_coding(request, gateway, feast=True)
    return PreparedResponse(await gateway.reads.answer_fresh(body, form, request_id))


@post(
    "/v1/commands",
    status_code=202,
    operation_class=CommandsOperation,
    responses={
        207: answers(CommandsShape, "some or all commands were refused"),
        **problems(406, 408, 413, 415),
    },
    response_headers=EVERY_ANSWER,
    summary="Append commands to the command log",
)
async def append_commands(request: AnyRequest, gateway: TheGateway) -> Response[CommandsShape]:
    """202 once all are durable; 207 when some or all are refused, the rest being durable."""
    require_json(request)
    outcome = await gateway.commands.take(await request.body())
    return Response(outcome, status_code=207 if outcome.refused else 202)


@get("/v1/feature-groups", responses=problems(), response_headers=EVERY_ANSWER)
async def list_feature_groups(gateway: TheGateway) -> GroupsShape:
    """Every feature group in force."""
    catalog, document = gateway.in_force.catalog, gateway.in_force.document
    shapes = (group_shape(group, catalog.fingerprint(group.name)) for group in document.groups)
    return GroupsShape(generation=document.generation, feature_groups=tuple(shapes))


@get("/v1/feature-groups/{name:str}", responses=problems(404), response_headers=EVERY_ANSWER)
async def show_feature_group(name: FromPath[str], gateway: TheGateway) -> GroupShape:
    """One feature group in force."""
    group = known_group(gateway.in_force, name)
    return group_shape(group, gateway.in_force.catalog.fingerprint(name))


@get("/v1/services", responses=problems(), response_headers=EVERY_ANSWER)
async def list_services(gateway: TheGateway) -> ServicesShape:
    """Every feature service in force."""
    document = gateway.in_force.document
    shapes = tuple(service_shape(service) for service in document.services)
    return ServicesShape(generation=document.generation, services=shapes)


@get("/v1/services/{name:str}", responses=problems(404), response_headers=EVERY_ANSWER)
async def show_service(name: FromPath[str], gateway: TheGateway) -> ServiceShape:
    """One feature service in force."""
    service = gateway.in_force.service(name)
    if service is None:
        raise unknown("feature service", name, gateway.in_force.service_names(), "UNKNOWN_SERVICE")
    return service_shape(service)


@get("/v1/schemas/read-response", response_headers=EVERY_ANSWER, responses=problems())
async def show_read_response_schema(gateway: TheGateway) -> Response[dict[str, Any]]:
    """The Avro schema of the Avro answer's envelope."""
    schema = msgspec.json.decode(gateway.envelope_schema)
    return Response(schema, headers={"cache-control": "public, max-age=3600"})


@get("/v1/schemas/{fingerprint:str}", response_headers=EVERY_ANSWER, responses=problems(404))
async def show_schema(fingerprint: FromPath[str], gateway: TheGateway) -> Response[dict[str, Any]]:
    """The Avro schema with this CRC-64-AVRO fingerprint, 16 hex digits; it never changes."""
    number = int(fingerprint, 16) if is_fingerprint(fingerprint) else None
    text = None if number is None else gateway.in_force.catalog.avro_schema(number)
    if text is None:
        raise UnknownName(
            f"no schema has the fingerprint `{fingerprint[:40]}`", code="UNKNOWN_SCHEMA"
        )
    headers = {"cache-control": IMMUTABLE, "etag": f'"{fingerprint.lower()}"'}
    return Response(msgspec.json.decode(text), headers=headers)


@get(
    "/v1/explain",
    operation_class=ExplainOperation,
    responses=problems(404),
    response_headers=EVERY_ANSWER,
)
async def explain(
    request: AnyRequest, gateway: TheGateway, feature_group: FromQuery[str | None] = None
) -> ExplanationShape:
    """Where the answer for one key comes from and why; key fields are further query parameters."""
    parameters: dict[str, str] = {}
    for name, text in request.query_params.multi_items():
        if name in parameters:
            raise DuplicateParameter(f"`{name[:80]}` stands twice", parameter=name[:80])
        parameters[name] = str(text)
    parameters.pop("feature_group", None)
    if feature_group is None:
        raise MissingParameter(
            "expected the name of a feature group as `feature_group`", parameter="feature_group"
        )
    return await gateway.explainer.explain(feature_group, parameters)


@get("/livez", response_headers=EVERY_ANSWER, responses=problems())
async def livez() -> LivenessShape:
    """The process runs."""
    return LivenessShape(alive=True)


@get(
    ["/readyz", "/health"],
    response_headers=EVERY_ANSWER,
    responses={**problems(), 503: answers(ReadinessShape, "not ready")},
)
async def readyz(gateway: TheGateway) -> Response[ReadinessShape]:
    """Ready = a catalog is loaded and not draining (semantics 23). Feast calls it `/health`."""
    in_force, draining = gateway.in_force, gateway.lane.draining
    ready = in_force.loaded and not draining
    shape = ReadinessShape(
        ready=ready,
        draining=draining,
        generation=in_force.generation,
        catalog_error=in_force.rejected,
        missing=tuple(missing_parts(in_force, gateway.parts())),
    )
    return Response(shape, status_code=200 if ready else 503)


@get("/metrics", media_type=METRICS_TYPE, response_headers=EVERY_ANSWER, responses=problems())
async def metrics(gateway: TheGateway) -> bytes:
    """Prometheus text."""
    return gateway.exposition.text()


@get("/version", response_headers=EVERY_ANSWER, responses=problems())
async def show_version() -> VersionShape:
    """Versions of the program and of the byte format."""
    return VersionShape(version=program_version(), format=FORMAT_VERSION)


ROUTES: tuple[HTTPRouteHandler, ...] = (
    read,
    read_feast,
    append_commands,
    list_feature_groups,
    show_feature_group,
    list_services,
    show_service,
    show_read_response_schema,
    show_schema,
    explain,
    livez,
    readyz,
    metrics,
    show_version,
)


def names_under(routes: Iterable[HTTPRouteHandler]) -> tuple[bytes, ...]:
    """What stands before the name in the paths of the routes that end in one."""
    paths = (path for route in routes for path in route.paths if "{" in path)
    return tuple(sorted({path.partition("{")[0].encode() for path in paths}))


def missing_parts(in_force: CatalogInForce, parts: Sequence[PartState]) -> Iterator[MissingShape]:
    """What cannot be reached now and why; that costs no readiness once a catalog is loaded."""
    if not in_force.loaded:
        yield MissingShape(part="catalog", reason=in_force.why_missing())
    for state in parts:
        if state.problem is not None:
            yield MissingShape(part=state.part, reason=state.problem)


def answer_form(request: AnyRequest) -> int:
    """JSON, Avro or Arrow; raises `UnsupportedMediaType` and `NotAcceptable` (semantics 15)."""
    require_json(request)
    form = accepted(b",".join(raw_headers(request, b"accept")))
    if form < 0:
        offers = ", ".join(f"`{offer.decode()}`" for offer in OFFERS.values())
        raise NotAcceptable(f"expected Accept to take one of {offers}")
    return form


def answer_coding(request: AnyRequest, gateway: Gateway, *, feast: bool) -> int:
    """What the answer's coding adds to its form; raises `NotAcceptable` when no coding is taken."""
    header = b",".join(raw_headers(request, b"accept-encoding"))
    coding = gateway.lane.chosen_coding(header, feast=feast)
    if coding < 0:
        raise NotAcceptable(
            "Accept-Encoding rules out `identity` and takes no coding that is given here;"
            " expected `identity`, or `zstd` or `gzip` where `gateway.compression` allows them"
        )
    return coding


def require_json(request: AnyRequest) -> None:
    """Raises `UnsupportedMediaType` for a body that says it is not JSON, or is encoded."""
    types = raw_headers(request, b"content-type")
    if len(types) > 1 or (types and not is_json(types[0])):
        raise UnsupportedMediaType("expected Content-Type `application/json`")
    require_plain(request)


def require_plain(request: AnyRequest) -> None:
    """Raises `UnsupportedMediaType` for a body that is encoded."""
    if any(value.lower() != b"identity" for value in raw_headers(request, b"content-encoding")):
        raise UnsupportedMediaType("expected a body without Content-Encoding")


def raw_headers(request: AnyRequest, name: bytes) -> list[bytes]:
    """Every value of a header field as it came."""
    return [value for present, value in request.scope["headers"] if present == name]


def is_fingerprint(text: str) -> bool:
    return len(text) == 16 and all(digit in "0123456789abcdefABCDEF" for digit in text)


def unknown(what: str, name: str, valid: list[str], code: str) -> UnknownName:
    """The error for a name that is not in the catalog, with the nearest that is."""
    close = nearest(name, valid)
    hint = f"; the nearest is `{close}`" if close else ""
    return UnknownName(f"no {what} `{name[:80]}`{hint}", code=code, nearest=close)

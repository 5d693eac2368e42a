"""The factory: ports and limits in, a Litestar application out."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
from litestar import Litestar, Request, Response
from litestar.datastructures import State
from litestar.di import Provide
from prometheus_client import CollectorRegistry

from headrace.codec import RequestIds
from headrace.gateway import openapi
from headrace.gateway.catalog_in_force import CatalogInForce
from headrace.gateway.commands import CommandIntake
from headrace.gateway.edge import REQUEST_ID_KEY, Edge
from headrace.gateway.errors import PROBLEM_TYPE, refusal_of
from headrace.gateway.explain import Explainer
from headrace.gateway.lane_state import Lane
from headrace.gateway.limits import Limits
from headrace.gateway.negotiation import Compression, ContentCodings, new_request_ids
from headrace.gateway.ports import (
    Clock,
    CommandAppender,
    DirectReads,
    LateReads,
    Parts,
    Reads,
    RowInspector,
    TierInspector,
    no_parts,
)
from headrace.gateway.read_path import ReadPath
from headrace.gateway.release import program_version
from headrace.gateway.routes import ROUTES, Gateway, names_under
from headrace.gateway.telemetry import Exposition, GatewayCollector, Gauges, Telemetry

logger = logging.getLogger(__name__)


class Ports(msgspec.Struct, frozen=True, kw_only=True):
    """What the application is plugged into."""

    in_force: CatalogInForce
    clock: Clock
    envelope_schema: str
    """Avro schema (JSON text) of the Avro answer."""
    metrics: CollectorRegistry
    """Where this application's metrics go, beside those of other parts of the process."""
    engine: Reads | None = None
    """Reads that answer at once, over the embedded store. Either it or `late` is there."""
    late: LateReads | None = None
    """Reads over a cache and a networked store; they go before `engine`."""
    direct: DirectReads | None = None
    """What stands behind either of the two, where the lane may call it itself."""
    appender: CommandAppender | None = None
    inspector: RowInspector | None = None
    tiers: TierInspector | None = None
    """What stands before the store that `inspector` looks at."""
    parts: Parts = no_parts


def create_app(
    ports: Ports,
    limits: Limits,
    request_ids: RequestIds | None = None,
    compression: Compression = "asked",
) -> Litestar:
    """Build the application; `app.state.lane` is what `LaneProtocol` looks for."""
    telemetry = Telemetry()
    reads = ReadPath(ports.engine, ports.in_force, ports.clock, telemetry, ports.late, ports.direct)
    codings = ContentCodings(compression)
    lane = Lane(reads, limits, telemetry, request_ids or new_request_ids(), codings)
    gateway = Gateway(
        in_force=ports.in_force,
        reads=reads,
        lane=lane,
        commands=CommandIntake(ports.in_force, ports.appender, ports.clock),
        explainer=Explainer(ports.in_force, ports.inspector, ports.clock, ports.tiers),
        exposition=Exposition(ports.metrics, GatewayCollector(telemetry, _gauges(ports, lane))),
        envelope_schema=ports.envelope_schema,
        parts=ports.parts,
    )
    app = Litestar(
        route_handlers=ROUTES,
        dependencies={"gateway": Provide(lambda: gateway, sync_to_thread=False)},
        exception_handlers={Exception: answer_with_problem},
        openapi_config=openapi.config(program_version()),
        request_max_body_size=limits.body_bytes_max,
        logging_config=None,
        state=State({"lane": lane, "gateway": gateway}),
    )
    app.asgi_handler = Edge(app.asgi_handler, lane, ports.in_force, names_under(ROUTES))
    return app


def answer_with_problem(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Any exception of any route as problem+json; what is our mistake is logged with its id."""
    limit = request.app.request_max_body_size
    refusal = refusal_of(
        error,
        method=request.method,
        path=request.url.path,
        body_bytes_max=limit if isinstance(limit, int) else None,
    )
    if refusal.problem.status == 500:
        request_id: bytes = request.scope["state"].get(REQUEST_ID_KEY, b"-")
        logger.error("request %s failed", request_id.decode("ascii"), exc_info=error)
    return Response(
        refusal.body,
        status_code=refusal.problem.status,
        headers=dict(refusal.headers),
        media_type=PROBLEM_TYPE,
    )


def _gauges(ports: Ports, lane: Lane) -> Gauges:
    in_force = ports.in_force
    return Gauges(
        generation=lambda: in_force.generation,
        catalog_rejected=lambda: in_force.rejected is not None,
        draining=lambda: lane.draining,
        held_bytes=lambda: lane.held_bytes,
        connections=lambda: len(lane.connections),
        engine_counters=lambda: _read_totals(ports),
        parts=ports.parts,
    )


def _read_totals(ports: Ports) -> dict[str, int]:
    totals = ports.engine.counters() if ports.engine is not None else {}
    return totals if ports.late is None else totals | ports.late.counters()

"""`/schema` is right: generated requests meet no 5xx and no answer that it does not describe."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from gateway_over_lmdb import served, store_gateway
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from headrace.gateway.problem_codes import PROBLEM_CODES

EXAMPLES = 25
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture
async def url(tmp_path: Path) -> AsyncGenerator[str]:
    gateway = await store_gateway(tmp_path / "online")
    async with served(gateway.app) as port:
        yield f"http://127.0.0.1:{port}"


def call(operation: Any, mode: GenerationMode) -> None:
    """One operation with generated requests, well formed ones or broken ones."""

    @settings(
        max_examples=EXAMPLES,
        database=None,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def every_answer_is_described(case: Any) -> None:
        case.call_and_validate(checks=CHECKS)

    every_answer_is_described()


def call_every_route(url: str) -> set[str]:
    """Every documented operation, in both modes; the labels of those that were called."""
    schema = schemathesis.openapi.from_url(f"{url}/schema/openapi.json")
    called: set[str] = set()
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result.err()
        operation: Any = result.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            if mode is GenerationMode.POSITIVE or operation.body or operation.query:
                call(operation, mode)
        called.add(operation.label)
    return called


async def test_generated_requests_meet_described_answers_only(url: str) -> None:
    called = await asyncio.to_thread(call_every_route, url)
    assert called >= {"POST /v1/read", "POST /v1/commands", "GET /v1/explain", "GET /readyz"}
    assert called >= {"POST /get-online-features", "GET /health"}


async def test_the_read_route_describes_every_status_it_can_answer_with(url: str) -> None:
    async with httpx.AsyncClient() as client:
        document = (await client.get(f"{url}/schema/openapi.json")).json()
    read = document["paths"]["/v1/read"]["post"]
    assert set(read["responses"]) >= {
        "200", "400", "403", "404", "406", "408", "413", "415", "503",
    }  # fmt: skip
    assert "application/vnd.headrace.avro" in read["responses"]["200"]["content"]
    assert "application/vnd.apache.arrow.stream" in read["responses"]["200"]["content"]
    assert {"reads"} == set(
        read["requestBody"]["content"]["application/json"]["schema"]["oneOf"][0]["required"]
    )
    problem_types = {
        media_type
        for route, path in document["paths"].items()
        if route != "/get-online-features"  # Feast's client takes no other errors than JSON
        for operation in path.values()
        for status, response in operation["responses"].items()
        if status.startswith("4")
        for media_type in response["content"]
    }
    assert problem_types == {"application/problem+json"}


async def test_every_problem_has_its_code_and_type_in_the_document(url: str) -> None:
    async with httpx.AsyncClient() as client:
        document = (await client.get(f"{url}/schema/openapi.json")).json()
    described = document["components"]["schemas"]["Problem"]["properties"]
    assert described["code"]["enum"] == [code.word for code in PROBLEM_CODES]
    assert described["type"]["enum"] == [code.type for code in PROBLEM_CODES]
    explain = document["paths"]["/v1/explain"]["get"]["parameters"]
    assert [(parameter["name"], parameter["required"]) for parameter in explain] == [
        ("feature_group", True)
    ]


@pytest.mark.parametrize("route", ["/v1/read", "/get-online-features"])
async def test_the_read_routes_describe_how_answers_are_coded(url: str, route: str) -> None:
    async with httpx.AsyncClient() as client:
        document = (await client.get(f"{url}/schema/openapi.json")).json()
    described = document["paths"][route]["post"]
    (parameter,) = described["parameters"]
    assert (parameter["name"], parameter["in"]) == ("accept-encoding", "header")
    assert not parameter.get("required")
    assert set(described["responses"]["200"]["headers"]) >= {"vary", "content-encoding"}
    assert "406" in described["responses"]

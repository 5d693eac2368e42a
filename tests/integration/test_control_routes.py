"""The routes beside the read: catalog, commands, explain, health, and problems everywhere."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from gateway_over_lmdb import NOW_MS, StoreGateway, store_gateway
from litestar import Litestar

from headrace.gateway.errors import LogUnavailable
from headrace.loadtest.feature_data import EVENT_MS, HISTORY, OBJECT, SERVICE

FIELD = "long_feature_1"


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncGenerator[StoreGateway]:
    built = await store_gateway(tmp_path / "online")
    yield built
    built.store.close()


@pytest.fixture
async def client(gateway: StoreGateway) -> AsyncGenerator[httpx.AsyncClient]:
    async with client_of(gateway.app) as client:
        yield client


def client_of(app: Litestar, peer: str = "127.0.0.1") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, client=(peer, 4711), raise_app_exceptions=False)  # type: ignore[arg-type]  # Litestar is one
    return httpx.AsyncClient(transport=transport, base_url="http://gateway")


def update(user_id: object, **values: object) -> dict[str, object]:
    return {
        "feature_name": OBJECT,
        "method": "UPDATE",
        "keys": {"user_id": user_id},
        "values": {"_last_updated_at_ms": EVENT_MS, **(values or {FIELD: 1})},
    }


async def test_feature_groups_are_listed_and_shown(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/v1/feature-groups")).json()
    assert [group["name"] for group in listed["feature_groups"]] == [OBJECT, HISTORY]
    shown = (await client.get(f"/v1/feature-groups/{OBJECT}")).json()
    assert shown == listed["feature_groups"][0]
    assert shown["keys"][0] == {"name": "user_id", "type": "Long", "description": "", "pii": None}
    assert len(shown["fields"]) == 20


async def test_services_are_listed_and_shown(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/v1/services")).json()
    shown = (await client.get(f"/v1/services/{SERVICE}")).json()
    assert listed["services"] == [shown]
    assert shown["reads"][1]["as"] == "peer"


@pytest.mark.parametrize(
    ("path", "code", "nearest"),
    [
        ("/v1/feature-groups/load::recrod-v1", "UNKNOWN_GROUP", OBJECT),
        ("/v1/services/load-ranker", "UNKNOWN_SERVICE", SERVICE),
        ("/v1/schemas/0123456789abcdef", "UNKNOWN_SCHEMA", None),
        ("/v1/schemas/nonsense", "UNKNOWN_SCHEMA", None),
        ("/nothing/here", "NOT_FOUND", None),
        ("/v1/explain?feature_group=nope&user_id=1", "UNKNOWN_GROUP", OBJECT),
    ],
)
async def test_an_unknown_name_is_404_with_the_nearest_valid_one(
    client: httpx.AsyncClient, path: str, code: str, nearest: str | None
) -> None:
    """Semantics 14."""
    answer = await client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == code
    if nearest is not None:
        assert answer.json()["nearest"] in {nearest, HISTORY}


async def test_a_schema_is_immutable_and_readable_by_its_fingerprint(
    client: httpx.AsyncClient,
) -> None:
    fingerprint = (await client.get(f"/v1/feature-groups/{OBJECT}")).json()["fingerprint"]
    answer = await client.get(f"/v1/schemas/{fingerprint}")
    assert answer.json()["type"] == "record"
    assert "immutable" in answer.headers["cache-control"]
    assert (await client.get(f"/v1/schemas/{fingerprint.upper()}")).json() == answer.json()


async def test_the_envelope_schema_is_served(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/schemas/read-response")).json()["type"] == "record"


async def test_every_answer_has_a_request_id_and_the_generation(client: httpx.AsyncClient) -> None:
    for path in ("/livez", "/readyz", "/version", "/metrics", "/nowhere", "/schema"):
        answer = await client.get(path, headers={"x-request-id": "mine"})
        assert answer.headers["x-request-id"] == "mine"
        assert answer.headers["headrace-generation"] == "1"


async def test_a_wrong_method_is_405_and_says_which_are_right(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/read")
    assert (answer.status_code, answer.json()["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert "POST" in answer.headers["allow"]


GET_ROUTES = ("/livez", "/readyz", "/version", "/v1/feature-groups", "/v1/services/nope", "/schema")


@pytest.mark.parametrize("path", GET_ROUTES)
async def test_head_answers_as_get_does_without_the_body(
    client: httpx.AsyncClient, path: str
) -> None:
    """RFC 9110, 9.3.2."""
    got, headed = await client.get(path), await client.head(path)
    assert (headed.status_code, headed.content) == (got.status_code, b"")
    for name in ("content-type", "content-length", "headrace-generation"):
        assert headed.headers[name] == got.headers[name]
    assert (await client.get(path)).content == got.content  # the connection is still in step


async def test_a_route_that_takes_get_says_that_it_takes_head(client: httpx.AsyncClient) -> None:
    allowed = (await client.delete("/livez")).headers["allow"]
    assert {"GET", "HEAD"} <= set(allowed.split(", "))
    answer = await client.head("/v1/read")
    assert answer.status_code == 405
    assert "HEAD" not in answer.headers["allow"]


MISSPELT = ("//livez", "/livez/", "/%6civez", "/v1//version", "/v1%2Ffeature-groups", "/schema/")


@pytest.mark.parametrize("path", MISSPELT)
async def test_a_path_is_taken_as_it_is_written(client: httpx.AsyncClient, path: str) -> None:
    """What a proxy in front reads as another path is no route here."""
    answer = await client.get(f"{client.base_url}{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")
    assert f"`{path}`" in answer.json()["detail"]


async def test_a_name_in_a_path_may_be_encoded(client: httpx.AsyncClient) -> None:
    encoded = quote(OBJECT, safe="")
    assert "%3A" in encoded
    answer = await client.get(f"/v1/feature-groups/{encoded}")
    assert (answer.status_code, answer.json()["name"]) == (200, OBJECT)
    further = await client.get("/v1/feature-groups/a%2Fb")
    assert (further.status_code, further.json()["code"]) == (404, "NOT_FOUND")


async def test_commands_are_appended_with_their_coordinates(
    client: httpx.AsyncClient, gateway: StoreGateway
) -> None:
    """Semantics 17."""
    answer = await client.post("/v1/commands", json=[update(1, **{FIELD: 5}), update(2)])
    assert answer.status_code == 202
    assert answer.json()["appended"] == [
        {"index": 0, "topic": "realtime", "partition": 0, "offset": 0},
        {"index": 1, "topic": "realtime", "partition": 0, "offset": 1},
    ]
    assert json.loads(gateway.appender.records[0][1])["values"][FIELD] == 5


async def test_refused_commands_are_named_and_the_rest_appended(
    client: httpx.AsyncClient, gateway: StoreGateway
) -> None:
    """Semantics 17."""
    commands = [update(1), update("x"), update(3, nothing=1), {"feature_name": "no"}, 7]
    answer = await client.post("/v1/commands", json=commands)
    assert answer.status_code == 207
    assert [place["index"] for place in answer.json()["appended"]] == [0]
    assert [refused["index"] for refused in answer.json()["refused"]] == [1, 2, 3, 4]
    assert all(refused["code"] and refused["detail"] for refused in answer.json()["refused"])
    assert len(gateway.appender.records) == 1


async def test_a_list_of_only_refused_commands_is_207(client: httpx.AsyncClient) -> None:
    """Semantics 17."""
    answer = await client.post("/v1/commands", json=[{}])
    assert (answer.status_code, answer.json()["appended"]) == (207, [])


async def test_an_empty_list_of_commands_is_202(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/commands", json=[])
    assert (answer.status_code, answer.json()["appended"]) == (202, [])


UNREADABLE = {
    "not JSON": b"hello",
    "an object": b"{}",
    "empty": b"",
    "cut": b'[{"a":1}',
    "not UTF-8": b'["\xff"]',
    "very deep": b"[" * 100_000,
    "a number": b"1" * 10_000,
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
async def test_an_unreadable_list_of_commands_is_400(
    client: httpx.AsyncClient, body: bytes
) -> None:
    answer = await client.post(
        "/v1/commands", content=body, headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "UNREADABLE_BODY")


async def test_too_many_commands_are_told_their_limit(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/v1/commands",
        content=b"[" + b"1," * 10_000 + b"1]",
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 400
    assert answer.json()["code"] == "TOO_MANY_COMMANDS"
    assert answer.json()["type"] == "urn:headrace:problem:too-many-commands"
    assert "10000" in answer.json()["detail"]


@pytest.mark.parametrize(
    "command",
    [b"[" * 900 + b"]" * 900, b'{"a":' * 900 + b"1" + b"}" * 900, b"1" * 10_000, b'"\\ud800"'],
    ids=["deep list", "deep object", "long number", "lone surrogate"],
)
async def test_a_hostile_command_is_refused_alone(
    client: httpx.AsyncClient, command: bytes
) -> None:
    body = b"[" + command + b"," + json.dumps(update(1)).encode() + b"]"
    answer = await client.post(
        "/v1/commands", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code in {207, 400}
    if answer.status_code == 207:
        assert [place["index"] for place in answer.json()["appended"]] == [1]


async def test_a_command_that_the_log_never_takes_is_refused_alone(
    client: httpx.AsyncClient, gateway: StoreGateway
) -> None:
    gateway.appender.bytes_max = 400
    padded = json.dumps(update(2)).encode().replace(b"{", b"{" + b" " * 400, 1)
    body = b"[" + b",".join([padded, b"7", json.dumps(update(1)).encode()]) + b"]"
    answer = await client.post(
        "/v1/commands", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 207
    assert [place["index"] for place in answer.json()["appended"]] == [2]
    first, second = answer.json()["refused"]
    assert (first["index"], first["code"], second["index"]) == (0, "TOO_LARGE", 1)
    assert f"takes {len(padded)} bytes" in first["detail"]


async def test_a_log_that_is_down_is_503_with_a_time_to_come_back(
    client: httpx.AsyncClient, gateway: StoreGateway
) -> None:
    """Semantics 17."""
    gateway.appender.broken = LogUnavailable("the command log cannot be reached: it is gone")
    answer = await client.post("/v1/commands", json=[update(1)])
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["code"] == "LOG_UNAVAILABLE"


@pytest.mark.parametrize(
    ("query", "decision"),
    [
        (f"feature_group={OBJECT}&user_id=1", "OK"),
        (f"feature_group={OBJECT}&user_id=99999", "MISSING"),
        (f"feature_group={HISTORY}&user_id=1", "OK"),
        (f"feature_group={HISTORY}&user_id=-1", "MISSING"),
    ],
)
async def test_a_key_is_explained(client: httpx.AsyncClient, query: str, decision: str) -> None:
    explained = (await client.get(f"/v1/explain?{query}")).json()
    assert (explained["tier"], explained["decision"]) == ("lmdb", decision)
    assert [stage["stage"] for stage in explained["stages"]] == ["key", "lmdb", "decision"]
    if decision == "OK":
        assert explained["age_ms"] == NOW_MS - explained["newest_event_time_ms"]


@pytest.mark.parametrize(
    ("query", "code", "parameter"),
    [
        ("", "MISSING_PARAMETER", "feature_group"),
        (f"feature_group={OBJECT}", "MISSING_PARAMETER", "user_id"),
        (
            f"feature_group={OBJECT}&feature_group=a&user_id=1",
            "DUPLICATE_PARAMETER",
            "feature_group",
        ),
        (f"feature_group={OBJECT}&user_id=1&user_id=2", "DUPLICATE_PARAMETER", "user_id"),
        (f"feature_group={OBJECT}&user_id=1&other=2", "UNKNOWN_PARAMETER", "other"),
        (f"feature_group={OBJECT}&user_id=1.0", "BAD_KEY", "user_id"),
        (f"feature_group={OBJECT}&user_id={'9' * 10_000}", "BAD_KEY", "user_id"),
        (f"feature_group={OBJECT}&user_id=9223372036854775808", "BAD_KEY", "user_id"),
        (f"feature_group={OBJECT}&user_id=%FF", "BAD_KEY", "user_id"),
    ],
)
async def test_what_cannot_be_explained_is_400_and_names_the_parameter(
    client: httpx.AsyncClient, query: str, code: str, parameter: str
) -> None:
    answer = await client.get(f"/v1/explain?{query}")
    told = answer.json()
    assert (answer.status_code, told["code"], told["path"]) == (400, code, parameter)
    assert f"`{parameter}`" in told["detail"]


@pytest.mark.parametrize("path", ["/livez", "/v1/feature-groups", "/metrics", "/nowhere"])
async def test_a_caller_from_elsewhere_is_refused(gateway: StoreGateway, path: str) -> None:
    """Semantics 14."""
    async with client_of(gateway.app, peer="192.0.2.7") as remote:
        answer = await remote.get(path)
    assert (answer.status_code, answer.json()["code"]) == (403, "LOOPBACK_ONLY")


async def test_a_loopback_caller_over_ipv6_is_answered(gateway: StoreGateway) -> None:
    async with client_of(gateway.app, peer="::1") as local:
        assert (await local.get("/livez")).status_code == 200


async def test_readiness_is_lost_while_draining(
    client: httpx.AsyncClient, gateway: StoreGateway
) -> None:
    """Semantics 23."""
    assert (await client.get("/readyz")).json()["ready"] is True
    gateway.app.state.lane.draining = True
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()["ready"]) == (503, False)
    assert (await client.get("/livez")).status_code == 200


async def test_the_version_names_the_byte_format(client: httpx.AsyncClient) -> None:
    assert (await client.get("/version")).json()["format"] == 1

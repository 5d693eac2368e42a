"""`POST /get-online-features` over real sockets: golden bodies, and the lane equal to its twin."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from feast_groups import BENCH_FEATURES, BENCH_GROUPS, bench_value, empty_app, feast_app
from gateway_over_lmdb import served
from running_gateway import Answer, Connection, post

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/get-online-features"
NO_TIME = "1970-01-01T00:00:00Z"
EVENT_TIME = "2023-11-14T22:13:19Z"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def port(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[int]:
    async with served(await feast_app(tmp_path_factory.mktemp("feast") / "online")) as port:
        yield port


async def exchange(port: int, request: bytes) -> Answer:
    connection = Connection(*await asyncio.open_connection("127.0.0.1", port, limit=2**22))
    try:
        return await connection.exchange(request)
    finally:
        connection.close()


async def ask(port: int, body: bytes, *headers: str, content_type: str | None = None) -> Answer:
    return await exchange(port, post(body, *headers, path=PATH, content_type=content_type))


def body(**members: object) -> bytes:
    return json.dumps(members).encode()


async def test_the_golden_pair_is_answered_byte_for_byte(port: int) -> None:
    sent = (
        b'{"features":["rides::driver-stats-v1:HomeCity","driver_hourly_stats:avg_daily_trips"],'
        b'"entities":{"driver_id":[1001,9999]}}'
    )
    answer = await ask(port, sent, "x-request-id: golden-1")
    assert answer.body == (
        b'{"results":[{"values":[1001,9999],"statuses":["PRESENT","PRESENT"],"event_timestamps":'
        b'["1970-01-01T00:00:00Z","1970-01-01T00:00:00Z"]},{"values":["Seoul",null],"statuses":'
        b'["PRESENT","NOT_FOUND"],"event_timestamps":["2023-11-14T22:13:19Z","1970-01-01T00:00:00Z"'
        b']},{"values":[9007199254740993,null],"statuses":["PRESENT","NOT_FOUND"],'
        b'"event_timestamps":["2023-11-14T22:13:19Z","1970-01-01T00:00:00Z"]}],"metadata":'
        b'{"feature_names":["driver_id","HomeCity","avg_daily_trips"]}}'
    )
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"] == "golden-1"
    assert answer.headers["headrace-generation"] == "1"


async def test_null_stale_and_missing_differ(port: int) -> None:
    sent = body(
        features=["driver_hourly_stats:score"], entities={"driver_id": [1001, 1002, 1003, 1004]}
    )
    score = json.loads((await ask(port, sent)).body)["results"][1]
    assert score["values"] == [0.1, None, None, None]
    assert score["statuses"] == ["PRESENT", "NULL_VALUE", "OUTSIDE_MAX_AGE", "NOT_FOUND"]
    assert score["event_timestamps"] == [EVENT_TIME, EVENT_TIME, "2023-11-12T22:13:20Z", NO_TIME]


REQUESTS = {
    "features": body(features=["driver_hourly_stats:score"], entities={"driver_id": [1001, 5]}),
    "a service": body(
        feature_service="driver_activity",
        entities={"driver_id": [1001], "home": ["ICN"], "work": ["JFK"]},
        full_feature_names=True,
    ),
    "an unused key": body(
        features=["driver_hourly_stats:tags"], entities={"driver_id": [1], "city": [2]}
    ),
    "an unknown group": body(features=["nobody:x"], entities={"id": [1]}),
    "ragged": body(
        features=["rides__route-stats-v1:flights"], entities={"origin": ["a"], "dest": []}
    ),
    "not JSON": b"{",
    "nothing": b"",
}


@pytest.mark.parametrize("sent", REQUESTS.values(), ids=REQUESTS)
async def test_the_lane_and_its_twin_answer_feast_with_equal_bytes(port: int, sent: bytes) -> None:
    lane = await ask(port, sent, "x-request-id: r")
    twin = await ask(port, sent, "x-request-id: r", "content-encoding: identity")
    assert lane.raw == twin.raw


TYPES = {
    "none": None,
    "JSON": "application/json",
    "a form, as curl -d sends": "application/x-www-form-urlencoded",
    "text": "text/plain; charset=utf-8",
}


@pytest.mark.parametrize("how", [(), ("content-encoding: identity",)], ids=["lane", "twin"])
@pytest.mark.parametrize("content_type", TYPES.values(), ids=TYPES)
async def test_any_content_type_is_taken(
    port: int, content_type: str | None, how: tuple[str, ...]
) -> None:
    answer = await ask(port, REQUESTS["features"], *how, content_type=content_type)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")


async def test_an_encoded_body_is_refused_with_json(port: int) -> None:
    answer = await ask(port, REQUESTS["features"], "content-encoding: gzip")
    assert (answer.status, answer.json()["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize("how", [(), ("content-encoding: identity",)], ids=["lane", "twin"])
async def test_a_caller_who_rules_out_the_plain_answer_is_refused(
    port: int, how: tuple[str, ...]
) -> None:
    """Answers of this route are not coded unless the operator says so."""
    answer = await ask(port, REQUESTS["features"], "accept-encoding: gzip, identity;q=0", *how)
    assert (answer.status, answer.json()["code"]) == (406, "NOT_ACCEPTABLE")


async def test_an_unknown_group_is_a_json_string_that_names_feasts_class(port: int) -> None:
    answer = await ask(port, REQUESTS["an unknown group"])
    assert answer.status == 404
    detail = json.loads(json.loads(answer.body))
    assert detail["module"] == "feast.errors"
    assert detail["class"] == "FeatureViewNotFoundException"
    assert "`nobody`" in detail["message"]


async def test_a_version_of_a_view_is_no_name_of_a_group(port: int) -> None:
    sent = body(features=["driver_hourly_stats@v2:score"], entities={"driver_id": [1001]})
    assert (await ask(port, sent)).status == 404


async def test_an_unused_key_is_named_in_a_header(port: int) -> None:
    answer = await ask(port, REQUESTS["an unused key"])
    assert (answer.status, answer.headers["headrace-warning"]) == (200, "not used: city")


CARS, DRIVERS, SHIFTS = "car_stats:flights", "driver_hourly_stats:score", "shift_stats:hours"
MIXED = {
    "text before number": ([CARS, DRIVERS], {"driver_id": ["7"]}),
    "number before text": ([DRIVERS, CARS], {"driver_id": [7]}),
    "text where a number is wanted": ([DRIVERS, CARS], {"driver_id": ["7"]}),
    "a number within a longer key": ([CARS, SHIFTS], {"driver_id": ["7"], "city": ["Seoul"]}),
}


@pytest.mark.parametrize("how", [(), ("content-encoding: identity",)], ids=["lane", "twin"])
@pytest.mark.parametrize(("features", "entities"), MIXED.values(), ids=MIXED)
async def test_groups_that_want_one_join_key_in_two_types_are_not_read_together(
    port: int, features: list[str], entities: dict[str, list[object]], how: tuple[str, ...]
) -> None:
    """No value is ever that of another key (semantics 16)."""
    answer = await ask(port, body(features=features, entities=entities), *how)
    problem = answer.json()
    assert (answer.status, problem["code"]) == (400, "WRONG_TYPE")
    assert problem["path"] == "entities.driver_id"
    types = {"car_stats": "Text", "driver_hourly_stats": "Long", "shift_stats": "Long"}
    views = [feature.partition(":")[0] for feature in features]
    said = " and ".join(f"{types[view]} to `{view}`" for view in views)
    assert said in str(problem["detail"])


@pytest.mark.parametrize("number", range(6))
async def test_the_benchmark_of_feast_runs_as_its_targets_are_written(
    port: int, number: int
) -> None:
    """The target of feast-benchmarks' `request_generator.py`: no Content-Type at all."""
    groups = BENCH_GROUPS if number == 5 else number + 1
    sent = (
        b'{"feature_service": "feature_service_%d", "entities": {"entity": [7, 19, 20]}}' % number
    )
    request = (
        b"POST /get-online-features HTTP/1.1\r\nHost: localhost:6566\r\n"
        b"User-Agent: Go-http-client/1.1\r\nContent-Length: %d\r\nAccept-Encoding: gzip\r\n\r\n%b"
        % (len(sent), sent)
    )
    answer = (await exchange(port, request)).json()
    names = [f"feature_{feature}" for feature in range(BENCH_FEATURES * groups)]
    assert answer["metadata"] == {"feature_names": ["entity", *names]}
    results = answer["results"]
    assert isinstance(results, list)
    assert [result["values"] for result in results[1:]] == [
        [bench_value(7, feature), bench_value(19, feature), None]
        for feature in range(BENCH_FEATURES * groups)
    ]
    assert all(result["statuses"] == ["PRESENT", "PRESENT", "NOT_FOUND"] for result in results[1:])


async def test_health_is_readiness_under_the_name_that_feast_gives_it(port: int) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        answer = await client.get("/health")
    assert (answer.status_code, answer.json()["ready"]) == (200, True)


async def test_health_is_503_until_a_catalog_is_loaded(tmp_path: Path) -> None:
    async with (
        served(await empty_app(tmp_path / "online")) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        answer = await client.get("/health")
    assert (answer.status_code, answer.json()["ready"]) == (503, False)

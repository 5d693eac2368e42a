"""Feast's own client, unmodified and in its own environment, reads from a running gateway."""

from __future__ import annotations

import asyncio
import json
import re
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from feast_groups import BENCH_FEATURES, BIG, bench_value, feast_app
from gateway_over_lmdb import served

from headrace.loadtest.feast_environment import feast_python

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLIENT = Path(__file__).parents[1] / "support" / "feast_client.py"
GUIDE = Path(__file__).parents[2] / "docs" / "feast.md"
GUIDE_URL = "http://127.0.0.1:6566"
CLIENT_LIMIT_S = 120
DRIVER = "driver_hourly_stats"
SCHEMA = {
    "conv_rate": "Float32",
    "avg_daily_trips": "Int64",
    "score": "Float64",
    "tags": "Array(String)",
    "trips": "Array(Int64)",
    "embedding": "Array(Float32)",
    "photo": "String",
    "seen_at": "UnixTimestamp",
    "HomeCity": "String",
    "active": "Bool",
}


def drivers(*driver_ids: object, features: list[str], **more: object) -> dict[str, object]:
    rows = [{"driver_id": driver_id} for driver_id in driver_ids]
    references = [f"{DRIVER}:{feature}" for feature in features]
    return {
        "call": "get_online_features",
        "features": references,
        "entity_rows": rows,
        **more,
    }


CALLS: dict[str, dict[str, object]] = {
    "types": drivers(1001, features=list(SCHEMA)),
    "statuses": drivers(1001, 1002, 1003, 9999, 1001, features=["score"]),
    "big key": drivers(BIG, features=["HomeCity"]),
    "full names": drivers(1001, features=["HomeCity"], full_feature_names=True, versions=True),
    "declared types": {
        "call": "online_read",
        "view": DRIVER,
        "schema": SCHEMA,
        "driver_ids": [1001, 9999],
    },
    "composite key": {
        "call": "get_online_features",
        "features": ["rides__route-stats-v1:flights"],
        "entity_rows": [
            {"origin": "ICN", "dest": "JFK"},
            {"origin": "JFK", "dest": "ICN"},
        ],
    },
    "service": {
        "call": "get_online_features",
        "feature_service": "driver_activity",
        "entity_rows": [{"driver_id": 1001, "home": "ICN", "work": "JFK"}],
    },
    "benchmark": {
        "call": "get_online_features",
        "feature_service": "feature_service_4",
        "entity_rows": [{"entity": 3}, {"entity": 1_000}],
    },
    "unknown group": {
        "call": "get_online_features",
        "features": ["nobody:x"],
        "entity_rows": [{"driver_id": 1}],
    },
    "unknown service": {
        "call": "get_online_features",
        "feature_service": "nobody",
        "entity_rows": [{"driver_id": 1}],
    },
    "unknown feature": drivers(1001, features=["scroe"]),
    "missing key": {
        "call": "get_online_features",
        "features": ["rides__route-stats-v1:flights"],
        "entity_rows": [{"origin": "ICN"}],
    },
    "same name twice": drivers(1001, features=["score", "score"]),
    "wrong type": drivers("abc", features=["score"]),
    "null key": drivers(None, features=["score"]),
}


def guide_part(pattern: str, port: int) -> str:
    """What stands in `docs/feast.md`, for a gateway on another port."""
    found = re.search(pattern, GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None, pattern
    return found[1].replace(GUIDE_URL, f"http://127.0.0.1:{port}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def outcomes(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[dict[str, Any]]:
    """What each call ended in; one process makes them all, since importing Feast takes seconds."""
    folder = tmp_path_factory.mktemp("feast-client")
    python = await asyncio.to_thread(feast_python)
    async with served(await feast_app(folder / "online")) as port:
        settings = guide_part(r"```yaml\n(project:.*?)```", port)
        (folder / "feature_store.yaml").write_text(settings)
        # Started apart from our environment, so that it sees nothing of ours.
        environment = {"HOME": str(folder), "FEAST_USAGE": "False"}
        client = await asyncio.create_subprocess_exec(
            python, CLIENT, folder, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment
        )
        async with asyncio.timeout(CLIENT_LIMIT_S):
            printed, complaints = await client.communicate(json.dumps(CALLS).encode())
    assert client.returncode == 0, complaints.decode()[-2000:]
    yield json.loads(printed)


async def test_the_command_of_the_guide_is_answered(tmp_path: Path) -> None:
    async with served(await feast_app(tmp_path / "online")) as port:
        command = guide_part(r"^\$ (curl [^\n]+)$", port)
        curl = await asyncio.create_subprocess_shell(command, stdout=PIPE)
        printed, _ = await curl.communicate()
    assert json.loads(printed)["results"][1]["values"] == [0.1]


def returned(outcomes: dict[str, Any], call: str) -> Any:
    """The value of a call that went well."""
    outcome = outcomes[call]
    assert "returned" in outcome, outcome
    return outcome["returned"]


async def test_every_type_arrives_as_feast_infers_it(outcomes: dict[str, Any]) -> None:
    values = returned(outcomes, "types")["values"]
    assert values == {
        "driver_id": [["int64_val", 1001]],
        "conv_rate": [["double_val", 1.0]],
        "avg_daily_trips": [["int64_val", BIG]],
        "score": [["double_val", 0.1]],
        "tags": [["string_list_val", ["a", "é"]]],
        "trips": [["int64_list_val", [1, BIG]]],
        "embedding": [["double_list_val", [0.5, 1.0, -2.25]]],
        "photo": [["string_val", "AP9qcGVn"]],
        "seen_at": [["int64_val", 1_700_000_000]],
        "HomeCity": [["string_val", "Seoul"]],
        "active": [["bool_val", True]],
    }


async def test_every_type_arrives_as_a_view_declares_it(outcomes: dict[str, Any]) -> None:
    (event_time, found), (_, missing) = returned(outcomes, "declared types")
    assert event_time == "2023-11-14T22:13:19+00:00"
    assert found == {
        "conv_rate": ["float_val", 1.0],
        "avg_daily_trips": ["int64_val", BIG],
        "score": ["double_val", 0.1],
        "tags": ["string_list_val", ["a", "é"]],
        "trips": ["int64_list_val", [1, BIG]],
        "embedding": ["float_list_val", [0.5, 1.0, -2.25]],
        "photo": ["string_val", "AP9qcGVn"],
        "seen_at": ["unix_timestamp_val", 1_700_000_000],
        "HomeCity": ["string_val", "Seoul"],
        "active": ["bool_val", True],
    }
    assert set(map(tuple, missing.values())) == {(None, None)}


async def test_null_stale_and_unknown_keep_their_statuses_and_row_order(
    outcomes: dict[str, Any],
) -> None:
    answer = returned(outcomes, "statuses")
    assert answer["statuses"]["score"] == [
        "PRESENT", "NULL_VALUE", "OUTSIDE_MAX_AGE", "NOT_FOUND", "PRESENT",
    ]  # fmt: skip
    assert answer["dict"]["score"] == [0.1, None, None, None, 0.1]
    assert answer["dict"]["driver_id"] == [1001, 1002, 1003, 9999, 1001]


async def test_a_key_beyond_a_double_finds_its_row(outcomes: dict[str, Any]) -> None:
    answer = returned(outcomes, "big key")["dict"]
    assert answer == {"driver_id": [BIG], "HomeCity": ["Jeju"]}


async def test_full_names_carry_the_group_and_versions_come_on_demand(
    outcomes: dict[str, Any],
) -> None:
    answer = returned(outcomes, "full names")
    assert answer["names"] == ["driver_id", f"{DRIVER}__HomeCity"]
    assert answer["versions"] == [[DRIVER, 1]]


async def test_a_composite_key_is_read_whole(outcomes: dict[str, Any]) -> None:
    answer = returned(outcomes, "composite key")
    assert answer["dict"] == {
        "origin": ["ICN", "JFK"],
        "dest": ["JFK", "ICN"],
        "flights": [14, None],
    }
    assert answer["statuses"]["flights"] == ["PRESENT", "NOT_FOUND"]


async def test_a_feature_service_reads_several_groups(outcomes: dict[str, Any]) -> None:
    assert returned(outcomes, "service")["dict"] == {
        "driver_id": [1001],
        "home": ["ICN"],
        "work": ["JFK"],
        "avg_daily_trips": [BIG],
        "HomeCity": ["Seoul"],
        "flights": [14],
    }


async def test_a_service_of_feast_benchmarks_is_read(outcomes: dict[str, Any]) -> None:
    answer = returned(outcomes, "benchmark")["dict"]
    features = range(5 * BENCH_FEATURES)
    assert answer.pop("entity") == [3, 1_000]
    assert answer == {f"feature_{each}": [bench_value(3, each), None] for each in features}


RAISED = {
    "unknown group": ("feast.errors.FeatureViewNotFoundException", "`nobody`"),
    "unknown service": ("feast.errors.FeatureServiceNotFoundException", "`nobody`"),
    "unknown feature": ("feast.errors.SpecifiedFeaturesNotPresentError", "nearest is `score`"),
    "missing key": ("feast.errors.RequestDataNotFoundInEntityRowsException", "`dest`"),
    "same name twice": ("feast.errors.FeatureNameCollisionError", "`score`"),
    "wrong type": ("builtins.RuntimeError", "WRONG_TYPE"),
    "null key": ("builtins.RuntimeError", "NULL_NOT_ALLOWED"),
}


@pytest.mark.parametrize(("call", "expected"), RAISED.items())
async def test_a_mistake_raises_feasts_own_exception_without_a_retry(
    outcomes: dict[str, Any], call: str, expected: tuple[str, str]
) -> None:
    outcome = outcomes[call]
    exception, part = expected
    assert outcome.get("raised") == exception, outcome
    assert part in outcome["message"]
    # Feast's client would try a 5xx three times more, half a second apart.
    assert outcome["seconds"] < 1.5

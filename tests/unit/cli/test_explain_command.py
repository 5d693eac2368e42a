"""`headrace explain` over a store: decisions, exit codes, and mistakes of the caller."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from headrace.cli import main as frame
from headrace.loadtest import feature_data
from headrace.loadtest.feature_data import HISTORY, OBJECT

Explain = Callable[..., Result]


@pytest.fixture(scope="module")
def explain(tmp_path_factory: pytest.TempPathFactory) -> Explain:
    folder = tmp_path_factory.mktemp("explain") / "online"
    feature_data.write_store(folder, rows=5, histories=2)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(frame.main, ["explain", *arguments, "--online", f"lmdb:{folder}"])

    return run


def test_a_row_is_explained_as_json(explain: Explain) -> None:
    outcome = explain(OBJECT, "user_id=1", "--json")
    explained = json.loads(outcome.stdout)
    assert outcome.exit_code == 0
    assert (explained["tier"], explained["decision"]) == ("lmdb", "OK")
    assert explained["newest_event_time_ms"] == feature_data.EVENT_MS
    assert explained["keys"] == {"user_id": 1}


def test_a_history_says_how_many_events_it_has(explain: Explain) -> None:
    explained = json.loads(explain(HISTORY, "user_id=1", "--json").stdout)
    assert explained["events"] == feature_data.EVENTS


def test_a_missing_row_exits_1_and_says_why(explain: Explain) -> None:
    outcome = explain(OBJECT, "user_id=77")
    assert outcome.exit_code == 1
    assert "MISSING" in outcome.stdout
    assert "no live cell" in outcome.stdout


def test_the_text_names_every_stage_and_its_time(explain: Explain) -> None:
    text = explain(OBJECT, "user_id=1").stdout
    for stage in ("took key", "took lmdb", "took decision"):
        assert stage in text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nope", "user_id=1"), "no feature group `nope`"),
        ((OBJECT, "user=1"), "`user_id` is missing"),
        ((OBJECT, "user_id"), "expected KEY=VALUE"),
        ((OBJECT, "user_id=1", "user_id=2"), "given twice"),
        ((OBJECT, "user_id=1.5"), "expected a whole number"),
        ((OBJECT,), "Missing argument"),
    ],
)
def test_a_callers_mistake_exits_64(
    explain: Explain, arguments: tuple[str, ...], told: str
) -> None:
    outcome = explain(*arguments)
    assert outcome.exit_code == 64
    assert told in outcome.stderr

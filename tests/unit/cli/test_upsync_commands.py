"""transform and upsync over real embedded engines, down to the values an online store then has."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from headrace.cli.main import main
from headrace.codec import Catalog, LmdbStore, encode_commands
from headrace.sync.logs.sqlite import SqliteCommandLog

GROUPS = """\
live::everything-v1:
  feature_type: Object
  owner: "shawn"
  schema:
    user_id: {type: Long, is_key_field: true}
    country: {type: Text, is_key_field: true}
    flag: {type: Boolean, default_value: false}
    small: {type: Integer, default_value: 0}
    large: {type: Long, default_value: 0}
    single: {type: Float, default_value: 0.0}
    precise: {type: Double, default_value: 0.0}
    text: {type: Text, default_value: ""}
    seal: {type: Bytes, default_value: ""}
    born: {type: Date, nullable: true}
    seen_at: {type: Timestamp, nullable: true}
    words: {type: "List<Text>", default_value: []}
    numbers: {type: "List<Long>", default_value: []}
    embedding: {type: "Vector<3>", nullable: true}
    note: {type: Text, nullable: true}
  upsync: {enabled: true}
live::visits:
  feature_type: History
  owner: "shawn"
  schema:
    user_id: {type: Long, is_key_field: true}
    page: {type: Text, default_value: ""}
  ttl: 3000d
  history: {max_events: 2}
  upsync: {enabled: true}
live::quiet-v1:
  feature_type: Object
  owner: "shawn"
  schema:
    user_id: {type: Long, is_key_field: true}
    level: {type: Long, default_value: 0}
"""
EVERYTHING = """\
SELECT 7 AS user_id, 'KR' AS country, true AS flag, -2147483648 AS small,
    9223372036854775807 AS large, 0.1::FLOAT AS single, -0.0::DOUBLE AS precise,
    'π 𝄞 ''' AS text, '\\x00\\xFF'::BLOB AS seal, DATE '1969-12-31' AS born,
    TIMESTAMPTZ '2024-05-01 10:00:00.000001+02' AS seen_at, ['', 'b'] AS words,
    [1, -1] AS numbers, [1.5, -2, 0.25] AS embedding, NULL AS note,
    TIMESTAMPTZ '2024-05-01 00:00:00.25+00' AS _event_time
"""
EXPECTED = {
    "flag": True,
    "small": -(2**31),
    "large": 2**63 - 1,
    "single": pytest.approx(0.1, rel=1e-7),
    "precise": -0.0,
    "text": "π 𝄞 '",
    "seal": b"\x00\xff",
    "born": date(1969, 12, 31),
    "seen_at": datetime(2024, 5, 1, 8, 0, 0, 1, tzinfo=UTC),
    "words": ["", "b"],
    "numbers": [1, -1],
    "embedding": [1.5, -2.0, 0.25],
    "note": None,
}
VISITS = """\
SELECT 1 AS user_id, 'p' || n AS page, TIMESTAMPTZ '2024-05-01 00:00:00+00' + to_minutes(n)
    AS _event_time FROM raw_visits
"""
EVENT_MS = 1_714_521_600_250
NOW_MS = EVENT_MS + 1


class Place:
    """A working directory with a registry, raw tables and embedded engines."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("features", "transforms", "raw"):
            (folder / name).mkdir()
        (folder / "features" / "live.yaml").write_text(GROUPS)
        (folder / "transforms" / "everything-v1.sql").write_text(EVERYTHING)
        (folder / "transforms" / "live__visits.sql").write_text(VISITS)
        (folder / "transforms" / "sources.sql").write_text(
            "CREATE TEMP VIEW raw_visits AS "
            "SELECT * FROM read_csv(getvariable('sources') || '/visits.csv')"
        )
        (folder / "raw" / "visits.csv").write_text("n\n1\n2\n3\n")

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, arguments)

    def transform(self, *arguments: str) -> Result:
        return self.run("transform", "--sources", str(self.folder / "raw"), *arguments)

    def commands(self) -> list[bytes]:
        """Every bulk command on the log, in offset order."""

        async def read() -> list[bytes]:
            log = SqliteCommandLog(self.folder / ".headrace" / "commands.db")
            consumer = log.consumer("bulk", "test")
            records = await consumer.poll(rows_max=1000, wait_ms=1)
            await consumer.close()
            await log.close()
            return [record.value for record in records]

        return asyncio.run(read())

    def write(self) -> tuple[Catalog, LmdbStore]:
        """What the writer does: apply the log's commands to the online store."""
        store = LmdbStore(str(self.folder / ".headrace" / "online"))
        document = store.get("catalog/document")
        assert document is not None
        catalog = Catalog(document)
        batch = encode_commands(catalog, self.commands(), now_ms=NOW_MS)
        assert [rejection.message for rejection in batch.rejections] == []
        store.apply(batch, catalog, now_ms=NOW_MS)
        return catalog, store


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    made = Place(tmp_path)
    assert made.run("apply").exit_code == 0
    return made


def test_a_value_of_every_type_comes_online_as_the_sql_made_it(place: Place) -> None:
    place.transform()
    place.run("upsync", "live::everything-v1")
    catalog, store = place.write()
    key = catalog.encode_key("live::everything-v1", {"user_id": 7, "country": "KR"})
    (record,) = store.fetch_object(catalog, [key], now_ms=NOW_MS)
    store.close()
    assert record is not None
    assert record.values == EXPECTED
    assert str(record.values["precise"]) == "-0.0"
    assert record.newest_event_time_ms == EVENT_MS


def test_a_history_is_upsynced_as_its_newest_events(place: Place) -> None:
    place.transform()
    place.run("upsync", "live::visits")
    catalog, store = place.write()
    key = catalog.encode_key("live::visits", {"user_id": 1})
    (events,) = store.fetch_history(catalog, [key], limit=9, now_ms=NOW_MS)
    store.close()
    assert [values for _, values in events] == [{"page": "p3"}, {"page": "p2"}]


def test_transform_runs_every_file_and_says_what_is_new(place: Place) -> None:
    first, second = place.transform(), place.transform()
    assert first.exit_code == 0
    assert first.stderr == "live::everything-v1: 1 rows, 1 new\nlive::visits: 3 rows, 3 new\n"
    assert second.stderr == "live::everything-v1: 1 rows, 0 new\nlive::visits: 3 rows, 0 new\n"


def test_transform_of_one_group_leaves_the_others(place: Place) -> None:
    outcome = place.transform("live::visits", "--json")
    assert json.loads(outcome.stdout) == [
        {"feature_group": "live::visits", "rows": 3, "appended": 3}
    ]


def test_transform_names_what_does_not_fit_and_writes_nothing(place: Place) -> None:
    sql = EVERYTHING.replace("AS small", "AS tiny")
    (place.folder / "transforms" / "everything-v1.sql").write_text(sql)
    outcome = place.transform("live::everything-v1")
    assert outcome.exit_code == 1
    assert outcome.stderr == (
        "error: the transform of `live::everything-v1` does not fit the group:\n"
        "  column `small` is missing; the group declares Integer\n"
        "  column `tiny` is not a field of the group; remove it from the SELECT or declare it\n"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["transform", "live::visit"], "there is no group `live::visit` in the live catalog"),
        (["transform", "live::quiet-v1"], "`live::quiet-v1` has no transform; expected"),
        (["upsync"], "name the groups, or give --all"),
        (["upsync", "--all", "live::visits"], "name the groups, or give --all"),
        (["upsync", "live::visit"], "did you mean `live::visits`?"),
        (["upsync", "live::quiet-v1"], "`live::quiet-v1` does not declare `upsync"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_in_a_call_is_told_and_exits_64(
    place: Place, arguments: list[str], sentence: str
) -> None:
    outcome = place.run(*arguments)
    assert outcome.exit_code == 64
    assert sentence in outcome.stderr


def test_a_transform_of_no_group_is_told(place: Place) -> None:
    (place.folder / "transforms" / "stray.sql").write_text("SELECT 1")
    outcome = place.transform()
    assert outcome.exit_code == 64
    assert "stray.sql` belongs to no group of the live catalog" in outcome.stderr


def test_upsync_reports_what_it_sent(place: Place) -> None:
    place.transform()
    reports = json.loads(place.run("upsync", "--all", "--json").stdout)
    assert [(one["feature_group"], one["sent"], one["scanned"]) for one in reports] == [
        ("live::everything-v1", 1, 1),
        ("live::visits", 2, 2),
    ]


def test_upsync_again_sends_nothing(place: Place) -> None:
    place.transform()
    place.run("upsync", "--all")
    before = len(place.commands())
    outcome = place.run("upsync", "--all")
    assert outcome.stderr == (
        "live::everything-v1: sent 0 of 1 latest rows\nlive::visits: sent 0 of 2 latest rows\n"
    )
    assert len(place.commands()) == before


def test_upsync_full_sends_everything_again(place: Place) -> None:
    place.transform()
    place.run("upsync", "--all")
    place.run("upsync", "--all", "--full")
    assert len(place.commands()) == 6


def test_a_dry_run_counts_and_sends_nothing(place: Place) -> None:
    place.transform()
    outcome = place.run("upsync", "--all", "--dry-run")
    assert outcome.stderr == (
        "live::everything-v1: would send 1 of 1 latest rows\n"
        "live::visits: would send 2 of 2 latest rows\n"
    )
    assert place.commands() == []


def test_a_paced_upsync_sends_every_row(place: Place) -> None:
    """All rows arrive however they are paced; the pace is tested apart, with its own clock."""
    place.transform()
    outcome = place.run("upsync", "--all", "--rate", "50")
    assert outcome.exit_code == 0
    assert len(place.commands()) == 3


def test_upsync_before_apply_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = CliRunner().invoke(main, ["upsync", "--all"])
    assert outcome.exit_code == 1
    assert "run `headrace apply` first" in outcome.stderr

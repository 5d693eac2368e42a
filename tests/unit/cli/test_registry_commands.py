"""check, plan, apply and get over a real embedded store: what people and programs see."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from headrace.cli.main import main
from headrace.codec import Catalog, LmdbStore, encode_commands

GROUPS = """\
live::host-stat-v1:
  feature_type: Object
  owner: "shawn"
  schema:
    user_id: {type: Text, is_key_field: true}
    level: {type: Integer, default_value: 0}
    score: {type: Float, nullable: true}
  max_age: 1h
live::visits:
  feature_type: History
  owner: "shawn"
  schema:
    user_id: {type: Long, is_key_field: true}
    page: {type: Text, default_value: ""}
  ttl: 3000d
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory whose registry is the folder itself."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "live.yaml").write_text(GROUPS)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def write(here: Path, text: str) -> None:
    (here / "features" / "live.yaml").write_text(text)


@pytest.mark.usefixtures("here")
def test_check_of_a_good_registry_is_quiet_on_standard_output() -> None:
    outcome = run("check")
    assert (outcome.exit_code, outcome.stdout) == (0, "")
    assert outcome.stderr == "0 errors, 0 warnings in 2 groups, 0 services\n"


def test_check_prints_every_finding_and_exits_1(here: Path) -> None:
    write(here, GROUPS.replace("default_value: 0", "default_value: NO").replace("ttl", "tll"))
    outcome = run("check")
    assert outcome.exit_code == 1
    assert outcome.stdout == (
        "features/live.yaml:6:43  SCALAR_UNAMBIGUOUS  "
        "`NO` is read differently by different YAML libraries; "
        "write a whole number of 32 bits without quotes\n"
        "features/live.yaml:9:1  HISTORY_TTL_GIVEN  "
        "History `live::visits` has no ttl, so keys that go quiet are kept (warning)\n"
        "features/live.yaml:15:3  MEMBER_KNOWN  "
        "`tll` is not a member of a feature group; did you mean `ttl`?\n"
    )
    assert outcome.stderr == "2 errors, 1 warning in 2 groups, 0 services\n"


def test_warnings_alone_do_not_fail_the_check(here: Path) -> None:
    write(here, GROUPS.replace("  ttl: 3000d\n", ""))
    assert run("check").exit_code == 0


@pytest.mark.parametrize("arguments", [["--json"], ["--format", "json"]])
def test_check_for_programs(here: Path, arguments: list[str]) -> None:
    write(here, GROUPS.replace("ttl: 3000d", "ttl: 4000d"))
    outcome = run("check", *arguments)
    assert json.loads(outcome.stdout) == [
        {
            "path": "features/live.yaml",
            "line": 15,
            "column": 8,
            "rule": "TTL_BOUNDED",
            "sentence": "a ttl is above zero and at most 10 years (3653d); "
            "leave it out to keep rows",
            "severity": "error",
        }
    ]


def test_check_for_pull_requests_escapes_what_github_would_obey(here: Path) -> None:
    (here / "features" / "a,b%.yaml").write_text("a::b: '%0A::error::forged'\n")
    outcome = run("check", "--format", "github")
    assert outcome.stdout == (
        "::error file=features/a%2Cb%25.yaml,line=1,col=7,title=VALUE_TYPED"
        '::expected a feature group, a mapping, got `"%250A::error::forged"`\n'
    )


def test_a_place_in_a_named_folder_can_be_followed_from_where_the_command_was_run(
    here: Path,
) -> None:
    nested = here / "feature store"
    (nested / "features").mkdir(parents=True)
    (nested / "features" / "a.yaml").write_text("a::b: 1\n")
    text, github = run("check", str(nested)), run("check", str(nested), "--format", "github")
    programs = run("check", str(nested), "--json")
    assert text.stdout.startswith(f"{nested}/features/a.yaml:1:7  VALUE_TYPED")
    assert f"file={nested}/features/a.yaml,line=1" in github.stdout
    assert json.loads(programs.stdout)[0]["path"] == "features/a.yaml"


def test_check_of_a_named_folder(here: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    outcome = run("check", str(other))
    assert outcome.exit_code == 1
    assert f"no `features/**/*.yaml` in `{other}`" in outcome.stdout
    assert str(here) not in outcome.stdout


def test_folder_of_the_settings_is_checked(here: Path) -> None:
    (here / "settings.yaml").write_text("registry: elsewhere\n")
    assert "in `elsewhere`" in run("check", "--config", "settings.yaml").stdout


@pytest.mark.usefixtures("here")
def test_plan_before_the_first_apply_touches_nothing(here: Path) -> None:
    outcome = run("plan")
    assert outcome.exit_code == 2
    assert outcome.stdout == (
        "+ Object `live::host-stat-v1` by user_id, 2 fields\n"
        "+ History `live::visits` by user_id, 1 field\n"
        "\n"
        "step 1: create tables `live__host_stat_v1`, `live__visits`\n"
        "step 2: publish catalog generation 1\n"
    )
    assert not (here / ".headrace").exists()


@pytest.mark.usefixtures("here")
def test_apply_publishes_and_then_has_nothing_to_do() -> None:
    first, second, plan = run("apply"), run("apply"), run("plan")
    assert (first.exit_code, first.stdout) == (0, "generation 1 is live\n")
    assert "done: publish catalog generation 1" in first.stderr
    assert (second.exit_code, second.stdout) == (0, "nothing to do: generation 1 is live\n")
    assert plan.exit_code == 0
    assert plan.stdout == "nothing to change: generation 1 is what the registry says\n"


def test_compatible_change_is_planned_and_applied(here: Path) -> None:
    run("apply")
    write(here, GROUPS.replace("Integer", "Long"))
    assert run("plan").exit_code == 2
    assert run("apply").stdout == "generation 2 is live\n"


def test_breaking_change_is_refused_with_its_rule_and_place(here: Path) -> None:
    """semantics 22: `plan` 3, `apply` 3."""
    run("apply")
    write(here, GROUPS.replace("{type: Integer, default_value: 0}", "{type: Date, nullable: true}"))
    plan, outcome = run("plan"), run("apply")
    told = (
        "features/live.yaml:6:19  FIELD_SAME_TYPE  "
        "`live::host-stat-v1.level` was Integer and is Date here\n"
        "    add a new field and deprecate this one; stored Integer cannot be read as Date\n"
    )
    assert (plan.exit_code, outcome.exit_code) == (3, 3)
    assert told in plan.stdout
    assert told in outcome.stdout
    assert "refused as breaking; nothing was changed" in outcome.stderr
    write(here, GROUPS)
    assert run("plan").exit_code == 0


def test_change_that_callers_notice_can_be_accepted_by_rule(here: Path) -> None:
    run("apply")
    write(here, GROUPS.partition("live::visits")[0])
    assert run("apply").exit_code == 3
    outcome = run("apply", "--accept", "GROUP_NO_DELETE", "--json")
    assert outcome.exit_code == 0
    told = json.loads(outcome.stdout)
    assert (told["applied"], told["risk"]) == (True, "breaking")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ("FIELD_SAME_TYPE", "stored bytes depend on this rule; it cannot be accepted"),
        ("GROUP_NO_DELET", "there is no such rule; did you mean `GROUP_NO_DELETE`?"),
    ],
)
def test_other_rules_cannot_be_accepted(rule: str, sentence: str) -> None:
    outcome = run("apply", "--accept", rule)
    assert outcome.exit_code == 64
    assert sentence in outcome.stderr


@pytest.mark.parametrize("command", ["plan", "apply"])
def test_registry_with_errors_is_neither_planned_nor_applied(here: Path, command: str) -> None:
    """semantics 22: errors are 1, not 3."""
    write(here, GROUPS.replace("Object", "Table"))
    outcome = run(command)
    assert outcome.exit_code == 1
    assert "GROUP_FEATURE_TYPE_KNOWN" in outcome.stdout
    assert "1 error, 0 warnings; `headrace check` must pass first" in outcome.stderr
    assert not (here / ".headrace").exists()


@pytest.mark.usefixtures("here")
def test_plan_for_programs() -> None:
    told = json.loads(run("plan", "--json").stdout)
    assert (told["base_generation"], told["risk"], len(told["changes"])) == (0, "compatible", 2)


NOW = "2099-01-01"


def send(here: Path, *commands: Mapping[str, object]) -> None:
    """Write commands to the store as the writer does."""
    store = LmdbStore(str(here / ".headrace" / "online"))
    catalog = Catalog(store.get("catalog/document") or b"")
    payloads = [json.dumps(command).encode() for command in commands]
    batch = encode_commands(catalog, payloads, now_ms=1_900_000_000_000)
    assert batch.rejections == []
    store.apply(batch, catalog, now_ms=1_700_000_000_000)
    store.close()


UPDATE = {
    "feature_name": "live::host-stat-v1",
    "method": "UPDATE",
    "keys": {"user_id": "a b"},
    "values": {"score": 0.1, "_last_updated_at_ms": 1_700_000_000_123},
}
APPENDS = [
    {
        "feature_name": "live::visits",
        "method": "APPEND",
        "keys": {"user_id": -7},
        "values": {"page": page, "_last_updated_at_ms": at_ms},
    }
    for page, at_ms in [("/a", 1_700_000_000_000), ("/b", 1_700_000_001_000)]
]


def test_get_prints_each_value_with_its_status(here: Path) -> None:
    run("apply")
    send(here, UPDATE)
    outcome = run("get", "live::host-stat-v1", "user_id=a b")
    assert outcome.exit_code == 0
    assert outcome.stdout == (
        "live::host-stat-v1 user_id=a b  STALE\n"
        "newest event time 2023-11-14T22:13:20.123Z\n"
        "  level  0  DEFAULTED\n"
        "  score  0.1\n"
    )


def test_get_for_programs(here: Path) -> None:
    run("apply")
    send(here, UPDATE)
    assert json.loads(run("get", "live::host-stat-v1", "user_id=a b", "--json").stdout) == {
        "feature_group": "live::host-stat-v1",
        "keys": {"user_id": "a b"},
        "status": "STALE",
        "event_time_ms": 1_700_000_000_123,
        "values": {"level": 0, "score": 0.1},
        "defaulted": ["level"],
    }


def test_get_prints_floats_of_lists_and_what_json_has_no_number_for(here: Path) -> None:
    """float32 as the shortest text that names it; not finite as null (semantics 11)."""
    write(here, GROUPS.replace("score: {type: Float, nullable: true}",
                               'score: {type: "Vector<3>", nullable: true}'))  # fmt: skip
    run("apply")
    vector = [0.1, 16777217, 10282.7295]
    values = {"score": vector, "_last_updated_at_ms": 1_700_000_000_123}
    send(here, {**UPDATE, "values": values})
    told = json.loads(run("get", "live::host-stat-v1", "user_id=a b", "--json").stdout)
    assert told["values"]["score"] == [0.1, 16777216.0, 10282.7295]


def test_get_prints_a_history_newest_first(here: Path) -> None:
    run("apply")
    send(here, *APPENDS)
    outcome = run("get", "live::visits", "user_id=-7")
    assert outcome.stdout == (
        "live::visits user_id=-7  OK\n"
        '2023-11-14T22:13:21.000Z  {"page":"/b"}\n'
        '2023-11-14T22:13:20.000Z  {"page":"/a"}\n'
    )
    limited = run("get", "live::visits", "user_id=-7", "--limit", "1", "--json")
    assert [event["values"] for event in json.loads(limited.stdout)["events"]] == [{"page": "/b"}]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "arguments", [["live::host-stat-v1", "user_id=x"], ["live::visits", "user_id=1"]]
)
def test_get_of_no_row_exits_1(arguments: list[str]) -> None:
    run("apply")
    outcome = run("get", *arguments)
    assert outcome.exit_code == 1
    assert outcome.stdout.endswith("MISSING\n")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["live::host", "user_id=1"], "no group `live::host` in the live catalog"),
        (
            ["live::visits", "usr_id=1"],
            "`live::visits` has no key `usr_id`; did you mean `user_id`?",
        ),
        (["live::visits", "user_id"], "expected KEY=VALUE, got `user_id`"),
        (["live::visits", "user_id=1.0"], "key `user_id` is an integer, got `1.0`"),
        (["live::visits", "user_id=１"], "key `user_id` is an integer"),
        (["live::visits", "user_id=1", "user_id=2"], "key `user_id` is given twice"),
        (["live::host-stat-v1", "user_id=1", "--limit", "2"], "only a History has a limit"),
        (["live::visits"], "Missing argument"),
    ],
)
def test_wrong_calls_of_get_are_usage_errors(arguments: list[str], sentence: str) -> None:
    run("apply")
    outcome = run("get", *arguments)
    assert outcome.exit_code == 64
    assert sentence in outcome.stderr


def test_get_needs_every_key(here: Path) -> None:
    write(here, GROUPS.replace("level: {type: Integer, default_value: 0}",
                               "room_id: {type: Long, is_key_field: true}"))  # fmt: skip
    run("apply")
    outcome = run("get", "live::host-stat-v1", "user_id=1")
    assert outcome.exit_code == 64
    assert "`live::host-stat-v1` also needs `room_id=`" in outcome.stderr


@pytest.mark.usefixtures("here")
def test_key_that_no_row_can_have_is_one_sentence() -> None:
    """semantics 8: an empty Text is no key."""
    run("apply")
    outcome = run("get", "live::host-stat-v1", "user_id=")
    assert outcome.exit_code == 1
    assert outcome.stderr.startswith("error: ")


@pytest.mark.usefixtures("here")
def test_get_before_the_first_apply_says_what_to_do() -> None:
    outcome = run("get", "live::visits", "user_id=1")
    assert outcome.exit_code == 1
    assert "`headrace apply`" in outcome.stderr


def test_get_from_a_store_without_a_catalog_says_what_to_do(here: Path) -> None:
    LmdbStore(str(here / "empty")).close()
    outcome = run("get", "live::visits", "user_id=1", "--online", "lmdb:empty")
    assert outcome.exit_code == 1
    assert "no catalog was ever published; run `headrace apply` first" in outcome.stderr


def test_version_for_people_and_for_programs() -> None:
    told = json.loads(run("version", "--json").stdout)
    assert (told["codec_format"], told["catalog_format"]) == (1, 1)
    lines = run("version").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(told)

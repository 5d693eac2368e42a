"""Reading a registry: the model that comes out, and findings with their places."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.registry import files
from headrace.registry.load import load_registry, load_texts
from headrace.registry.model import Group, Principal, Service

GROUP = b"""\
live::hakuna-host-stat-v1:
  feature_type: Object
  owner: "shawn.s"
  description: "Host statistics"
  schema:
    user_id:      {type: Text, is_key_field: true, pii: true}
    level:        {type: Long, description: "", default_value: 0}
    country_code: {type: Text, description: "", default_value: "XX", pii: location}
    embedding:    {type: "Vector<64>", nullable: true}
    old:          {type: Date, default_value: 2000-01-31, deprecated: "gone in May", pii: false}
  ttl: 30d
  max_age: 2h
  cache: {ttl: 10m, local_ttl: 1s}
  upsync:   {enabled: true, incremental_update: true, updated_at: updated_at}
  downsync: {enabled: true, min_interval_by_key: "1m", random_sampling_ratio: 0.9}
  retention: {offline: 400d}
  feast_name: host_stat
live::visits:
  feature_type: History
  owner: shawn
  ttl: 1d
  history: {max_events: 7}
  schema:
    user_id: {type: Long, is_key_field: true}
    page: {type: Text, default_value: ""}
"""
SERVICE = b"""\
room-ranker-v1:
  owner: me
  reads:
    - {feature_group: "live::hakuna-host-stat-v1", fields: [level], as: host}
    - feature_group: "live::hakuna-host-stat-v1"
      fields: "*"
      as: peer
      keys: {user_id: peer_user_id}
    - {feature_group: "live::visits", limit: 5, keys: {user_id: visitor}}
"""
ACCESS = b"""\
principals:
  ranker:
    api_key_sha256: ["abababababababababababababababababababababababababababababababab"]
    read: ["live::*", room-ranker-v1]
    write: []
    erase: false
    quota_rps: 100
"""
ALL = {"features/a.yaml": GROUP, "services/s.yaml": SERVICE, "access.yaml": ACCESS}


def group_of(text: bytes = GROUP) -> Group:
    return load_texts({"features/a.yaml": text}).registry.groups[0]


def rules_of(texts: dict[str, bytes]) -> list[str]:
    return [finding.rule for finding in load_texts(texts).findings]


def test_good_registry_has_no_finding() -> None:
    assert load_texts(ALL).findings == []


def test_group_has_what_its_yaml_says() -> None:
    group = group_of()
    assert (group.ttl_ms, group.max_age_ms) == (30 * 86_400_000, 2 * 3_600_000)
    assert (group.cache_ttl_ms, group.local_ttl_ms) == (600_000, 1_000)
    assert (group.upsync_enabled, group.incremental_update) == (True, True)
    assert group.updated_at == "updated_at"
    assert (group.downsync_enabled, group.min_interval_ms) == (True, 60_000)
    assert group.random_sampling_ratio == 0.9
    assert group.offline_retention_ms == 400 * 86_400_000
    assert group.feast_name == "host_stat"
    assert [field.name for field in group.keys] == ["user_id"]
    assert [field.default for field in group.values] == [0, "XX", None, "2000-01-31"]
    assert [field.pii for field in group.fields] == ["true", None, "location", None, None]
    assert [field.deprecated for field in group.fields][-1] == "gone in May"


def test_group_that_says_little_has_the_defaults_of_the_product() -> None:
    group = group_of(
        b"a::b:\n  feature_type: Object\n  owner: x\n  schema:\n"
        b"    k: {type: Text, is_key_field: true}\n    v: {type: Long, nullable: true}\n"
    )
    assert (group.ttl_ms, group.max_age_ms, group.max_events) == (None, None, 100)
    assert (group.cache_ttl_ms, group.local_ttl_ms) == (600_000, 0)
    assert (group.upsync_enabled, group.downsync_enabled) == (False, False)
    assert group.random_sampling_ratio == 1.0


def test_service_reads_one_group_twice_under_two_keys() -> None:
    service: Service = load_texts(ALL).registry.services[0]
    assert [read.alias for read in service.reads] == ["host", "peer", None]
    assert [read.fields for read in service.reads] == [("level",), None, None]
    assert [read.keys for read in service.reads] == [
        {},
        {"user_id": "peer_user_id"},
        {"user_id": "visitor"},
    ]
    assert service.reads[2].limit == 5


def test_access_is_read() -> None:
    principals = load_texts(ALL).registry.principals
    assert principals is not None
    principal: Principal = principals[0]
    assert (principal.read, principal.write) == (("live::*", "room-ranker-v1"), ())
    assert (principal.erase, principal.quota_rps) == (False, 100)


def test_no_access_file_is_not_an_empty_one() -> None:
    """semantics 14: without `access.yaml` loopback callers are answered; an empty one denies."""
    assert load_texts({"features/a.yaml": GROUP}).registry.principals is None
    texts = {"features/a.yaml": GROUP, "access.yaml": b"principals: {}\n"}
    assert load_texts(texts).registry.principals == ()


def test_all_mistakes_of_all_files_come_at_once_in_order() -> None:
    texts = {
        "services/s.yaml": b"ranker-v1: {owner: me, reads: [{feature_group: 'a::c'}]}\n",
        "features/b.yaml": b"a::b:\n  owner: NO\n  schema: {k: {type: Txt}}\n",
        "features/a.yaml": b"a::a: [\n",
    }
    found = [f"{f.path}:{f.line}:{f.column} {f.rule}" for f in load_texts(texts).findings]
    assert found == [
        "features/a.yaml:2:1 YAML_SYNTAX",
        "features/b.yaml:2:3 MEMBER_REQUIRED",
        "features/b.yaml:2:10 SCALAR_UNAMBIGUOUS",
        "features/b.yaml:3:11 GROUP_HAS_KEY",
        "features/b.yaml:3:12 FIELD_DEFAULT_GIVEN",
        "features/b.yaml:3:22 FIELD_TYPE_KNOWN",
        "services/s.yaml:1:48 SERVICE_GROUP_KNOWN",
    ]


def test_finding_prints_as_path_line_column_rule_sentence() -> None:
    finding = load_texts({"features/a.yaml": b"a::b: 5\n"}).findings[0]
    assert str(finding) == (
        "features/a.yaml:1:7  VALUE_TYPED  expected a feature group, a mapping, got `5`"
    )


@pytest.mark.parametrize(
    ("rule", "texts"),
    [
        ("GROUP_NAME_UNIQUE", {"features/a.yaml": GROUP, "features/b.yaml": GROUP}),
        (
            "SERVICE_NAME_UNIQUE",
            {"features/a.yaml": GROUP, "services/a.yaml": SERVICE, "services/b.yaml": SERVICE},
        ),
        (
            "FEAST_NAME_UNIQUE",
            {"features/a.yaml": GROUP, "features/b.yaml": GROUP.replace(b"live::", b"azar::")},
        ),
        (
            "FEAST_NAME_UNIQUE",
            {
                "features/a.yaml": GROUP.replace(
                    b"feast_name: host_stat", b"feast_name: live__visits"
                )
            },
        ),
        (
            "NAMES_INJECTIVE",
            {"features/a.yaml": GROUP.replace(b"live::visits", b"live::hakuna_host-stat-v1")},
        ),
    ],
)
def test_names_are_unique_across_files(rule: str, texts: dict[str, bytes]) -> None:
    findings = [finding for finding in load_texts(texts).findings if finding.rule == rule]
    assert findings != []
    assert "features/a.yaml:1:1" in findings[0].sentence or "services/" in findings[0].sentence


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        (b"max_age: 2h", b"max_age: 30d", "MAX_AGE_BELOW_TTL"),
        (b"  ttl: 1d\n", b"", "HISTORY_TTL_GIVEN"),
    ],
)
def test_doubtful_group_is_a_warning(old: bytes, new: bytes, rule: str) -> None:
    loaded = load_texts({"features/a.yaml": GROUP.replace(old, new)})
    assert [(f.rule, f.severity) for f in loaded.findings] == [(rule, "warning")]
    assert loaded.errors == []


def test_two_results_of_one_name_are_a_warning() -> None:
    texts = ALL | {"services/s.yaml": SERVICE.replace(b"as: peer", b"as: host")}
    assert rules_of(texts) == ["SERVICE_RESULTS_DISTINCT"]


def test_grant_of_nothing_is_a_warning() -> None:
    texts = ALL | {"access.yaml": ACCESS.replace(b"live::*", b"azar::*")}
    assert rules_of(texts) == ["GRANT_MATCHES"]


def test_service_over_a_broken_group_says_nothing_more() -> None:
    """The first cause is enough."""
    texts = {"features/a.yaml": GROUP.replace(b"{type: Long, is_key", b"{type: Lung, is_key")}
    assert rules_of(texts | {"services/s.yaml": SERVICE}) == ["FIELD_TYPE_KNOWN"]


def test_service_feast_name_is_checked_and_unique() -> None:
    good = b"  feast_name: ranker\n"
    twice = SERVICE + good + SERVICE.replace(b"ranker-v1", b"ranker-v2") + good
    assert rules_of(ALL | {"services/s.yaml": twice}) == ["FEAST_NAME_UNIQUE"]
    bad = SERVICE + b"  feast_name: 'a b'\n"
    assert rules_of(ALL | {"services/s.yaml": bad}) == ["SERVICE_FEAST_NAME_FORM"]


def test_too_many_fields_are_refused() -> None:
    fields = b"".join(b"    f%d: {type: Long, nullable: true}\n" % index for index in range(1_001))
    text = b"a::b:\n  feature_type: Object\n  owner: x\n  schema:\n" + fields
    text += b"    k: {type: Text, is_key_field: true}\n"
    assert rules_of({"features/a.yaml": text}) == ["GROUP_FIELDS_BOUNDED"]


@pytest.mark.parametrize("kind", ["services/s.yaml", "access.yaml"])
@pytest.mark.parametrize("value", [b"5", b"[a]", b"{a: 5}"])
def test_other_shapes_are_findings(kind: str, value: bytes) -> None:
    texts = {"features/a.yaml": GROUP, kind: b"principals: " + value + b"\n"}
    assert rules_of(texts) != []


@pytest.mark.parametrize("value", [b"5", b"[a]", b"[{fields: {a: b}, keys: 5}]"])
def test_other_shapes_of_reads_are_findings(value: bytes) -> None:
    text = b"r-v1: {owner: x, reads: " + value + b"}\n"
    assert "VALUE_TYPED" in rules_of({"features/a.yaml": GROUP, "services/s.yaml": text})


def test_scalar_shapes_of_a_field_are_findings() -> None:
    text = GROUP.replace(b'{type: Long, description: "", default_value: 0}', b"Long")
    text = text.replace(b'type: "Vector<64>"', b"type: [a]")
    assert rules_of({"features/a.yaml": text}) == ["VALUE_TYPED", "VALUE_TYPED"]


def write(folder: Path, texts: dict[str, bytes]) -> None:
    for path, text in texts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(text)


def test_folder_is_read_with_all_below(tmp_path: Path) -> None:
    write(tmp_path, ALL | {"features/deep/er/b.yaml": GROUP.replace(b"live::", b"azar::")})
    loaded = load_registry(tmp_path)
    assert [finding.rule for finding in loaded.findings] == ["FEAST_NAME_UNIQUE"]
    assert len(loaded.registry.groups) == 4
    assert loaded.registry.groups[3].path == "features/deep/er/b.yaml"


def test_folder_without_groups_is_the_wrong_folder(tmp_path: Path) -> None:
    assert [finding.rule for finding in load_registry(tmp_path).findings] == ["REGISTRY_HAS_GROUPS"]


def test_file_of_another_ending_is_not_passed_over(tmp_path: Path) -> None:
    write(tmp_path, {"features/a.yaml": GROUP, "features/b.yml": GROUP, "features/README.md": b""})
    loaded = load_registry(tmp_path)
    assert [(f.path, f.rule) for f in loaded.findings] == [("features/b.yml", "FILE_NAMED_YAML")]


def test_hidden_files_and_folders_are_not_read(tmp_path: Path) -> None:
    """A mounted ConfigMap holds links to files of a hidden folder; each file counts once."""
    write(tmp_path, {"features/..2026_11_24/a.yaml": GROUP, "features/.a.yaml.swp": b"\x00"})
    (tmp_path / "features" / "a.yaml").symlink_to("..2026_11_24/a.yaml")
    loaded = load_registry(tmp_path)
    assert (loaded.findings, len(loaded.registry.groups)) == ([], 2)


def test_file_that_cannot_be_opened_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may open everything, so the refusal is made here."""
    write(tmp_path, {"features/a.yaml": GROUP, "features/b.yaml": GROUP})
    opened = Path.open

    def open_unless_refused(path: Path, mode: str) -> object:
        if path.name == "b.yaml":
            raise PermissionError(13, "Permission denied")
        return opened(path, mode)

    monkeypatch.setattr(Path, "open", open_unless_refused)
    (finding,) = load_registry(tmp_path).findings
    assert str(finding) == "features/b.yaml:1:1  FILE_READABLE  cannot be read: Permission denied"


def test_number_of_files_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "FILES_MAX", 2)
    write(tmp_path, {f"features/{name}.yaml": GROUP for name in "abcd"})
    assert [f.rule for f in load_registry(tmp_path).findings] == ["FILE_COUNT_BOUNDED"]

"""Plans are inert; applying one is idempotent, resumable, and loses a race out loud."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from headrace.registry.apply import apply_plan
from headrace.registry.catalog import CatalogDocument, Group
from headrace.registry.errors import PlanRefused, PublishConflict
from headrace.registry.explain import explain_plan, plan_as_json
from headrace.registry.load import load_texts
from headrace.registry.model import Registry
from headrace.registry.plan import CreateTables, Plan, PublishCatalog, Step, make_plan

FIRST = """\
live::host-stat-v1:
  feature_type: Object
  owner: "shawn"
  schema:
    user_id: {type: Text, is_key_field: true}
    level: {type: Integer, default_value: 0}
    old: {type: Long, nullable: true, deprecated: "since May"}
  ttl: 30d
live::visits:
  feature_type: History
  owner: "shawn"
  schema:
    user_id: {type: Text, is_key_field: true}
    page: {type: Text, default_value: ""}
  ttl: 30d
"""
SECOND = """\
live::host-stat-v1:
  feature_type: Object
  owner: "team"
  description: "Hosts"
  schema:
    user_id: {type: Text, is_key_field: true, description: "Who"}
    score: {type: Double, nullable: true}
    level: {type: Long, default_value: 1}
  ttl: 10d
  max_age: 1h
live::visits:
  feature_type: History
  owner: "shawn"
  schema:
    user_id: {type: Text, is_key_field: true}
    page: {type: Text, default_value: ""}
  ttl: 60d
  history: {max_events: 500}
live::rooms:
  feature_type: Object
  owner: "shawn"
  schema:
    room_id: {type: Long, is_key_field: true}
    topic: {type: Text, default_value: ""}
"""
SERVICE = "ranker-v1: {owner: me, reads: [{feature_group: 'live::host-stat-v1'}]}\n"


class Store:
    """The two writing ports over a variable, as an online store behaves; `dies_at` crashes it."""

    def __init__(self) -> None:
        self.document: CatalogDocument | None = None
        self.tables: list[str] = []
        self.dies_at = ""

    async def create(self, groups: Sequence[Group]) -> None:
        for group in groups:
            if group.name == self.dies_at:
                raise ConnectionError(group.name)
            if group.name not in self.tables:
                self.tables.append(group.name)

    async def publish(self, document: CatalogDocument) -> bool:
        live = 0 if self.document is None else self.document.generation
        if document.generation != live + 1:
            return False
        self.document = document
        return True


def registry_of(groups: str, services: str = "") -> Registry:
    texts = {"features/a.yaml": groups.encode()}
    if services:
        texts["services/s.yaml"] = services.encode()
    loaded = load_texts(texts)
    assert loaded.errors == []
    return loaded.registry


def plan_on(store: Store, groups: str, services: str = "") -> Plan:
    return make_plan(registry_of(groups, services), store.document, now_ms=0)


async def test_first_plan_creates_tables_and_then_publishes() -> None:
    store = Store()
    plan = plan_on(store, FIRST)
    assert [type(step) for step in plan.steps] == [CreateTables, PublishCatalog]
    done: list[Step] = []
    assert await apply_plan(plan, store, store, report=done.append) == 1
    assert done == list(plan.steps)
    assert store.tables == ["live::host-stat-v1", "live::visits"]


async def test_nothing_to_change_is_no_step() -> None:
    store = Store()
    await apply_plan(plan_on(store, FIRST), store, store)
    plan = plan_on(store, FIRST)
    assert (plan.risk, plan.steps, plan.changes) == ("none", (), ())
    assert await apply_plan(plan, store, store) == 1


async def test_compatible_plan_creates_only_new_tables() -> None:
    store = Store()
    await apply_plan(plan_on(store, FIRST), store, store)
    plan = plan_on(store, SECOND, SERVICE)
    assert plan.risk == "compatible"
    create = plan.steps[0]
    assert isinstance(create, CreateTables)
    assert [group.name for group in create.groups] == ["live::rooms"]
    assert await apply_plan(plan, store, store) == 2


async def test_breaking_plan_is_refused_before_any_step() -> None:
    store = Store()
    await apply_plan(plan_on(store, FIRST), store, store)
    plan = plan_on(store, SECOND.replace("live::visits", "live::other"))
    with pytest.raises(PlanRefused, match="refused as breaking: GROUP_NO_DELETE"):
        await apply_plan(plan, store, store)
    assert (store.document, store.tables) == (
        store.document,
        ["live::host-stat-v1", "live::visits"],
    )


async def test_accepted_rule_lets_the_plan_pass() -> None:
    store = Store()
    await apply_plan(plan_on(store, FIRST), store, store)
    plan = plan_on(store, SECOND.replace("live::visits", "live::other"))
    assert await apply_plan(plan, store, store, accepted=["GROUP_NO_DELETE"]) == 2


async def test_apply_that_died_between_steps_is_run_again() -> None:
    """Tables without a catalog are invisible, so the second run starts where the first ended."""
    store = Store()
    store.dies_at = "live::visits"
    with pytest.raises(ConnectionError):
        await apply_plan(plan_on(store, FIRST), store, store)
    assert store.document is None
    store.dies_at = ""
    assert await apply_plan(plan_on(store, FIRST), store, store) == 1
    assert store.tables == ["live::host-stat-v1", "live::visits"]


async def test_second_of_two_racing_plans_loses_out_loud() -> None:
    """semantics 21"""
    store = Store()
    mine, theirs = plan_on(store, FIRST), plan_on(store, SECOND)
    await apply_plan(theirs, store, store)
    with pytest.raises(PublishConflict, match="generation 1 was published by somebody else"):
        await apply_plan(mine, store, store)
    assert store.document is not None
    assert len(store.document.groups) == 3


async def test_plan_in_words() -> None:
    store = Store()
    await apply_plan(plan_on(store, FIRST), store, store)
    plan = plan_on(store, SECOND, SERVICE)
    assert list(explain_plan(plan)) == [
        '~ `live::host-stat-v1` owner: "shawn" → "team"',
        '~ `live::host-stat-v1` description: "" → "Hosts"',
        "~ `live::host-stat-v1` ttl_ms: 2592000000 → 864000000  (older rows vanish at once)",
        "~ `live::host-stat-v1` max_age_ms: null → 3600000",
        "~ `live::host-stat-v1` words about its key",
        "+ `live::host-stat-v1.score` Double, nullable, default null  "
        "(stored rows answer the default)",
        '~ `live::host-stat-v1.level` type: "Integer" → "Long"',
        "~ `live::host-stat-v1.level` default: 0 → 1  (rows that never had it answer the new one)",
        "- `live::host-stat-v1.old` Long  (its name is spent)",
        "+ Object `live::rooms` by room_id, 1 field",
        "~ `live::visits` ttl_ms: 2592000000 → 5184000000  "
        "(rows that were collected do not come back)",
        "~ `live::visits` max_events: 100 → 500",
        "+ service `ranker-v1`, 1 read",
        "",
        "step 1: create table `live__rooms`",
        "step 2: publish catalog generation 2",
    ]


async def test_breaking_plan_in_words() -> None:
    store = Store()
    await apply_plan(plan_on(store, FIRST, SERVICE), store, store)
    broken = FIRST.partition("live::visits")[0].replace("user_id: {type: Text", "id: {type: Long")
    broken = broken.replace("level: {type: Integer, default_value: 0}\n    old", "old")
    broken = broken.replace('"since May"}', '"x"}\n    level: {type: Integer, default_value: 0}')
    lines = list(explain_plan(plan_on(store, broken)))
    assert lines[:4] == [
        "~ `live::host-stat-v1` key: (user_id Text) → (id Long)",
        '~ `live::host-stat-v1.old` deprecated: "since May" → "x"',
        "~ `live::host-stat-v1` fields in another order: old, level  "
        "(answers without `fields` follow it)",
        "- History `live::visits`  (its table stays)",
    ]
    assert lines[4] == "- service `ranker-v1`"


async def test_changed_service_and_trimmed_history_in_words() -> None:
    store = Store()
    await apply_plan(plan_on(store, SECOND, SERVICE), store, store)
    changed = SERVICE.replace("owner: me", "owner: you")
    lines = list(explain_plan(plan_on(store, SECOND.replace("500", "50"), changed)))
    assert lines[:2] == [
        "~ `live::visits` max_events: 500 → 50  (older events are trimmed)",
        "~ service `ranker-v1`: owner",
    ]


def test_nothing_in_words() -> None:
    plan = Plan(base_generation=3, changes=(), breaches=(), steps=())
    assert list(explain_plan(plan)) == ["nothing to change: generation 3 is what the registry says"]


async def test_plan_for_programs() -> None:
    store = Store()
    await apply_plan(plan_on(store, FIRST), store, store)
    text = SECOND.replace(
        "level: {type: Long, default_value: 1}", "level: {type: Date, nullable: true}"
    )
    registry = registry_of(text)
    told = plan_as_json(make_plan(registry, store.document, now_ms=0), registry)
    assert (told["base_generation"], told["risk"]) == (1, "breaking")
    breaches = told["breaches"]
    assert isinstance(breaches, list)
    assert [(b["rule"], b["level"], b["place"]) for b in breaches] == [
        ("FIELD_SAME_TYPE", "WIRE", "features/a.yaml:8:19"),
        ("FIELD_SAME_NULLABLE", "SOURCE", "features/a.yaml:8:35"),
    ]
    changes = told["changes"]
    assert isinstance(changes, list)
    (widened,) = [change for change in changes if change.get("member") == "type"]
    assert widened == {
        "change": "field_member_changed",
        "part": "live::host-stat-v1",
        "field": "level",
        "member": "type",
        "before": "Integer",
        "after": "Date",
        "text": '`live::host-stat-v1.level` type: "Integer" → "Date"',
        "note": "",
    }

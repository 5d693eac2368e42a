"""No catalog over tables that some node does not have yet."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from headrace.cli.doctor_online import schema_agreement
from headrace.registry.catalog import Group, KeyField, Schema, ValueField
from headrace.sync.errors import StoreSchemaDisagreement
from headrace.sync.stores.scylla import Statements
from headrace.sync.stores.scylla_schema import LOOK_EVERY_S, LOOKS_MAX
from headrace.sync.stores.scylla_tables import ScyllaTableAdmin

GROUP = Group(
    id=1,
    name="live::room",
    feature_type="Object",
    owner="o",
    keys=(KeyField(name="room_id", type="Long"),),
    schemas=(Schema(ordinal=1, fields=(ValueField(id=1, name="level", type="Long"),)),),
)
COLUMNS = [("room_id", "bigint"), ("record", "blob"), ("patch", "map<smallint, blob>")]


class Row:
    """A row of one answer."""

    def __init__(self, values: tuple[object, ...]) -> None:
        self._values = values

    def as_tuple(self) -> tuple[object, ...]:
        return self._values

    def column_value(self, _: str) -> object:
        return self._values[0]


class Rows:
    """One answer."""

    def __init__(self, values: list[Any]) -> None:
        self._values = values

    def all(self) -> list[Row]:
        return [Row(each if isinstance(each, tuple) else (each,)) for each in self._values]


class Statement:
    """Prepared and bound at once."""

    def __init__(self, text: str) -> None:
        self.text = text

    def bind(self, _: list[object]) -> Statement:
        return self

    def set_is_idempotent(self, _: bool) -> None:
        """Nothing is lost here."""


class Cluster:
    """Nodes with a schema version each, which answer in turn, as the driver asks them."""

    def __init__(self, versions: dict[str, str | None]) -> None:
        self.versions = versions
        self.made: list[str] = []
        self._turns = itertools.cycle(versions)

    async def create_prepared(self, text: str) -> Statement:
        return Statement(text)

    async def query(self, text: str) -> None:
        self.made.append(text)

    async def execute(self, statement: Statement) -> Rows:
        if "schema_version" not in statement.text:
            return Rows(COLUMNS if "column_name" in statement.text else [])
        asked = next(self._turns)
        if "system.local" in statement.text:
            return Rows([(asked, self.versions[asked])])
        return Rows([(node, at) for node, at in self.versions.items() if node != asked])


class Waits:
    """Sleeping, after some of which every node has the schema `new`."""

    def __init__(self, cluster: Cluster, *, heals_after: int | None = None) -> None:
        self.slept_s: list[float] = []
        self._cluster = cluster
        self._heals_after = heals_after

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        if len(self.slept_s) == self._heals_after:
            for node in self._cluster.versions:
                self._cluster.versions[node] = "new"


async def create(cluster: Cluster, waits: Waits) -> None:
    session: Any = cluster
    await ScyllaTableAdmin(session, "k", sleep=waits.sleep).create([GROUP])


@pytest.mark.parametrize("nodes", ["a", "ab", "abc", "abcd"])
async def test_nodes_that_agree_are_waited_for_only_until_each_was_seen(nodes: str) -> None:
    cluster = Cluster(dict.fromkeys(nodes, "new"))
    waits = Waits(cluster)
    await create(cluster, waits)
    assert len(cluster.made) == 3
    assert len(waits.slept_s) <= len(nodes) - 1


@pytest.mark.parametrize("behind", ["a", "b", "c"])
async def test_tables_are_made_when_the_last_node_has_them(behind: str) -> None:
    """Whichever node it is: none lists itself among its peers."""
    cluster = Cluster({node: "old" if node == behind else "new" for node in "abc"})
    waits = Waits(cluster, heals_after=4)
    await create(cluster, waits)
    assert 4 <= len(waits.slept_s) <= 7


@pytest.mark.parametrize("behind", ["a", "b", "c"])
async def test_nodes_that_never_agree_are_told_after_a_bounded_wait(behind: str) -> None:
    cluster = Cluster({node: "old" if node == behind else "new" for node in "abc"})
    waits = Waits(cluster)
    told = f"after 10 s .*`old` at {behind}.*nothing is published.*run `headrace apply` again"
    with pytest.raises(StoreSchemaDisagreement, match=told):
        await create(cluster, waits)
    assert waits.slept_s == [LOOK_EVERY_S] * (LOOKS_MAX - 1)


async def test_a_peer_that_is_only_half_known_is_not_waited_for() -> None:
    """Both engines leave such rows behind when a node is replaced."""
    cluster = Cluster({"a": "new"})
    cluster.versions = {"a": "new", "ghost": None}
    waits = Waits(cluster)
    await create(cluster, waits)
    assert waits.slept_s == []


@pytest.mark.parametrize(("behind", "ok"), [("a", False), ("b", False), ("c", False), ("", True)])
async def test_doctor_tells_a_schema_that_nodes_do_not_share(behind: str, ok: bool) -> None:
    session: Any = Cluster({node: "old" if node == behind else "new" for node in "abc"})
    found = await schema_agreement(Statements(session))
    assert (found.check, found.ok) == ("schema", ok)
    assert ("nodetool describecluster" in str(found.fix)) is not ok

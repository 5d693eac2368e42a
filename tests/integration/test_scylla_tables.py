"""Tables in a shared keyspace: what somebody else made is refused, never used or altered."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from headrace.cli.scylla import ScyllaEngine
from headrace.loadtest.servers import Server
from headrace.registry.catalog import Group, KeyField, Schema, ValueField
from headrace.registry.cql import GC_GRACE_S
from headrace.registry.errors import OnlineStoreMissing
from headrace.sync.errors import StoreSchemaMismatch

KEYSPACE = "scylla_tables"


def group(name: str, feature_type: str = "Object") -> Group:
    return Group(
        id=1,
        name=name,
        feature_type="Object" if feature_type == "Object" else "History",
        owner="o",
        keys=(KeyField(name="room", type="Text"), KeyField(name="seat", type="Integer")),
        schemas=(Schema(ordinal=1, fields=(ValueField(id=1, name="level", type="Long"),)),),
    )


@pytest.fixture
async def engine(cassandra_server: Server) -> AsyncGenerator[ScyllaEngine]:
    url = f"scylla://{cassandra_server.host}:{cassandra_server.port}/{KEYSPACE}?replication=1"
    opened = await ScyllaEngine.open(url, create=True)
    yield opened
    await opened.close()


async def test_a_table_that_somebody_else_made_is_refused(engine: ScyllaEngine) -> None:
    await engine.session.query(
        f"CREATE TABLE {KEYSPACE}.live__foreign (room text PRIMARY KEY, record text)"
    )
    with pytest.raises(StoreSchemaMismatch, match="it was made by something else"):
        await engine.table_admin().create([group("live::foreign")])
    rows = await engine.session.query(
        "SELECT column_name FROM system_schema.columns "
        f"WHERE keyspace_name = '{KEYSPACE}' AND table_name = 'live__foreign'"
    )
    assert sorted(row.column_value("column_name") for row in rows.all()) == ["record", "room"]


async def test_markers_outlive_every_command_that_may_be_replayed(engine: ScyllaEngine) -> None:
    """Semantics 4, for both kinds of table; the keys are columns that cqlsh shows as they are."""
    await engine.table_admin().create([group("live::seats"), group("live::visits", "History")])
    for table in ("live__seats", "live__visits"):
        found = await engine.session.query(
            "SELECT gc_grace_seconds FROM system_schema.tables "
            f"WHERE keyspace_name = '{KEYSPACE}' AND table_name = '{table}'"
        )
        assert found.first().column_value("gc_grace_seconds") == GC_GRACE_S
    columns = await engine.session.query(
        "SELECT column_name, type FROM system_schema.columns "
        f"WHERE keyspace_name = '{KEYSPACE}' AND table_name = 'live__visits'"
    )
    types = dict(row.as_tuple() for row in columns.all())
    assert (types["room"], types["seat"], types["event_time"]) == ("text", "int", "bigint")


async def test_a_keyspace_that_was_never_applied_to_is_missing(cassandra_server: Server) -> None:
    url = f"scylla://{cassandra_server.host}:{cassandra_server.port}/never_made?replication=1"
    with pytest.raises(OnlineStoreMissing, match=r"`never_made` .* `headrace apply` makes it"):
        await ScyllaEngine.open(url)

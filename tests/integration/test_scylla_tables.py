"""Tables in a shared keyspace: what somebody else made is refused, never used or altered."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import msgspec
import pytest

from headrace.cli.scylla import ScyllaEngine
from headrace.codec import encode_commands
from headrace.loadtest.servers import Server
from headrace.registry.catalog import (
    CatalogDocument,
    Group,
    KeyField,
    Schema,
    ValueField,
    encode_document,
)
from headrace.registry.cql import GC_GRACE_S, KEY_COLUMN_TYPES
from headrace.registry.errors import OnlineStoreMissing
from headrace.registry.watch import compile_document
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


async def test_rows_are_kept_together_by_levelled_compaction(engine: ScyllaEngine) -> None:
    groups = [group("live::level_object"), group("live::level_history", "History")]
    await engine.table_admin().create(groups)
    for table in ("live__level_object", "live__level_history"):
        found = await engine.session.query(
            "SELECT compaction FROM system_schema.tables "
            f"WHERE keyspace_name = '{KEYSPACE}' AND table_name = '{table}'"
        )
        compaction = found.first().column_value("compaction")
        assert compaction["class"].endswith("LeveledCompactionStrategy")


async def test_keys_of_every_type_are_read_as_they_are_in_plain_cql(engine: ScyllaEngine) -> None:
    """What cqlsh shows: no codec of ours stands between a row and whoever looks for it."""
    keys: dict[str, tuple[str, str, int | str]] = {
        "name": ("Text", "text", "żółw 🐢"),
        "seat": ("Integer", "int", -(1 << 31)),
        "user_id": ("Long", "bigint", (1 << 63) - 1),
    }
    assert {kind for kind, _, _ in keys.values()} == set(KEY_COLUMN_TYPES)
    every_type = Group(
        id=1,
        name="live::every_type",
        feature_type="Object",
        owner="o",
        keys=tuple(KeyField(name=name, type=kind) for name, (kind, _, _) in keys.items()),
        schemas=(
            Schema(ordinal=1, fields=(ValueField(id=1, name="level", type="Long", default=0),)),
        ),
    )
    await engine.table_admin().create([every_type])
    document = CatalogDocument(
        generation=1, published_at_ms=0, next_group_id=2, groups=(every_type,)
    )
    catalog = compile_document(encode_document(document))[0]
    command = {
        "feature_name": every_type.name,
        "method": "UPDATE",
        "keys": {name: value for name, (_, _, value) in keys.items()},
        "values": {"level": 7, "_last_updated_at_ms": 1_000},
    }
    batch = encode_commands(catalog, [msgspec.json.encode(command)], now_ms=1_000)
    await engine.writer().store(batch, catalog, now_ms=1_000)
    select = f"SELECT {', '.join(keys)} FROM {KEYSPACE}.live__every_type"
    found = await engine.session.query(select)
    assert found.first().as_tuple() == tuple(value for _, _, value in keys.values())
    columns = await engine.session.query(
        "SELECT column_name, type FROM system_schema.columns "
        f"WHERE keyspace_name = '{KEYSPACE}' AND table_name = 'live__every_type'"
    )
    types = dict(row.as_tuple() for row in columns.all())
    assert {name: types[name] for name in keys} == {name: cql for name, (_, cql, _) in keys.items()}


async def test_a_keyspace_that_was_never_applied_to_is_missing(cassandra_server: Server) -> None:
    url = f"scylla://{cassandra_server.host}:{cassandra_server.port}/never_made?replication=1"
    with pytest.raises(OnlineStoreMissing, match=r"`never_made` .* `headrace apply` makes it"):
        await ScyllaEngine.open(url)

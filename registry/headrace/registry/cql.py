"""CQL text of each group's table, for the adapters that write and the one that reads.

Only the CQL that ScyllaDB and Cassandra share. Object tables hold a record cell and a map of patch
cells, History tables one event cell a row, newest first (`docs/ARCHITECTURE.md`). Identifiers come
from names that `check` has proved to be plain, tables are named with their keyspace, values are
always bound and never written into text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from headrace.registry.catalog import Group
from headrace.registry.physical import quoted, table_name

KEY_COLUMN_TYPES: Final = {"Text": "text", "Integer": "int", "Long": "bigint"}
GC_GRACE_S: Final = 10 * 24 * 3600
"""`delete_grace`: markers outlive every command that could still be replayed (semantics 4)."""

CATALOG: Final = "headrace_catalog"
STATE: Final = "headrace_sync_state"
"""Tables of our own; a group's table has `__` in its name, so neither can be one."""


def columns(group: Group) -> dict[str, str]:
    """Column name → CQL type of the group's table, as `system_schema.columns` spells it."""
    keys = {key.name: KEY_COLUMN_TYPES[key.type] for key in group.keys}
    if group.feature_type == "Object":
        return keys | {"record": "blob", "patch": "map<smallint, blob>"}
    return keys | {"event_time": "bigint", "event_id": "blob", "event": "blob"}


def create_own_tables(keyspace: str) -> dict[str, str]:
    """How each table of our own is made, by its name: the catalog's and the sync state's."""
    create = f"CREATE TABLE IF NOT EXISTS {keyspace}"
    return {
        CATALOG: f"{create}.{CATALOG} (name text PRIMARY KEY, generation bigint, document blob)",
        STATE: f"{create}.{STATE} (name text PRIMARY KEY, value blob)",
    }


def delete_state(keyspace: str) -> str:
    """Binds the name of a sync state."""
    return f"DELETE FROM {keyspace}.{STATE} WHERE name = ?"


def create_table(keyspace: str, group: Group) -> str:
    """The group's table. Levelled compaction: a row is rewritten often and read whole."""
    listed = ", ".join(f"{quoted(name)} {kind}" for name, kind in columns(group).items())
    keys = ", ".join(quoted(key.name) for key in group.keys)
    clustering = "" if group.feature_type == "Object" else ", event_time, event_id"
    order = (
        ""
        if group.feature_type == "Object"
        else "CLUSTERING ORDER BY (event_time DESC, event_id DESC) AND "
    )
    return (
        f"CREATE TABLE IF NOT EXISTS {keyspace}.{table_name(group.name)} "
        f"({listed}, PRIMARY KEY (({keys}){clustering})) WITH {order}"
        f"gc_grace_seconds = {GC_GRACE_S} "
        "AND compaction = {'class': 'LeveledCompactionStrategy'}"
    )


class RowStatements:
    """CQL of one group's rows, from its name and the names of its key fields in schema order."""

    def __init__(self, keyspace: str, group: str, keys: Sequence[str]) -> None:
        table = f"{keyspace}.{table_name(group)}"
        by_key = " AND ".join(f"{quoted(name)} = ?" for name in keys)
        using = f"{table} USING TIMESTAMP ? AND TTL ?"
        # UPDATE, not INSERT: a row lives only by its cells, without a marker of its own.
        self.put_record = f"UPDATE {using} SET record = ? WHERE {by_key}"
        """Binds timestamp, ttl, record cell, keys."""
        self.put_patch = f"UPDATE {using} SET patch[?] = ? WHERE {by_key}"
        """Binds timestamp, ttl, field id, patch cell, keys."""
        self.put_event = (
            f"UPDATE {using} SET event = ? WHERE {by_key} AND event_time = ? AND event_id = ?"
        )
        """Binds timestamp, ttl, event cell, keys, event time in ms, event id (8 bytes BE)."""
        self.delete_key = f"DELETE FROM {table} USING TIMESTAMP ? WHERE {by_key}"
        """Binds timestamp, keys: the row of an Object, the whole partition of a History."""
        self.select_object = f"SELECT record, patch FROM {table} WHERE {by_key}"
        """Binds keys; answers the record cell and the patch cells by field id."""
        self.select_events = f"SELECT event FROM {table} WHERE {by_key} LIMIT ?"
        """Binds keys and a limit; answers event cells, newest first."""

"""Whether all nodes of a cluster have the same schema.

Each node tells its own version (`system.local`) and those it heard of its peers (`system.peers`).
The driver waits for agreement after each change, but only of the nodes that it sees as up, and goes
on without it when that takes too long.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable

from headrace.sync.errors import StoreSchemaDisagreement
from headrace.sync.stores.scylla import Statements

LOCAL = "system.local"
PEERS = "system.peers"
LOOKS_MAX = 50
LOOK_EVERY_S = 0.2
"""Ten seconds in all."""


class SchemaVersions:
    """The schema version of each node, as far as `look` has seen it."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements
        self._versions: dict[str, str] = {}
        self._tables = [PEERS, LOCAL]
        self.node_count = 1

    async def look(self) -> None:
        """Ask once. Either question may go to another node, and none lists itself as a peer.

        So the one that listed its peers may be missing until a later look tells of it. The order
        alternates: nodes are asked in turn, and of two the same would always answer the same.
        """
        for table in self._tables:
            told = await self._told_by(table)
            self._versions |= told
            if table == PEERS:
                self.node_count = len(told) + 1
        self._tables.reverse()

    @property
    def complete(self) -> bool:
        """Every node was seen."""
        return len(self._versions) >= self.node_count

    @property
    def agreed(self) -> bool:
        return self.complete and len(set(self._versions.values())) == 1

    def __str__(self) -> str:
        nodes: defaultdict[str, list[str]] = defaultdict(list)
        for node, version in sorted(self._versions.items()):
            nodes[version].append(node)
        versions = (f"`{version}` at {', '.join(at)}" for version, at in nodes.items())
        return f"{len(self._versions)} of {self.node_count} nodes seen: {'; '.join(versions)}"

    async def _told_by(self, table: str) -> dict[str, str]:
        """Version by host id; a peer that is only half known yet has neither."""
        result = await self._statements.run(f"SELECT host_id, schema_version FROM {table}")
        rows = (row.as_tuple() for row in result.all())
        return {str(node): str(version) for node, version in rows if node and version}


async def wait_for_agreement(
    statements: Statements, *, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
) -> None:
    """Return once all nodes have one schema; raises `StoreSchemaDisagreement` after 10 seconds."""
    seen = SchemaVersions(statements)
    for look in range(LOOKS_MAX):
        if look > 0:
            await sleep(LOOK_EVERY_S)
        await seen.look()
        if seen.agreed:
            return
    raise StoreSchemaDisagreement(
        f"the nodes of the online store have no common schema after {LOOKS_MAX * LOOK_EVERY_S:g} s "
        f"({seen}); nothing is published: start the nodes that are down, look at `nodetool "
        "describecluster`, then run `headrace apply` again"
    )

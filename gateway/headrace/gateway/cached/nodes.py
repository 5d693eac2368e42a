"""What reading asks of a cache, whether its nodes are named one by one or are a Redis Cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from headrace.gateway.cached.scripts import Script
from headrace.registry.cache_url import CacheNode


class KeyPlacement(Protocol):
    """Where a key is kept: in a node's place, or in a hash slot."""

    def node(self, key: bytes) -> int:
        """The node or the slot."""
        ...

    def block_key(self, key: bytes) -> bytes:
        """The cache key of a key's block."""
        ...

    def places(self, keys: list[bytes]) -> list[tuple[int, bytes, bytes]]:
        """Node, block key and lease key of many keys, in the same order."""
        ...


class NodeState(Protocol):
    """One node, and whether it is left for now."""

    @property
    def node(self) -> CacheNode: ...

    @property
    def up(self) -> bool: ...

    @property
    def problem(self) -> str | None:
        """Why the node is left; None while it is up."""
        ...

    @property
    def opened(self) -> int:
        """How often it was left."""
        ...


class CacheNodes(Protocol):
    """All nodes; `node` is what the placement says, never a position in `nodes`."""

    @property
    def nodes(self) -> Sequence[NodeState]: ...

    @property
    def scripts_refused(self) -> int:
        """Replies to scripts that were errors."""
        ...

    def start(self) -> None:
        """Begin to connect."""
        ...

    async def stop(self) -> None:
        """Leave every node."""
        ...

    def tried(self) -> bool:
        """Whether a first attempt to reach the nodes has ended."""
        ...

    def keeper(self, node: int) -> NodeState | None:
        """Who keeps what the placement's number stands for; None when nobody is known to."""
        ...

    def reaches(self, node: int) -> bool:
        """Whether a node is asked now."""
        ...

    async def run_script(
        self, node: int, script: Script, keys: list[bytes], arguments: list[bytes]
    ) -> list[bytes | int | str | None] | None:
        """The items of the script's reply; None when the node cannot be asked or refused."""
        ...

    async def delete(self, node: int, key: bytes) -> None:
        """Delete one key, if the node can be asked."""
        ...


class ClusteredBlocks(CacheNodes, Protocol):
    """A Redis Cluster, which is asked for blocks here and not by the codec."""

    @property
    def hits(self) -> int:
        """Blocks that nodes gave."""
        ...

    async def blocks(self, keys: Sequence[tuple[int, bytes]]) -> list[bytes | None]:
        """What stands under each (slot, cache key); None for nothing and for no answer."""
        ...

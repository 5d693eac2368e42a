"""A Redis Cluster of real Valkey nodes on this machine, whose slots can be moved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from headrace.loadtest.servers import Server, start_valkey
from headrace.loadtest.servers.process import free_port
from headrace.registry.cache_slots import SLOTS

MASTERS = 3
MIGRATE_LIMIT_MS = 2_000


class ValkeyCluster:
    """Masters that share the slots evenly, in order, and the replicas of the first after them."""

    def __init__(self, servers: list[Server], clients: list[Any], ids: list[str]) -> None:
        self.servers = servers
        self.clients = clients
        self._ids = ids

    @property
    def url(self) -> str:
        """Without an epoch; one node is enough to find the others."""
        return f"redis://{self.servers[0].host}:{self.servers[0].port}/0?cluster=true"

    async def owner(self, slot: int) -> int:
        """Position of the node that has a slot, as the nodes agree on it."""
        async with asyncio.timeout(20):
            while True:
                told = {await self._owner_by(client, slot) for client in self.clients}
                if len(told) == 1 and (owner := told.pop()) is not None:
                    return owner
                await asyncio.sleep(0.02)

    async def fail_over(self, position: int) -> None:
        """Let a replica take its master's place, in step with it, while both live."""
        await self.clients[position].execute_command("CLUSTER", "FAILOVER")
        await self.until_master(position)

    async def is_master(self, position: int) -> bool:
        """Whether a node has, or had when it was last told, a master's place."""
        return bool((await self.clients[position].info("replication"))["role"] == "master")

    async def until_follows(self, position: int) -> None:
        """Wait until a node is a replica that is in step."""
        await _until_replication(self.clients[position], "master_link_status", "up")

    async def until_master(self, position: int) -> None:
        """Wait until a node has taken its master's place."""
        await _until_replication(self.clients[position], "role", "master")

    async def begin_move(self, slot: int, target: int) -> None:
        """From now on the source sends askers on for keys that it has not."""
        source = await self.owner(slot)
        await self._set_slot(target, slot, "IMPORTING", self._ids[source])
        await self._set_slot(source, slot, "MIGRATING", self._ids[target])

    async def move_keys(self, slot: int, target: int) -> int:
        """Take all keys of a slot along; how many there were."""
        source, moved = await self.owner(slot), 0
        host, port = self.servers[target].host, self.servers[target].port
        while keys := await self.clients[source].execute_command(
            "CLUSTER", "GETKEYSINSLOT", slot, 100
        ):
            command = ("MIGRATE", host, port, "", 0, MIGRATE_LIMIT_MS, "KEYS", *keys)
            await self.clients[source].execute_command(*command)
            moved += len(keys)
        return moved

    async def end_move(self, slot: int, target: int) -> None:
        """The target owns the slot, and all know it."""
        others = [position for position in range(len(self.clients)) if position != target]
        for position in (target, *others):
            await self._set_slot(position, slot, "NODE", self._ids[target])
        assert await self.owner(slot) == target

    async def _set_slot(self, position: int, slot: int, state: str, node_id: str) -> None:
        await self.clients[position].execute_command("CLUSTER SETSLOT", slot, state, node_id)

    async def _owner_by(self, client: Any, slot: int) -> int | None:
        spans = await client.execute_command("CLUSTER", "SLOTS")
        ports = [owner[1] for first, last, owner, *_ in spans if first <= slot <= last]
        known = [server.port for server in self.servers]
        return known.index(ports[0]) if ports else None


@contextmanager
def started_cluster(folder: Path, *, replicas: int = 0) -> Generator[list[Server]]:
    """Nodes that have their slots and agree on it; stopped at the end. Outside of any loop."""
    with ExitStack() as stack:
        servers: list[Server] = []
        for number in range(MASTERS + replicas):
            options = ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
            options += ["--cluster-require-full-coverage", "no", "--cluster-node-timeout", "2000"]
            options += ["--repl-diskless-sync-delay", "0"]
            servers.append(start_valkey(folder / f"node-{number}", options=options))
            stack.callback(servers[-1].stop)
        asyncio.run(_share_slots(servers))
        yield servers


@asynccontextmanager
async def open_valkey_cluster(servers: list[Server]) -> AsyncGenerator[ValkeyCluster]:
    """Clients of every node."""
    async with AsyncExitStack() as stack:
        clients = [_client(server) for server in servers]
        for client in clients:
            stack.push_async_callback(client.aclose)
        ids = [(await client.execute_command("CLUSTER MYID")).decode() for client in clients]
        yield ValkeyCluster(servers, clients, ids)


def _client(server: Server) -> Any:
    return Redis(host=server.host, port=server.port)


async def _share_slots(servers: list[Server]) -> None:
    bounds = [SLOTS * position // MASTERS for position in range(MASTERS + 1)]
    async with AsyncExitStack() as stack:
        clients = [_client(server) for server in servers]
        for client in clients:
            stack.push_async_callback(client.aclose)
        for client, first, end in zip(clients, bounds, bounds[1:], strict=False):
            await client.execute_command("CLUSTER ADDSLOTSRANGE", first, end - 1)
        for server, client in zip(servers[1:], clients[1:], strict=True):
            bus = (await client.config_get("cluster-port"))["cluster-port"]
            await clients[0].execute_command("CLUSTER MEET", server.host, server.port, bus)
        async with asyncio.timeout(30):
            while True:
                if all([await _sees_all(client) for client in clients]):
                    break
                await asyncio.sleep(0.05)
        for client in clients[MASTERS:]:
            await _follow(client, await clients[0].execute_command("CLUSTER MYID"))


async def _follow(client: Any, master_id: bytes) -> None:
    """Become a replica, and have everything that the master has."""
    await client.execute_command("CLUSTER", "REPLICATE", master_id)
    await _until_replication(client, "master_link_status", "up")


async def _until_replication(client: Any, name: str, wanted: str) -> None:
    async with asyncio.timeout(60):
        while True:
            if (await client.info("replication")).get(name) == wanted:
                return
            await asyncio.sleep(0.02)


async def _sees_all(client: Any) -> bool:
    about = await client.execute_command("CLUSTER INFO")
    spans = await client.execute_command("CLUSTER", "SLOTS")
    return about["cluster_state"] == "ok" and len(spans) == MASTERS

"""A store that fails in every way we know: a row is right or UNAVAILABLE, and it recovers (R5).

Between the gateway's driver and a real Cassandra stands the fault proxy, which knows CQL frames.
There is no cache: whatever is answered came through the proxy. Bytes are not garbled here: CQL has
no checksum of its own, and the driver ends the process over a frame that it cannot follow; that a
cell whose bytes changed is CORRUPT is tested where cells are made.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import pytest
from store_reads import USERS, Gateway, command, open_gateway, open_store

from headrace.loadtest.fault_proxy import (
    BlackHole,
    CutMidReply,
    Delay,
    Fault,
    FaultProxy,
    Pass,
    Refuse,
    SlowDrip,
    cql_reply_end,
)
from headrace.loadtest.servers import Server

WRITTEN, ABSENT = range(20), range(20, 24)
DEADLINE_MS = 100
REQUESTS = 12
KEYS = 5
RECOVERY_LIMIT_S = 30.0


@dataclass
class Scene:
    """A gateway whose every read goes through the proxy."""

    gateway: Gateway
    proxy: FaultProxy
    draw: random.Random = field(default_factory=lambda: random.Random(11))

    async def read(self, users: list[int]) -> Counter[str]:
        """Statuses of the rows of one request; each row is right, or says that it is not there."""
        body = {"reads": [{"feature_group": USERS, "keys": {"user_id": users}}]}
        code, answer = await self.gateway.read(body | {"deadline_ms": DEADLINE_MS})
        if code != 200:
            assert (code, answer["code"]) == (503, "UNAVAILABLE")
            return Counter({"UNAVAILABLE": len(users)})
        (result,) = answer["results"]
        statuses = {each["row"]: each["status"] for each in result["statuses"]}
        for row, (found, user) in enumerate(zip(result["rows"], users, strict=True)):
            match statuses.get(row, "OK"):
                case "UNAVAILABLE":
                    assert found == [None, None]
                case "MISSING":
                    assert (user in ABSENT, found) == (True, [7, ""])
                case "OK":
                    assert found == [user, f"user {user}"]
                case other:
                    raise AssertionError(f"row {row} is {other}")
        return Counter(statuses.get(row, "OK") for row in range(len(users)))

    async def load(self) -> Counter[str]:
        """Requests at once, of keys with and without a row."""
        wanted = [self.draw.sample([*WRITTEN, *ABSENT], KEYS) for _ in range(REQUESTS)]
        counts = await asyncio.gather(*map(self.read, wanted))
        return sum(counts, Counter())

    async def recovered(self) -> None:
        """Wait until all is answered in full, through the same driver."""
        async with asyncio.timeout(RECOVERY_LIMIT_S):
            while (await self.load())["UNAVAILABLE"]:
                pass


@pytest.fixture
async def scene(cassandra_server: Server) -> AsyncGenerator[Scene]:
    async with (
        FaultProxy(cassandra_server.host, cassandra_server.port, framing=cql_reply_end) as proxy,
        open_store(cassandra_server, port=proxy.port) as store,
        open_gateway(store, None) as gateway,
    ):
        await store.write(*(command(user, level=user, name=f"user {user}") for user in WRITTEN))
        yield Scene(gateway, proxy)
        proxy.fault = Pass()


@pytest.mark.parametrize(
    "fault",
    [Refuse(), BlackHole(), Delay(ms=200), CutMidReply(), SlowDrip(bytes_per_second=500)],
    ids=lambda fault: type(fault).__name__,
)
async def test_a_row_is_right_or_unavailable_and_the_store_is_found_again(
    scene: Scene, fault: Fault
) -> None:
    assert (await scene.load())["UNAVAILABLE"] == 0
    scene.proxy.fault = fault
    during = Counter[str]()
    for _ in range(3):
        during += await scene.load()
    assert during["UNAVAILABLE"] > 0
    scene.proxy.fault = Pass()
    await scene.recovered()

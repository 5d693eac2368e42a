"""What goes wrong on the way of a read leaves nobody waiting for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, cast

import pytest

from headrace.codec import Catalog, Placement
from headrace.gateway.cached import cluster
from headrace.gateway.cached.cluster import ClusterLinks
from headrace.gateway.cached.flights import Flight, Flights
from headrace.gateway.cached.nodes import CacheNodes
from headrace.gateway.cached.scripts import FILL, OBSERVE, TAKE_LEASES, Script
from headrace.gateway.ports import Cells, Unreachable
from headrace.registry.cache_url import CacheUrl

KEY = b"\0\0\0\1key"
CATALOG = cast("Catalog", None)


class Nodes:
    """One node that leases everything, but whose client fails at one script."""

    def __init__(self, failing: Script | None = None) -> None:
        self._failing = failing

    def reaches(self, node: int) -> bool:
        return node == 0

    async def run_script(
        self, _node: int, script: Script, _keys: list[bytes], _arguments: list[bytes]
    ) -> list[bytes | int | str | None]:
        if script is self._failing:
            raise AttributeError("'bytes' object has no attribute 'get'")
        return [1]


class Rows:
    """A store that answers, or is not one."""

    def __init__(self, *, failing: bool = False) -> None:
        self._failing = failing

    async def fetch(
        self, catalog: Catalog, wanted: Sequence[tuple[bytes, int | None]], *, limit_ms: int
    ) -> list[Cells | Unreachable]:
        assert catalog is CATALOG
        assert limit_ms > 0
        if self._failing:
            raise RuntimeError("no store")
        return [Cells([]) for _ in wanted]


class Scene:
    """Flights, and how the work that they spawned ended."""

    def __init__(self, nodes: Nodes, rows: Rows) -> None:
        self.tasks: list[asyncio.Task[None]] = []
        self.flights = Flights(
            rows, cast("CacheNodes", nodes), Placement(["any:1"], epoch=1), self._spawn
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.create_task(work))

    def board(self) -> Flight:
        due_s = asyncio.get_running_loop().time() + 60
        wanted = [(0, KEY, None, 1_000)]
        ((_, flight, _),) = self.flights.board(CATALOG, wanted, due_s=due_s, alone=False)
        return flight

    async def ended(self) -> list[BaseException | None]:
        return await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.mark.parametrize(
    "scene",
    [lambda: Scene(Nodes(TAKE_LEASES), Rows()), lambda: Scene(Nodes(), Rows(failing=True))],
    ids=["cache", "store"],
)
async def test_a_read_that_fails_is_unreachable_for_all_who_share_it_and_the_next_flies_anew(
    scene: Callable[[], Scene],
) -> None:
    opened = scene()
    flight, another = opened.board(), opened.board()
    assert another is flight
    async with asyncio.timeout(10):
        await asyncio.gather(flight.landed(), flight.settled())
    assert [type(error) for error in await opened.ended()] != [type(None)]
    assert isinstance(flight.outcome, Unreachable)
    assert opened.flights.under_way == 0
    assert opened.board() is not flight
    await opened.ended()


async def test_a_fill_that_fails_proves_nothing_and_ends() -> None:
    opened = Scene(Nodes(FILL), Rows())
    flight = opened.board()
    await flight.landed()
    assert flight.confirmed is None
    opened.flights.offer([(flight, b"block", 1_000)])
    async with asyncio.timeout(10):
        await flight.settled()
    await opened.ended()
    assert flight.confirmed is False
    assert opened.flights.under_way == 0


async def _fails() -> None:
    raise AttributeError("'NoneType' object has no attribute 'get'")


async def test_a_cluster_is_asked_for_its_map_again_whatever_the_client_raised(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cluster, "PAUSE_START_S", 0.0)
    monkeypatch.setattr(cluster, "MAP_INTERVAL_S", 0.0)
    monkeypatch.setattr(cluster, "TELL_INTERVAL_S", 0.0)
    links = ClusterLinks(CacheUrl.parse("redis://127.0.0.1:1/0?cluster=true"))
    asked: list[str] = []

    def failing(name: str) -> Callable[..., Awaitable[None]]:
        def fail(*_: object) -> Awaitable[None]:
            asked.append(name)
            return _fails()

        return fail

    monkeypatch.setattr(links, "_fetch_map", failing("map"))
    monkeypatch.setattr(links, "_is_told", failing("told"))
    await links.run_script(1, OBSERVE, [b"block", b"lease"], [b"seen"])
    links.start()
    async with asyncio.timeout(30):
        while min(asked.count("map"), asked.count("told")) < 3:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0)
    await links.stop()
    said = {record.message for record in caplog.records if record.levelname == "ERROR"}
    assert len(said) == 2

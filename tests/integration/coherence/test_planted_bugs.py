"""The coherence checker is trusted because it catches what is built wrongly, and only that."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from coherence_scenarios import SCENARIOS, Play, Scenario, two_generations, two_generations_design
from coherent_cluster import Design, open_cluster, open_engine
from planted_bugs import PLANTED, LonelyFlights, PlantedBug, lonely

from headrace.gateway.cached import link
from headrace.loadtest.servers import Server, start_valkey

SEED = 20_231
"""One seed for all: what is planted must be caught in this run, not in some run."""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    started = start_valkey(tmp_path_factory.mktemp("planted"))
    yield started
    started.stop()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loaded machine must not cut a gateway off the cache: the scenarios play in it."""
    monkeypatch.setattr(link, "REPLY_LIMIT_S", 5.0)


async def played(cassandra: Server, node: Server, scenario: Scenario, design: Design) -> Play:
    """The scenario, played to its end and audited."""
    play = Play(design)
    async with (
        open_engine(cassandra) as engine,
        open_cluster(engine, node, seed=SEED, design=play.design) as cluster,
    ):
        play.cluster = cluster
        await scenario(play)
        await cluster.settled()
    return play


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
async def test_the_checker_finds_nothing_in_the_product(
    cassandra_server: Server, node: Server, scenario: Scenario
) -> None:
    design = two_generations_design() if scenario is two_generations else Design()
    play = await played(cassandra_server, node, scenario, design)
    assert play.cluster.verdict(SEED) == ""
    assert play.cluster.checker.counts["reads"] > 0


async def test_a_last_try_alone_with_the_store_keeps_older_fills_out(
    cassandra_server: Server, node: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coherence_scenarios import seen_before_invalidation

    lonely(LonelyFlights)(monkeypatch)
    play = await played(cassandra_server, node, seen_before_invalidation, Design())
    assert play.cluster.verdict(SEED) == ""


@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: bug.name)
async def test_a_planted_bug_is_caught(
    cassandra_server: Server, node: Server, monkeypatch: pytest.MonkeyPatch, bug: PlantedBug
) -> None:
    bug.patch(monkeypatch)
    play = await played(cassandra_server, node, bug.scenario, bug.design)
    broken = {violation.rule for violation in play.cluster.checker.violations}
    assert broken & bug.rules, f"seed {SEED}: {broken}\n{play.cluster.recorder.about(play.key)}"

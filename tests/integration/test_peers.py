"""What the peers bench compares gives equal answers, each in its own environment."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Generator
from pathlib import Path

import pytest

from headrace.loadtest.feature_data import HISTORY, OBJECT, WIDE
from headrace.loadtest.open_loop import Exchange, write_exchanges
from headrace.loadtest.peers import check, rows
from headrace.loadtest.peers.adapters import Ask, post
from headrace.loadtest.peers.rows import Size, Values
from headrace.loadtest.peers.servers import FIRST_ASK, Live, PeerFailed, serving
from headrace.loadtest.peers.table import CONTROLS, PEERS, Peer, Place, control_exchanges
from headrace.loadtest.servers import Server, start_valkey
from headrace.loadtest.servers.process import ask, free_port
from headrace.loadtest.wrk import Gateway

SIZE = Size(objects=120, wide=3, histories=4)
WRONG = ((OBJECT, 7, 1), (WIDE, 1, "KR"), (HISTORY, 2, [1_700_000_000_000]))
"""A group, a key, and what its first value, or its newest event, is not."""
Truth = dict[str, dict[int, Values]]
PLAIN = [peer for peer in PEERS if peer.name in ("FastAPI", "FastAPI, tuned", "Litestar")]


@dataclasses.dataclass
class Stage:
    """Valkey with the plain rows in it."""

    valkey: Server
    place: Place
    truth: Truth


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stage]:
    folder = tmp_path_factory.mktemp("peers")
    truth = rows.truth(rows.commands(SIZE))
    valkey = start_valkey(folder / "valkey")
    try:
        rows.write_plain_rows(truth, valkey.port)
        settings = folder / "plain.json"
        settings.write_text(json.dumps(rows.plain_settings(valkey.port)))
        yield Stage(valkey, Place(0, valkey.port, settings, "", Path()), truth)
    finally:
        valkey.stop()


def checked(stage: Stage, peer: Peer, gateway: Gateway, truth: Truth) -> int:
    """Values compared by the very check that the bench makes before it times anything."""
    live = Live(Path(), stage.valkey, stage.valkey, stage.place, {peer.name: gateway}, truth)
    return check.check_equal(live, [peer], lambda _: None)[peer.name]


@pytest.mark.parametrize("peer", PLAIN, ids=lambda peer: peer.name)
def test_a_peer_answers_every_row_as_the_commands_left_it_and_one_other_value_is_noticed(
    stage: Stage, peer: Peer
) -> None:
    every_value = 120 * 20 + 3 * 250 + 4 * 50 * 4
    among_absent = 2 * 20
    with serving(peer, stage.place._replace(port=free_port())) as gateway:
        assert checked(stage, peer, gateway, stage.truth) == every_value + among_absent
        for group, user_id, wrong in WRONG:
            other = {name: dict(members) for name, members in stage.truth.items()}
            other[group][user_id] = [wrong, *other[group][user_id][1:]]
            with pytest.raises(PeerFailed, match=f"{group} {user_id}"):
                checked(stage, peer, gateway, other)


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_a_control_answers_what_it_was_told_and_asks_redis_only_if_it_is_the_one_that_does(
    stage: Stage, control: Peer
) -> None:
    asks = [FIRST_ASK, *(Ask(OBJECT, [7, 999_001, number]) for number in range(20))]
    bodies = [control.adapter.body(each) for each in asks]
    told = [Exchange(body, b'{"answer":%d}' % number) for number, body in enumerate(bodies)]
    write_exchanges(control_exchanges(stage.place), told)
    with serving(control, stage.place._replace(port=free_port())) as gateway:
        before = mgets(stage.valkey)
        for body, answer in told:
            assert post(gateway.port, control.adapter, body) == answer
        asked = mgets(stage.valkey) - before
    assert asked == (len(told) if control is CONTROLS[1] else 0)


def mgets(valkey: Server) -> int:
    """How many of these it has answered so far."""
    told = ask(valkey.port, b"INFO commandstats\r\n", answer_bytes=65_536).decode()
    _, _, after = told.partition("cmdstat_mget:calls=")
    return int(after.partition(",")[0] or 0)

"""The peers bench without servers: what is asked, how answers are read, what the page says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.loadtest.feature_data import FIRST_ABSENT, HISTORY, OBJECT, WIDE
from headrace.loadtest.peers import page, plots
from headrace.loadtest.peers.adapters import FEAST_JSON, HEADRACE_JSON, PLAIN_DICTS, Ask
from headrace.loadtest.peers.cells import FULL, MAIN_CELLS, Cell
from headrace.loadtest.peers.rows import Size, types_of
from headrace.loadtest.peers.table import CONTROLS, PEERS

ROW = [1, 2, 3, 4, 5, 6, 7, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5, "a", "b", "c", "d", True, False, True]


def one_round(cpu_us: float) -> dict[str, Any]:
    times = {"p50_ms": 0.1, "p99_ms": 0.2, "p999_ms": 0.3}
    counts = {"requests": 1_000, "seconds": 2.0, "errors": 0, "others_share": 0.01}
    return {**times, **counts, "cpu_us": cpu_us, "redis_cpu_us": 5.0}


def open_round(p99_ms: float | None) -> dict[str, Any]:
    fates = dict.fromkeys(("failed", "wrong", "refused", "unsent"), 0)
    times = {"p50_ms": 0.2, "p99_ms": p99_ms, "p999_ms": p99_ms, "sent_late_p99_ms": 0.05}
    return {**fates, **times, "ahead": True}


def entry(cell: str, peer: str, *cpu_us: float) -> dict[str, Any]:
    rounds = [one_round(each) for each in cpu_us]
    return {"cell": cell, "peer": peer, "bytes": 1_300, "values": 200, "rounds": rounds}


def report() -> dict[str, Any]:
    return {
        "measured_at": "2026-01-02T03:04:05+00:00",
        "commit": "abc",
        "machine": {"cpu": "a processor", "cpus": 2, "system": "Linux", "python": "3.11"},
        "stalls": [
            {"share": 0.0123, "times": 9, "longest_ms": 8.13},
            {"share": 0.0, "times": 0, "longest_ms": 0.0},
        ],
        "stalls_ahead": [
            {"share": 0.0001, "times": 1, "longest_ms": 0.34},
            {"share": 0.0, "times": 0, "longest_ms": 0.0},
        ],
        "method": {
            "rounds": 3,
            "seconds": 2,
            "connections": 16,
            "open_rounds": 2,
            "open_seconds": 1,
            "open_connections": 64,
        },
        "peers": [
            {"name": "Headrace", "tuning": "none", "values_checked": 10, "rss_mib": 50.0},
            {"name": "Feast", "tuning": "much", "values_checked": 10, "rss_mib": 250.0},
        ],
        "controls": [{"name": "control: nothing", "tuning": "does nothing"}],
        "closed": [
            entry("record-v1, 10 keys", "Feast", 1_000, 3_000, 900),
            entry("record-v1, 10 keys", "Headrace", 10, 12, 11),
            entry("record-v1, 100 keys", "Headrace", 40),
            entry("record-v1, 100 keys, 37 % absent", "Headrace", 39),
        ],
        "open": [
            {
                "cell": "record-v1, 10 keys",
                "peer": "Headrace",
                "share": 0.5,
                "rate": 20_000.0,
                "rounds": [open_round(0.4), open_round(0.6)],
            },
            {
                "cell": "record-v1, 10 keys",
                "peer": "Feast",
                "share": 0.5,
                "rate": 200.0,
                "rounds": [open_round(0.4), open_round(None)],
            },
            {
                "cell": "record-v1, 10 keys",
                "peer": "control: nothing",
                "share": 0.5,
                "rate": 20_000.0,
                "rounds": [open_round(0.1)],
            },
        ],
    }


def test_the_cpu_table_has_medians_and_how_many_times_ours_they_are() -> None:
    head, rows = page.cpu_table(report())
    assert head == ["request", "Headrace", "Feast"]
    assert rows == [
        ["record-v1, 10 keys", "11.0", "1,000.0 (90.9×)"],
        ["record-v1, 100 keys", "40.0", "–"],
        ["record-v1, 100 keys, 37 % absent", "39.0", "–"],
    ]


def test_an_answer_that_never_came_is_no_percentile_and_controls_follow_ours() -> None:
    _, rows = page.open_table(report())
    assert [row[:6] for row in rows] == [
        ["record-v1, 10 keys", "Headrace", "50%", "20,000", "0.20", "0.50"],
        ["record-v1, 10 keys", "control: nothing", "–", "20,000", "0.20", "0.10"],
        ["record-v1, 10 keys", "Feast", "50%", "200", "0.20", "endless"],
    ]


@pytest.mark.parametrize("name", sorted(plots.PLOTS))
def test_the_same_results_make_the_same_plot_byte_for_byte(name: str) -> None:
    draw = plots.PLOTS[name]
    first, second = plots.svg(draw(report())), plots.svg(draw(report()))
    assert first == second
    assert ">Headrace<" in first


def test_another_result_makes_another_plot() -> None:
    other = report()
    other["closed"][1]["rounds"][0]["cpu_us"] = 20.0
    draw = plots.PLOTS["peers-cpu"]
    assert plots.svg(draw(other)) != plots.svg(draw(report()))


def test_every_peer_gets_the_same_requests_and_other_ones_each_round() -> None:
    cell, size = Cell(OBJECT, 10, 37), Size()
    assert list(cell.asks(50, 1, size)) == list(cell.asks(50, 1, size))
    assert list(cell.asks(50, 1, size)) != list(cell.asks(50, 2, size))


@pytest.mark.parametrize("percent", [0, 5, 37, 100])
def test_that_share_of_the_keys_has_no_row(percent: int) -> None:
    keys = [key for ask in Cell(OBJECT, 100, percent).asks(200, 1, Size()) for key in ask.user_ids]
    absent = sum(key >= FIRST_ABSENT for key in keys)
    assert absent / len(keys) * 100 == pytest.approx(percent, abs=1.5)


def test_absent_keys_are_not_asked_for_again_in_another_round_or_cell() -> None:
    pools = [
        set(cell.absent_keys(number))
        for cell in FULL.cells
        if cell.absent_percent
        for number in range(FULL.rounds + 1)
    ]
    assert len(set[int]().union(*pools)) == sum(map(len, pools))


def test_the_full_plan_holds_what_was_promised() -> None:
    sizes = {(cell.group, cell.keys) for cell in FULL.cells if not cell.absent_percent}
    assert sizes >= {(group, keys) for group in (OBJECT, WIDE) for keys in (1, 10, 100, 500)}
    assert (HISTORY, 1) in sizes
    assert {cell.absent_percent for cell in FULL.cells} == {0, 5, 37, 100}
    main = [Cell(OBJECT, keys) for keys in (1, 10, 100)]
    assert all(FULL.rounds_of(cell, peer) >= 5 for cell in main for peer in PEERS)
    assert FULL.open_rounds_of(PEERS[0], 0.5) >= 5


def test_controls_run_as_often_as_ours_where_the_promise_is_and_nowhere_else() -> None:
    ours = PEERS[0]
    for control in CONTROLS:
        assert FULL.open_rounds_of(control, 0.5) == FULL.open_rounds_of(ours, 0.5)
        assert FULL.open_seconds_of(control) == FULL.open_seconds_of(ours)
        assert FULL.open_rounds_of(control, 0.25) == FULL.open_rounds_of(control, 0.75) == 0


def test_the_full_plan_takes_less_than_a_dozen_minutes_of_driving() -> None:
    closed_s = sum(
        FULL.seconds_of(cell, peer) * (FULL.rounds_of(cell, peer) + (cell in MAIN_CELLS))
        for cell in FULL.cells
        for peer in PEERS
    )
    opened_s = sum(
        FULL.open_rounds_of(peer, share) * FULL.open_seconds_of(peer)
        for peer in (*PEERS, *CONTROLS)
        for share in FULL.open_shares
        for _ in FULL.open_keys
    )
    assert (closed_s + opened_s) / 60 < 9.5


def test_an_answer_of_ours_is_read_as_rows_with_none_for_a_missing_one() -> None:
    result = {
        "fields": list(types_of(OBJECT)),
        "rows": [[None] * 20, ROW],
        "statuses": [{"row": 0, "status": "MISSING"}],
    }
    answer = json.dumps({"results": [result]}).encode()
    assert HEADRACE_JSON.rows(Ask(OBJECT, [1, 2]), answer, 0) == [None, ROW]


def test_dicts_are_read_in_the_order_of_the_fields_whatever_theirs_is() -> None:
    row = dict(reversed(list(zip(types_of(OBJECT), ROW, strict=True))))
    answer = json.dumps({"results": [{"rows": [row, None]}]}).encode()
    assert PLAIN_DICTS.rows(Ask(OBJECT, [1, 2]), answer, 0) == [ROW, None]


def test_columns_of_feast_are_read_as_rows_in_the_order_of_the_fields() -> None:
    names = ["user_id", *reversed(list(types_of(OBJECT)))]
    columns = [[1, 2], *([value, None] for value in reversed(ROW))]
    answer = {
        "metadata": {"feature_names": names},
        "results": [{"values": column} for column in columns],
    }
    found = FEAST_JSON.rows(Ask(OBJECT, [1, 2]), json.dumps(answer).encode(), 0)
    assert found == [ROW, None]


def test_feast_is_asked_for_each_feature_by_name() -> None:
    body = json.loads(FEAST_JSON.body(Ask(OBJECT, [4, 5])))
    assert body["entities"] == {"user_id": [4, 5]}
    assert body["features"] == [f"record_v1:{name}" for name in types_of(OBJECT)]


def test_the_page_says_how_long_the_machine_itself_stood_still() -> None:
    told = page.stalls(report())
    assert (
        "the CPU of the servers stood still for 1.23% of the time, at most 8.1 ms at once" in told
    )
    assert "the CPU of the load stood still for 0.00% of the time" in told
    assert "to such a process the CPU of the servers stood still for 0.01% of the time" in told


def test_the_page_does_not_say_that_servers_ran_ahead_where_one_did_not() -> None:
    made = report()
    made["open"][1]["rounds"][0]["ahead"] = False
    assert "real-time" in page.stalls(report())
    assert "real-time" not in page.stalls(made)


def test_a_control_is_explained_and_stands_in_no_table_but_that_of_latencies() -> None:
    made = report()
    assert "control: nothing: does nothing" in page.controls(made)
    for table in (page.cpu_table, page.detail_table, page.peers_table):
        assert "control" not in str(table(made))


def test_a_round_with_refusals_counts_for_no_figure_and_is_named() -> None:
    made = report()
    made["closed"][1]["rounds"][0]["errors"] = 900
    made["closed"][2]["rounds"][0]["errors"] = 1
    head, rows = page.cpu_table(page.answered(made))
    assert [row[0] for row in rows] == ["record-v1, 10 keys", "record-v1, 100 keys, 37 % absent"]
    assert rows[0][head.index("Headrace")] == "11.5"
    assert "record-v1, 100 keys of Headrace (0 of 1 kept)" in page.method(made)


def test_big_answers_are_asked_for_over_fewer_connections() -> None:
    ours = PEERS[0]
    assert FULL.connections_of(Cell(OBJECT, 100), ours) == FULL.connections
    assert FULL.connections_of(Cell(OBJECT, 500), ours) < FULL.connections
    assert FULL.connections_of(Cell(WIDE, 100), ours) < FULL.connections

"""How much may wait before a stage of reading, by the speed that it has shown."""

from __future__ import annotations

import pytest

from headrace.codec import Pace

LEAST = 10
UNKNOWN = 40
WINDOW_S, WINDOWS = Pace.WINDOW_S, Pace.WINDOWS
WAIT_S = 0.025
MILLISECOND_NS = 1_000_000
START_S = 128.0


class Stage:
    """A pace and the clock it is asked at."""

    def __init__(self) -> None:
        self.pace = Pace(least=LEAST, unknown=UNKNOWN)
        self.now_s = START_S
        self.end_window()

    def admits(self) -> bool:
        return self.pace.admits(self.now_s, WAIT_S)

    def end_window(self) -> None:
        """Somebody comes while as much is under way as keeps the stage busy."""
        self.pace.begin(LEAST)
        self.admits()
        self.pace.end(LEAST, 0, finished=False)

    def window(self, units: int, *, each_ms: int = 20, finished: bool = True) -> None:
        """A window in which that many units came and left after so long."""
        for _ in range(units):
            self.pace.begin(1)
            self.pace.end(1, each_ms * MILLISECOND_NS, finished=finished)
        self.now_s += WINDOW_S
        self.end_window()

    def room(self) -> int:
        """Units that are let in now until one would wait too long; they leave again."""
        admitted = 0
        while self.admits() and admitted < 100_000:
            self.pace.begin(1)
            admitted += 1
        self.pace.end(admitted, 0, finished=False)
        return admitted


def test_while_the_speed_is_unknown_a_crowd_is_let_in_and_no_more() -> None:
    assert Stage().room() == UNKNOWN


def test_without_a_crowd_no_time_is_looked_at() -> None:
    stage = Stage()
    stage.pace.begin(LEAST - 1)
    assert stage.pace.admits(float("nan"), 0)


def test_as_much_may_wait_as_is_done_in_the_time() -> None:
    stage = Stage()
    stage.window(100)
    assert stage.pace.rate == 100 / WINDOW_S
    assert stage.room() == 100 / WINDOW_S * WAIT_S


def test_what_keeps_a_slow_stage_busy_is_let_in() -> None:
    stage = Stage()
    stage.window(10, each_ms=120)
    assert stage.pace.rate == 10 / WINDOW_S
    assert stage.room() == LEAST


def test_a_window_with_little_to_do_is_no_measure() -> None:
    stage = Stage()
    stage.window(100, each_ms=1)
    assert stage.pace.rate is None


def test_what_was_given_up_was_not_done() -> None:
    stage = Stage()
    stage.window(100, finished=False)
    assert stage.pace.rate == 0
    assert stage.room() == LEAST


def test_a_pause_of_the_stage_lowers_nothing() -> None:
    stage = Stage()
    stage.window(100)
    stage.window(1, each_ms=1_000)
    assert stage.pace.rate == 100 / WINDOW_S


def test_a_second_of_slowness_does() -> None:
    stage = Stage()
    stage.window(100)
    for _ in range(WINDOWS):
        stage.window(20, each_ms=120)
    assert stage.pace.rate == 20 / WINDOW_S


def test_after_a_second_without_load_the_speed_is_unknown_again() -> None:
    stage = Stage()
    stage.window(100)
    for _ in range(WINDOWS):
        stage.window(0)
    assert stage.pace.rate is None
    assert stage.room() == UNKNOWN


def test_after_a_long_silence_the_speed_is_unknown_again() -> None:
    stage = Stage()
    stage.window(100)
    stage.now_s += WINDOW_S * (WINDOWS + 2)
    stage.end_window()
    assert stage.pace.rate is None


def test_a_window_that_ends_late_counts_all_of_its_time() -> None:
    stage = Stage()
    stage.now_s += WINDOW_S
    stage.window(100)
    assert stage.pace.rate == pytest.approx(100 / (2 * WINDOW_S))


def test_a_window_that_nobody_ended_for_long_is_no_measure() -> None:
    stage = Stage()
    stage.now_s += 5 * WINDOW_S
    stage.window(100, each_ms=1_000)
    assert stage.pace.rate is None

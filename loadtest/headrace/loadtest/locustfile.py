"""Locust scenarios against a running gateway that serves the load data.

    python -m headrace.loadtest.load_data .headrace/online     # write the rows once
    headrace serve &
    locust -f loadtest/headrace/loadtest/locustfile.py --host http://127.0.0.1:6566            # web
    locust -f … --headless -u 50 -r 50 -t 60s --host http://127.0.0.1:6566 HundredKeys         # one

Each class is a scenario; name one or several at the end of the command line, or pick them in the
web page (`--class-picker`). When a run ends, `percentiles.csv` and `percentiles.svg` are written
into the folder that `--percentiles` names.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import gevent
import locust
from locust import FastHttpUser, constant, task

from headrace.loadtest import feature_data
from headrace.loadtest.percentiles import Latencies

BODIES = 200
"""Distinct bodies of a scenario, made before the load begins."""


def add_arguments(parser: Any) -> None:
    """The one option of ours."""
    parser.add_argument(
        "--percentiles",
        type=str,
        env_var="LOCUST_PERCENTILES",
        default="",
        help="folder for percentiles.csv and percentiles.svg",
    )


def record_latencies(environment: Any, **_: Any) -> None:
    """Keep every latency: locust's own statistics round them to milliseconds."""
    latencies = Latencies()

    def start(**_: Any) -> None:
        latencies.clear()

    def note(name: str, response_time: float, exception: object, **_: Any) -> None:
        if exception is None:
            latencies.note(name, response_time)

    def stop(**_: Any) -> None:
        if environment.parsed_options.percentiles:
            latencies.write(Path(environment.parsed_options.percentiles))

    # gevent's clock stood still during imports, and `--run-time` would be the shorter for it.
    gevent.sleep(0)
    environment.events.test_start.add_listener(start)
    environment.events.request.add_listener(note)
    environment.events.test_stop.add_listener(stop)


events: Any = locust.events
events.init_command_line_parser.add_listener(add_arguments)
events.init.add_listener(record_latencies)


class FeatureReader(FastHttpUser):
    """One caller with a kept-alive connection; a subclass says what it asks for."""

    abstract = True
    wait_time = constant(0)
    label = ""
    make_body: Callable[[random.Random], bytes]

    def on_start(self) -> None:
        """Take the bodies, the same for every user of a scenario."""
        self._bodies = _bodies(type(self))
        self._order = random.Random(id(self))

    @task
    def read(self) -> None:
        """One request; an answer that is not 200, or lacks its results, is a failure."""
        body = self._order.choice(self._bodies)
        headers = {"content-type": "application/json"}
        with self.client.post(
            "/v1/read", data=body, headers=headers, name=self.label, catch_response=True
        ) as response:
            _judge(response)


@cache
def _bodies(scenario: type[FeatureReader]) -> list[str]:
    source = random.Random(scenario.label)
    make_body = scenario.make_body
    return [make_body(source).decode() for _ in range(BODIES)]


def _judge(response: Any) -> None:
    if response.status_code != 200:
        response.failure(f"status {response.status_code}: {response.text[:200]}")
    elif b'"results":[' not in response.content[:64]:
        response.failure("an answer without results")


class SingleKey(FeatureReader):
    """One row of 20 fields."""

    label = "1 key"
    make_body = partial(feature_data.read_body, 1)


class TenKeys(FeatureReader):
    """Ten rows of 20 fields."""

    label = "10 keys"
    make_body = partial(feature_data.read_body, 10)


class HundredKeys(FeatureReader):
    """A hundred rows of 20 fields."""

    label = "100 keys"
    make_body = partial(feature_data.read_body, 100)


class FiveHundredKeys(FeatureReader):
    """Five hundred rows of 20 fields."""

    label = "500 keys"
    make_body = partial(feature_data.read_body, 500)


class WideHundredKeys(FeatureReader):
    """A hundred rows of 250 fields."""

    label = "100 keys of 250 fields"
    make_body = partial(feature_data.wide_body, 100)


class FivePercentAbsent(FeatureReader):
    """A hundred keys of which 5 % have no row."""

    label = "100 keys, 5 % absent"
    make_body = partial(feature_data.absent_body, 100, 5)


class ThirdAbsent(FeatureReader):
    """A hundred keys of which 37 % have no row."""

    label = "100 keys, 37 % absent"
    make_body = partial(feature_data.absent_body, 100, 37)


class AllAbsent(FeatureReader):
    """A hundred keys without a row."""

    label = "100 keys, 100 % absent"
    make_body = partial(feature_data.absent_body, 100, 100)


class ServiceMix(FeatureReader):
    """What a ranking model asks: one row, thirty peers and ten events, through a service."""

    label = "service, 31 rows and 10 events"
    make_body = partial(feature_data.service_body, 30)


class HistoryOfFifty(FeatureReader):
    """All 50 events of one key."""

    label = "History of 50"
    make_body = staticmethod(feature_data.history_body)

"""Locust scenarios against a running gateway that serves the load data.

    python -m headrace.loadtest.load_data .headrace/online     # write the rows once
    headrace serve &
    locust -f loadtest/headrace/loadtest/locustfile.py --host http://127.0.0.1:6566            # web
    locust -f … --headless -u 50 -r 50 -t 60s --host http://127.0.0.1:6566 HundredKeys         # one

Each class is a scenario; name one or several at the end of the command line, or pick them in the
web page (`--class-picker`).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

from locust import FastHttpUser, constant, task

from headrace.loadtest import feature_data

BODIES = 500
"""Distinct bodies of a scenario, made before the load begins."""


class FeatureReader(FastHttpUser):
    """One caller with a kept-alive connection; a subclass says what it asks for."""

    abstract = True
    wait_time = constant(0)
    label = ""
    make_body: Callable[[random.Random], bytes]

    def on_start(self) -> None:
        """Make the bodies, the same for every user of a scenario."""
        source = random.Random(self.label)
        make_body = type(self).make_body
        self._bodies = [make_body(source).decode() for _ in range(BODIES)]
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


class ServiceMix(FeatureReader):
    """What a ranking model asks: one row, thirty peers and ten events, through a service."""

    label = "service, 31 rows and 10 events"
    make_body = partial(feature_data.service_body, 30)


class HistoryOfFifty(FeatureReader):
    """All 50 events of one key."""

    label = "History of 50"
    make_body = staticmethod(feature_data.history_body)

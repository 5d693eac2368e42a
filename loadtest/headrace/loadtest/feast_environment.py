"""Feast in an environment of its own: what its client test and the peers bench run."""

from __future__ import annotations

import sys
from pathlib import Path

from headrace.loadtest.environments import Environment

VERSION = "0.67.0"
FEAST = Environment(
    "feast",
    (f"feast[redis]=={VERSION}",),
    Path(__file__).with_name("feast-constraints.txt"),
)


def feast_python() -> Path:
    """The interpreter that has Feast; the first call installs it, which takes a minute or two."""
    return FEAST.python()


if __name__ == "__main__":
    sys.stdout.write(f"{feast_python()}\n")

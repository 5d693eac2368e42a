"""The servers that tests share: how long each took is told at the end of a run."""

from __future__ import annotations

import re
from collections.abc import Generator
from pathlib import Path

import pytest
from shared_servers import SharedServers

from headrace.loadtest.servers import Server, ServerFailed, start_valkey


def start_nothing(folder: Path) -> Server:
    raise ServerFailed(f"nothing is in `{folder.name}`")


@pytest.fixture
def shared(tmp_path: Path) -> Generator[SharedServers]:
    made = SharedServers({"valkey": start_valkey, "nothing": start_nothing}, tmp_path)
    yield made
    made.stop()


def test_a_run_that_asks_for_no_server_starts_none_and_says_nothing(
    shared: SharedServers, tmp_path: Path
) -> None:
    assert shared.summary() is None
    assert list(tmp_path.iterdir()) == []


def test_each_start_is_told_with_its_seconds(shared: SharedServers) -> None:
    assert shared.get("valkey") is shared.get("valkey")
    with pytest.raises(ServerFailed, match="nothing is in `nothing`"):
        shared.get("nothing")
    told = str(shared.summary())
    seconds = r"(\d+\.\d) s"
    found = re.fullmatch(
        rf"servers started: valkey {seconds}, nothing failed {seconds}; {seconds} together "
        r"\(each may take 60 s\)",
        told,
    )
    assert found, told
    assert found[3] == max(found[1], found[2], key=float)

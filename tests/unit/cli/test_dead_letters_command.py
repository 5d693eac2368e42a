"""`headrace dead-letters`: what it prints and leaves on the log."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from headrace.cli.dead_letters import command
from headrace.sync.logs.sqlite import SqliteCommandLog
from headrace.sync.ports import Coordinates, DeadLetter

BYTES = b'{"feature_name":"live::\xff"}'


@pytest.fixture
def url(tmp_path: Path) -> str:
    path = tmp_path / "commands.db"
    asyncio.run(_append(path))
    return f"sqlite:{path}"


async def _append(path: Path) -> None:
    log = SqliteCommandLog(path)
    source = Coordinates("realtime", 2, 17)
    letter = DeadLetter(source, "UNKNOWN_GROUP", "no group `live::`", b"\x00k", BYTES, 1_000)
    other = DeadLetter(Coordinates("bulk", 0, 3), "WRONG_TYPE", "not a Long", b"k", b"{}", 2_000)
    await log.dead_letters().append([letter, other])
    await log.close()


def _run(*arguments: str) -> str:
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_the_listing_says_where_why_and_what(url: str) -> None:
    text = _run("list", "--commands", url)
    assert "realtime/2/17  UNKNOWN_GROUP" in text
    assert "no group `live::`" in text
    assert "feature_name" in text


def test_the_json_listing_holds_the_original_bytes(url: str) -> None:
    first, _ = json.loads(_run("list", "--commands", url, "--json"))
    assert first["source"] == {"topic": "realtime", "partition": 2, "offset": 17}
    assert base64.b64decode(first["command_base64"]) == BYTES
    assert base64.b64decode(first["key_base64"]) == b"\x00k"


def test_the_listing_can_be_narrowed_to_a_reason(url: str) -> None:
    listed = json.loads(_run("list", "--commands", url, "--json", "--code", "WRONG_TYPE"))
    assert [letter["code"] for letter in listed] == ["WRONG_TYPE"]


def test_the_listing_can_be_cut(url: str) -> None:
    assert len(json.loads(_run("list", "--commands", url, "--json", "--limit", "1"))) == 1


def test_replay_counts_and_does_nothing_the_second_time(url: str) -> None:
    assert json.loads(_run("replay", "--commands", url, "--json")) == {"replayed": 2}
    assert json.loads(_run("replay", "--commands", url, "--json")) == {"replayed": 0}


def test_replayed_letters_say_so(url: str) -> None:
    _run("replay", "--commands", url)
    assert all(
        letter["replayed"] for letter in json.loads(_run("list", "--commands", url, "--json"))
    )

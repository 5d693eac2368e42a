"""Bodies of `POST /v1/commands` that are no list of commands."""

from __future__ import annotations

import pytest

from headrace.gateway.commands import COMMANDS_MAX, read_list
from headrace.gateway.errors import TooManyCommands, UnreadableRequest


def test_a_body_nested_beyond_any_command_is_told_so_in_our_words() -> None:
    with pytest.raises(UnreadableRequest, match="nested deeper than any command"):
        read_list(b"[" * 100_000 + b"]" * 100_000)


def test_a_list_longer_than_the_limit_is_told_the_limit() -> None:
    assert len(read_list(b"[" + b"1," * (COMMANDS_MAX - 1) + b"1]")) == COMMANDS_MAX
    with pytest.raises(TooManyCommands, match="at most 10000 commands a request, got 10001"):
        read_list(b"[" + b"1," * COMMANDS_MAX + b"1]")

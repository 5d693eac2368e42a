"""Bodies of `POST /v1/commands` that are no list of commands."""

from __future__ import annotations

import pytest

from headrace.gateway.commands import read_list
from headrace.gateway.errors import UnreadableRequest


def test_a_body_nested_beyond_any_command_is_told_so_in_our_words() -> None:
    with pytest.raises(UnreadableRequest, match="nested deeper than any command"):
        read_list(b"[" * 100_000 + b"]" * 100_000)

"""The nearest valid name, for messages that name a wrong one."""

from __future__ import annotations

import difflib
from collections.abc import Collection


def nearest(wrong: str, valid: Collection[str]) -> str | None:
    """The valid name most like `wrong`, None when there is no valid name at all.

    Long names are cut before they are compared: `wrong` may be a megabyte of somebody's mistake.
    """
    if not valid:
        return None
    close = difflib.get_close_matches(wrong[:100], valid, n=1, cutoff=0.0)
    return close[0] if close else min(valid)


def did_you_mean(wrong: str, valid: Collection[str]) -> str:
    """` (did you mean `x`?)` when a valid name is close enough to be meant, else nothing."""
    close = difflib.get_close_matches(wrong[:100], valid, n=1, cutoff=0.6)
    return f"; did you mean `{close[0]}`?" if close else ""

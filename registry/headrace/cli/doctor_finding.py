"""What one check of `headrace doctor` found."""

from __future__ import annotations

from typing import Final

import msgspec

SKEW_MAX_MS: Final = 500
"""Expiry and staleness are decided by each reader's own clock (semantics 3, 11)."""
CLOCK_FIX: Final = "keep the clocks of both machines by NTP, such as chrony"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """`ok` None: it could not be told, and `detail` says why. `fix` only where it failed."""

    part: str
    check: str
    ok: bool | None
    detail: str
    fix: str | None = None


def judged(part: str, check: str, detail: str, *, ok: bool, fix: str) -> Finding:
    """A finding whose fix is told only when it is needed."""
    return Finding(part=part, check=check, ok=ok, detail=detail, fix=None if ok else fix)


def clock_finding(part: str, server_ms: int, *, asked_ms: int, answered_ms: int) -> Finding:
    """A server's clock against ours; it read it at some time between asking and answer."""
    skew_ms = max(asked_ms - server_ms, server_ms - answered_ms, 0)
    detail = f"within {skew_ms + answered_ms - asked_ms} ms of ours"
    return judged(part, "clock", detail, ok=skew_ms <= SKEW_MAX_MS, fix=CLOCK_FIX)

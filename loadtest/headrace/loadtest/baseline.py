"""A committed baseline of instruction counts: each renewal with its reason, the newest first.

A count belongs to what it was made with, such as a compiler: a renewal names that beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHANGE_MAX = 0.03
RENEWALS_MAX = 20


def changes(before: Mapping[str, int], now: Mapping[str, int]) -> list[str]:
    """One sentence for each case that changed by more than the limit, came or went."""
    told = [f"`{case}` is new: {now[case]:,}" for case in now if case not in before]
    for case, old in before.items():
        if case not in now:
            told.append(f"`{case}` is gone; it took {old:,}")
        elif abs(now[case] - old) > old * CHANGE_MAX:
            change = (now[case] - old) / old
            told.append(
                f"`{case}` took {old:,} instructions and takes {now[case]:,} ({change:+.1%})"
            )
    return told


def newest(path: Path) -> dict[str, Any]:
    """The renewal in force: its reason, what it was counted with, and the counts."""
    baseline: dict[str, list[dict[str, Any]]] = json.loads(path.read_text())
    return baseline["renewals"][0]


def renew(path: Path, renewal: Mapping[str, Any]) -> None:
    """Put a renewal before the older ones; what else the file tells stays."""
    before = json.loads(path.read_text()) if path.exists() else {"renewals": []}
    baseline = before | {"renewals": [renewal, *before["renewals"]][:RENEWALS_MAX]}
    path.write_text(json.dumps(baseline, indent=1, ensure_ascii=False) + "\n")

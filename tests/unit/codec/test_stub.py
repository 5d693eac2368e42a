"""The hand-written stub is what the extension module really offers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
ONE_SIDED = """
headrace.codec._codec.CacheOutcome  # only a name for type checkers
headrace.codec._codec.MutationKind  # only a name for type checkers
headrace.codec._codec.SystemClock.__call__  # its slot takes anything, and then refuses it
headrace.codec._codec.__all__  # added by PyO3; every name in it is compared
"""


def test_the_stub_matches_the_extension_module(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed.txt"
    allowed.write_text(ONE_SIDED)
    outcome = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "headrace.codec._codec", "--allowlist", allowed],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr

"""`headrace apply` as processes: they race, and they are killed (semantics 21)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.codec import LmdbStore
from headrace.registry.catalog import CatalogDocument, decode_document

GROUP = """\
live::{name}:
  feature_type: Object
  owner: "shawn"
  schema:
    user_id: {{type: Text, is_key_field: true}}
    level: {{type: Long, default_value: 0}}
"""


def registry(folder: Path, *names: str) -> Path:
    features = folder / "features"
    features.mkdir(parents=True)
    for name in names:
        (features / f"{name}.yaml").write_text(GROUP.format(name=name))
    return folder


def start(here: Path, folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "headrace.cli", "apply", str(folder)],
        cwd=here,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def live(here: Path) -> CatalogDocument | None:
    store = LmdbStore(str(here / ".headrace" / "online"), read_only=True)
    try:
        assert store.get("catalog/generation") is not None or store.get("catalog/document") is None
        text = store.get("catalog/document")
    finally:
        store.close()
    return None if text is None else decode_document(text)


def test_of_racing_applies_each_publishes_a_whole_generation_or_nothing(tmp_path: Path) -> None:
    """Eight start at once with the same registry: one generation comes of it, never two."""
    folder = registry(tmp_path / "registry", "a", "b")
    racing = [start(tmp_path, folder) for _ in range(8)]
    outcomes = [(process.communicate(), process.returncode) for process in racing]
    for (_, errors), code in outcomes:
        lost = b"was published by somebody else meanwhile" in errors
        assert code == (1 if lost else 0), errors
    assert sum(said == b"generation 1 is live\n" for (said, _), _ in outcomes) == 1
    document = live(tmp_path)
    assert document is not None
    assert document.generation == 1
    assert [group.name for group in document.groups] == ["live::a", "live::b"]


def test_apply_that_is_killed_leaves_the_old_generation_or_the_new_one(tmp_path: Path) -> None:
    """Killed ever later until one finishes; what is live is then always a whole document."""
    folder = registry(tmp_path / "registry", "a")
    start(tmp_path, folder).communicate()
    (folder / "features" / "b.yaml").write_text(GROUP.format(name="b"))
    for patience_ms in range(20, 10_000, 11):
        process = start(tmp_path, folder)
        try:
            process.wait(patience_ms / 1000)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        document = live(tmp_path)
        assert document is not None
        names = [group.name for group in document.groups]
        assert names == {1: ["live::a"], 2: ["live::a", "live::b"]}[document.generation]
        if process.returncode == 0:
            assert document.generation == 2
            return
    pytest.fail("no apply finished in ten seconds")

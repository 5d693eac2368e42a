"""The style of the house, as far as a program can check it. Read `docs/ARCHITECTURE.md` for why."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("rust_codec", "registry", "gateway", "sync", "loadtest")
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 700
README_LINES_MAX = 60
BANNED_MODULE_NAMES = {"utils", "util", "common", "helpers", "core", "shared", "misc"}
# One word per concept: the glossary says feature group, feature service, event time.
BANNED_WORDS = re.compile(r"feature[ _]?view|featureset|\bfv\b", re.IGNORECASE)
FEAST_FILES = re.compile(r"feast", re.IGNORECASE)


def tracked(*suffixes: str) -> list[Path]:
    """Files that git tracks (or would), by suffix."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = (ROOT / line for line in listed.stdout.splitlines())
    return [
        path for path in paths if path.is_file() and path.suffix in (suffixes or (path.suffix,))
    ]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def test_no_folder_of_the_namespace_has_an_init_file() -> None:
    """An `__init__.py` in one portion would make the others vanish (PEP 420)."""
    assert [
        str(part) for part in PARTS if (ROOT / part / "headrace" / "__init__.py").exists()
    ] == []


def test_no_function_is_longer_than_the_limit() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name} has {length} lines"
        for path in tracked(".py")
        for node in functions(path)
        if (length := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]
    assert long == []


def test_no_file_is_longer_than_the_limit() -> None:
    long = [
        f"{path.relative_to(ROOT)} has {length} lines"
        for path in tracked(".py", ".rs")
        if (length := len(path.read_text().splitlines())) > FILE_LINES_MAX
    ]
    assert long == []


def test_no_module_is_named_for_nothing_in_particular() -> None:
    named = [
        str(path.relative_to(ROOT))
        for path in tracked(".py", ".rs")
        if path.stem in BANNED_MODULE_NAMES
    ]
    assert named == []


def test_the_glossary_is_kept() -> None:
    strays = [
        f"{path.relative_to(ROOT)}:{number} {line.strip()}"
        for path in tracked(".py", ".rs", ".md", ".pyi")
        if path != Path(__file__) and not FEAST_FILES.search(str(path.relative_to(ROOT)))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if BANNED_WORDS.search(line) and "feast" not in line.lower()
    ]
    assert strays == []


@pytest.mark.parametrize(
    "folder", [*PARTS, "registry/examples/flights", "tests", "docs"], ids=lambda folder: folder
)
def test_every_folder_has_a_readme_of_one_screen(folder: str) -> None:
    """Without the tables that `pages` makes: each step that is measured adds a line to them."""
    text = (ROOT / folder / "README.md").read_text()
    written = re.sub(
        r"<!-- results:(\w+) -->\n.*?<!-- /results:\1 -->\n", "", text, flags=re.DOTALL
    )
    assert 3 <= len(written.splitlines()) <= README_LINES_MAX


def test_the_cargo_lock_names_the_public_index_only() -> None:
    sources = re.findall(r'^source = "(.+)"$', (ROOT / "Cargo.lock").read_text(), re.MULTILINE)
    assert set(sources) == {"registry+https://github.com/rust-lang/crates.io-index"}


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    # Written in two halves so that this file does not name one either.
    personal = re.compile("/" + "root/|/" + "work/(?!flow)|/" + "home/[a-z]")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked(".py", ".rs", ".toml", ".md", ".yaml", ".sql", ".json", ".lock", ".txt")
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if personal.search(line)
    ]
    assert found == []


def test_every_file_of_ours_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for part in PARTS
        for path in tracked(".py")
        if path.is_relative_to(ROOT / part)
        and ast.get_docstring(ast.parse(path.read_text())) is None
    ]
    assert silent == []

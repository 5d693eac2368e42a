"""The table of problems against the sources that answer with them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import headrace.gateway
from headrace.gateway.problem_codes import PROBLEM_CODES, PROTOCOL, READS, ROUTES

FOLDER = Path(headrace.gateway.__file__).parent
NEVER_ANSWERED = {
    "GATEWAY_ERROR", "UNKNOWN_NAME", "BAD_PARAMETER",  # roots of others
    "CALLER_GONE",  # nobody is left to answer
    "REFUSED_BIND", "ADDRESS_IN_USE",  # before there is a server
    "TOO_LARGE",  # of one command within a 207, as `docs/commands.md` lists them
}  # fmt: skip
MAKERS = {"problem", "_refuse", "HeadMistake"}
"""What is called with a status and a code."""


def codes_of(tree: ast.AST) -> Iterator[str]:
    """Codes that a source names: of a class, by keyword, or behind a status."""
    for node in ast.walk(tree):
        texts: list[ast.expr] = []
        if isinstance(node, ast.ClassDef):
            texts = [
                given.value
                for given in node.body
                if isinstance(given, ast.Assign) and ast.unparse(given.targets[0]) == "code"
            ]
        elif isinstance(node, ast.Call):
            texts = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
            if ast.unparse(node.func).rpartition(".")[2] in MAKERS:
                texts += node.args[1:2]
        elif isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "CODE_BY_STATUS":
            assert isinstance(node.value, ast.Dict)
            texts = node.value.values
        yield from (text.value for text in texts if isinstance(text, ast.Constant) if text.value)  # type: ignore[misc]  # texts


def test_the_table_has_every_code_that_the_gateway_answers_with() -> None:
    found = {
        code for path in FOLDER.rglob("*.py") for code in codes_of(ast.parse(path.read_text()))
    }
    listed = {code.word for code in (*ROUTES, *PROTOCOL)}
    of_reads = {code.word for code in READS}
    assert found - NEVER_ANSWERED - of_reads == listed


def test_every_code_stands_in_the_table_once() -> None:
    words = [code.word for code in PROBLEM_CODES]
    assert sorted(set(words)) == sorted(words)
    assert len({code.type for code in PROBLEM_CODES}) == len(words)

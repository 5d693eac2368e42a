"""Which build of Python ran a bench is told with every figure."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

from headrace.loadtest.environments import Environment
from headrace.loadtest.interpreter import interpreter, loop_ms, told_of
from headrace.loadtest.wrk import machine


def test_a_build_without_profile_guided_optimization_says_so() -> None:
    told = told_of("3.11.7", "GCC 12.2.0", "'--prefix=/usr' '--enable-shared'")
    assert told == "3.11.7 (GCC 12.2.0, configured without --enable-optimizations)"


def test_a_build_with_profile_guided_optimization_says_so() -> None:
    told = told_of("3.12.1", "Clang 17", "'--enable-optimizations' '--with-lto'")
    assert told == "3.12.1 (Clang 17, configured with --enable-optimizations)"


def test_the_machine_of_every_result_names_its_build_of_python() -> None:
    assert machine()["python"] == interpreter()
    assert interpreter().startswith(f"{platform.python_version()} ({platform.python_compiler()}")


def test_the_fixed_piece_of_python_takes_a_time() -> None:
    assert 0 < loop_ms() < 10_000


def test_two_interpreters_do_not_share_an_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[Path] = []

    def install(environment: Environment, folder: Path) -> None:
        made.append(folder)

    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(Environment, "_install", install)
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("some==1\n")
    environment = Environment("peer", ("some",), constraints)
    here = environment.python()
    assert environment.python() == here
    monkeypatch.setattr(sys, "version", "3.99.0 (another one) [GCC 12.2.0]")
    assert environment.python() != here
    assert len(made) == 2

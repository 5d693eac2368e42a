"""The frame of the command line: lazy, quick, and polite about mistakes."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from headrace.cli import main as frame
from headrace.cli.main import sentence
from headrace.registry.errors import SettingsError


def test_help_imports_no_command_and_no_heavy_library() -> None:
    script = (
        "import sys\n"
        "from headrace.cli.main import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as exit: assert not exit.code\n"
        "import json; print(json.dumps(sorted(sys.modules)), file=sys.stderr)\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    loaded = set(json.loads(finished.stderr))
    commands = {place.partition(":")[0] for place, _ in frame.COMMANDS.values()}
    heavy = {"headrace.codec", "yaml", "msgspec", "litestar", "duckdb", "pyarrow", "asyncio"}
    assert loaded & (commands | heavy) == set()


@pytest.mark.parametrize("name", list(frame.COMMANDS))
def test_every_command_has_its_own_help(name: str) -> None:
    outcome = CliRunner().invoke(frame.main, [name, "--help"])
    assert outcome.exit_code == 0
    assert outcome.output.startswith(f"Usage: main {name}")


def test_help_lists_every_command_with_its_short_help() -> None:
    words = " ".join(CliRunner().invoke(frame.main, ["--help"]).output.split())
    for name, (_, help_text) in frame.COMMANDS.items():
        assert f"{name} {help_text}" in words


def test_shell_completion_finds_the_commands() -> None:
    context = click.Context(frame.main)
    assert frame.main.list_commands(context) == list(frame.COMMANDS)
    assert frame.main.get_command(context, "nonsense") is None


@pytest.mark.parametrize("arguments", [["nonsense"], ["--nonsense"], ["version", "--nonsense"], []])
def test_usage_errors_exit_64(arguments: list[str]) -> None:
    assert CliRunner().invoke(frame.main, arguments).exit_code == 64


def test_mistyped_command_names_the_nearest() -> None:
    output = CliRunner().invoke(frame.main, ["versoin"]).output
    assert "there is no command `versoin`; did you mean `version`?" in output


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> dict[str, BaseException]:
    """A command that raises what the test puts in."""
    raised: dict[str, BaseException] = {}

    @click.command()
    def command() -> None:
        raise raised["error"]

    def get_command(*_: object) -> click.Command:
        return command

    monkeypatch.setattr(frame.CommandLine, "get_command", get_command)
    return raised


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (SettingsError("`online` is wrong"), 1, "error: `online` is wrong\n"),
        (FileNotFoundError(2, "No such file", "x.yaml"), 1, "error: `x.yaml`: No such file\n"),
        (click.Abort(), 130, "interrupted\n"),
        (click.ClickException("cannot"), 1, "Error: cannot\n"),
    ],
    ids=["ours", "system", "interrupt", "click"],
)
def test_errors_are_one_line_and_a_status(
    failing: dict[str, BaseException], error: BaseException, code: int, text: str
) -> None:
    failing["error"] = error
    outcome = CliRunner().invoke(frame.main, ["version"])
    assert (outcome.exit_code, outcome.stderr) == (code, text)


def test_our_own_mistakes_ask_for_a_report(failing: dict[str, BaseException]) -> None:
    failing["error"] = ZeroDivisionError("division by zero")
    outcome = CliRunner().invoke(frame.main, ["version"])
    assert outcome.exit_code == 1
    assert "unexpected ZeroDivisionError: division by zero" in outcome.stderr
    assert "--traceback" in outcome.stderr


def test_traceback_is_printed_when_asked_for(failing: dict[str, BaseException]) -> None:
    failing["error"] = ZeroDivisionError()
    outcome = CliRunner().invoke(frame.main, ["--traceback", "version"])
    assert isinstance(outcome.exception, ZeroDivisionError)


def test_a_client_that_is_not_installed_is_named_with_the_extra_that_brings_it() -> None:
    error = ModuleNotFoundError("No module named 'redis'", name="redis")
    assert sentence(error) == (
        "error: this needs the Python package `redis`, which is not installed; "
        "install `headrace[redis]`"
    )

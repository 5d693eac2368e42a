"""`headrace`: a table of commands, each imported only when it is the one that runs.

A command module holds one `click.Command` (or group) named `command`. What it returns becomes the
exit status; None is 0. Usage errors exit 64 everywhere (semantics 22).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

import click

from headrace.registry.errors import RegistryError
from headrace.registry.names import did_you_mean

EXIT_ERROR: Final = 1
EXIT_USAGE: Final = 64
EXIT_INTERRUPTED: Final = 130

_TABLE: Final = {
    "up": "Serve, write and downsync in one process on the embedded engines.",
    "serve": "Serve features over HTTP.",
    "worker": "Run one production role: write, downsync.",
    "check": "Report every mistake of a registry at once.",
    "plan": "Show what `apply` would change in the live catalog.",
    "apply": "Create tables and publish the next generation of the catalog.",
    "transform": "Run a registry's SQL in the offline engine.",
    "upsync": "Send rows of the offline store to the online store.",
    "get": "Print one row as the online store holds it.",
    "explain": "Say where an answer comes from and why.",
    "send": "Append commands to the command log.",
    "dead-letters": "List or replay commands that could not be applied.",
    "version": "Print versions, for a bug report.",
}
"""Name → short help; the order is that of `headrace --help`."""


def _module(name: str) -> str:
    return name.replace("-", "_")


COMMANDS: Final = {
    name: (f"headrace.cli.{_module(name)}:command", help_text)
    for name, help_text in _TABLE.items()
    if Path(__file__).with_name(f"{_module(name)}.py").exists()
}
"""Name → ("module:attribute", short help) of the commands that this installation has."""


class CommandLine(click.Group):
    """A group that knows its commands' names and short helps without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table alone: click's own version would import every command for its help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, help_text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"there is no command `{args[0]}`{did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def main(  # type: ignore[override]  # click's overloads differ only in the return type
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        **extra: object,
    ) -> NoReturn:
        """Run and exit: 64 for usage errors, 1 for other errors, else what the command returned."""
        traceback = "--traceback" in (sys.argv if args is None else args)
        try:
            outcome = super().main(args, prog_name, standalone_mode=False)
        except click.UsageError as error:
            error.show()
            sys.exit(EXIT_USAGE)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except click.Abort:
            click.echo("interrupted", err=True)
            sys.exit(EXIT_INTERRUPTED)
        except Exception as error:
            if traceback:
                raise
            click.echo(_sentence(error), err=True)
            sys.exit(EXIT_ERROR)
        sys.exit(outcome if isinstance(outcome, int) else 0)


def _sentence(error: Exception) -> str:
    """One line for the terminal. Errors of ours say all that is needed; others are our mistake."""
    code = getattr(error, "code", None)
    if isinstance(error, RegistryError) or isinstance(code, str):
        return f"error: {error}"
    if isinstance(error, OSError):
        place = f"`{error.filename}`: " if error.filename else ""
        return f"error: {place}{error.strerror or error}"
    return (
        f"error: unexpected {type(error).__name__}: {error}\n"
        "run `headrace --traceback ...` and report what it prints"
    )


@click.group(cls=CommandLine, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--traceback", is_flag=True, help="Print a Python traceback for an error.")
def main(traceback: bool) -> None:
    """Declare features in YAML, sync them, and serve them over one HTTP API."""

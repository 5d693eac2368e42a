"""`headrace`: a table of commands, each imported only when it is the one that runs.

A command module holds one `click.Command` (or group) named `command`. What it returns becomes the
exit status; None is 0. Usage errors exit 64 everywhere (semantics 22).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

import click

from headrace.registry.errors import RegistryError
from headrace.registry.names import did_you_mean

EXIT_ERROR: Final = 1
EXIT_USAGE: Final = 64
EXIT_INTERRUPTED: Final = 130

COMMANDS: Final = {
    "up": (
        "headrace.cli.up:command",
        "Serve, write and downsync in one process on the embedded engines.",
    ),
    "serve": ("headrace.cli.serve:command", "Serve features over HTTP."),
    "worker": ("headrace.cli.worker:command", "Run one production role: write, downsync."),
    "check": ("headrace.cli.check:command", "Report every mistake of a registry at once."),
    "plan": ("headrace.cli.plan:command", "Show what `apply` would change in the live catalog."),
    "apply": (
        "headrace.cli.apply:command",
        "Create tables and publish the next generation of the catalog.",
    ),
    "transform": ("headrace.cli.transform:command", "Run a registry's SQL in the offline engine."),
    "upsync": (
        "headrace.cli.upsync:command",
        "Send rows of the offline store to the online store.",
    ),
    "get": ("headrace.cli.get:command", "Print one row as the online store holds it."),
    "explain": ("headrace.cli.explain:command", "Say where an answer comes from and why."),
    "send": ("headrace.cli.send:command", "Append commands to the command log."),
    "dead-letters": (
        "headrace.cli.dead_letters:command",
        "List or replay commands that could not be applied.",
    ),
    "doctor": ("headrace.cli.doctor:command", "Check every engine and say how to mend it."),
    "version": ("headrace.cli.version:command", "Print versions, for a bug report."),
}
"""Name → ("module:attribute", short help); the order is that of `headrace --help`."""


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
            click.echo(sentence(error), err=True)
            sys.exit(EXIT_ERROR)
        sys.exit(outcome if isinstance(outcome, int) else 0)


EXTRAS: Final = {
    "acsylla": "scylla",
    "aiokafka": "kafka",
    "duckdb": "offline",
    "litestar": "gateway",
    "prometheus_client": "gateway",
    "pyarrow": "offline",
    "redis": "redis",
    "uvicorn": "gateway",
    "uvloop": "gateway",
    "yaml": "cli",
}
"""Packages of an engine or a role, and the extra that brings each."""


def sentence(error: Exception) -> str:
    """One line for the terminal. Errors of ours say all that is needed; others are our mistake."""
    code = getattr(error, "code", None)
    if isinstance(error, RegistryError) or isinstance(code, str):
        return f"error: {error}"
    if isinstance(error, OSError):
        place = f"`{error.filename}`: " if error.filename else ""
        return f"error: {place}{error.strerror or error}"
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        extra = EXTRAS[error.name]
        return (
            f"error: this needs the Python package `{error.name}`, which is not installed; "
            f"install `headrace[{extra}]`"
        )
    return (
        f"error: unexpected {type(error).__name__}: {error}\n"
        "run `headrace --traceback ...` and report what it prints"
    )


@click.group(cls=CommandLine, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--traceback", is_flag=True, help="Print a Python traceback for an error.")
def main(traceback: bool) -> None:
    """Declare features in YAML, sync them, and serve them over one HTTP API."""

"""`headrace check`: every mistake of a registry at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from headrace.cli.options import print_json, with_settings
from headrace.registry.model import Finding
from headrace.registry.settings import Settings

EXIT_FOUND: Final = 1
FORMATS: Final = ("text", "json", "github")


@click.command()
@click.argument("directory", required=False, type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="text",
    show_default=True,
    help="`github` prints annotations for a pull request.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as `--format json`.")
@with_settings()
def command(directory: Path | None, form: str, as_json: bool, settings: Settings) -> int:
    """Check the registry in DIRECTORY: all mistakes of all files, each with its place and rule.

    Exits 1 when there is an error; warnings alone exit 0.
    """
    from headrace.registry.load import load_registry

    folder = directory or Path(settings.registry)
    loaded = load_registry(folder)
    print_findings(loaded.findings, "json" if as_json else form, folder)
    if form == "text" and not as_json:
        groups = _counted(len(loaded.registry.groups), "group")
        services = _counted(len(loaded.registry.services), "service")
        click.echo(f"{summary(loaded.findings)} in {groups}, {services}", err=True)
    return EXIT_FOUND if loaded.errors else 0


def print_findings(findings: Sequence[Finding], form: str, folder: Path) -> None:
    """Print findings on standard output in one of `FORMATS`.

    For people and pull requests a path starts where the command was run, so that it can be
    followed; for programs it is the one within the registry.
    """
    if form == "json":
        print_json([finding._asdict() for finding in findings])
        return
    for finding in findings:
        finding = finding._replace(path=(folder / finding.path).as_posix())
        click.echo(_annotation(finding) if form == "github" else _text(finding))


def summary(findings: Sequence[Finding]) -> str:
    errors = sum(finding.severity == "error" for finding in findings)
    warnings = len(findings) - errors
    return f"{_counted(errors, 'error')}, {_counted(warnings, 'warning')}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _text(finding: Finding) -> str:
    note = "" if finding.severity == "error" else " (warning)"
    return f"{finding}{note}"


def _annotation(finding: Finding) -> str:
    """A workflow command; `%`, CR and LF are escaped everywhere, `:` and `,` in properties."""
    properties = (
        f"file={_property(finding.path)},line={finding.line},col={finding.column},"
        f"title={_property(finding.rule)}"
    )
    return f"::{finding.severity} {properties}::{_escaped(finding.sentence)}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")

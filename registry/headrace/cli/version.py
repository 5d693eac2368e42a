"""`headrace version`: what to write into a bug report."""

from __future__ import annotations

import platform
from importlib import metadata

import click

from headrace.cli.options import json_option, print_json


@click.command()
@json_option
def command(as_json: bool) -> None:
    """Versions of the product, the codec's byte format, the catalog document and Python."""
    from headrace.codec._codec import FORMAT_VERSION
    from headrace.registry.catalog import DOCUMENT_FORMAT

    versions = {
        "headrace": _distribution_version(),
        "codec_format": FORMAT_VERSION,
        "catalog_format": DOCUMENT_FORMAT,
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
    }
    if as_json:
        print_json(versions)
        return
    for name, version in versions.items():
        click.echo(f"{name:<15}{version}")


def _distribution_version() -> str:
    try:
        return metadata.version("headrace")
    except metadata.PackageNotFoundError:
        return "not installed"

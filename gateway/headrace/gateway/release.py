"""Which release this is, as `/version` and `/schema` say it."""

from __future__ import annotations

from importlib import metadata


def program_version() -> str:
    """The installed distribution's version; a source tree that was never installed has none."""
    try:
        return metadata.version("headrace")
    except metadata.PackageNotFoundError:
        return "0+source"

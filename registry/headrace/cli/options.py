"""Options that many commands share, and how they print."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import click
import msgspec

from headrace.cli.logs import quiet_clients
from headrace.registry.settings import Settings, load_settings, process_environment

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])

_FLAGS: Final = {
    "registry": ("--registry", str, "Folder of the feature registry."),
    "online": ("--online", str, "URL of the online store."),
    "cache": ("--cache", str, "URL of the cache, or `none`."),
    "commands": ("--commands", str, "URL of the command log."),
    "offline": ("--offline", str, "URL of the offline store."),
    "gateway.host": ("--host", str, "Address to listen on."),
    "gateway.port": ("--port", int, "Port to listen on; 0 takes a free one."),
    "gateway.workers": ("--workers", int, "Number of gateway processes."),
}


def with_settings(*names: str) -> Callable[[AnyFunction], AnyFunction]:
    """Give the command `settings`, and flags for the settings of these dotted names.

    The command is called with `settings=Settings(...)`: file, environment and flags merged.
    """

    def decorate(function: AnyFunction) -> AnyFunction:
        @functools.wraps(function)
        def with_loaded(*args: object, config: Path | None, **given: object) -> object:
            flags = {name: given.pop(_parameter(name)) for name in names}
            quiet_clients()
            settings: Settings = load_settings(config, process_environment(), flags)
            return function(*args, settings=settings, **given)

        decorated: Any = with_loaded
        for name in reversed(names):
            flag, flag_type, help_text = _FLAGS[name]
            option = click.option(flag, _parameter(name), type=flag_type, help=help_text)
            decorated = option(decorated)
        return cast("AnyFunction", _config_option(decorated))

    return decorate


def _parameter(name: str) -> str:
    return "setting_" + name.replace(".", "_")


def _config_option(function: Any) -> Any:
    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        help="Settings file; without it, headrace.yaml of the working directory if there is one.",
    )(function)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_json(value: object) -> None:
    """One JSON document on standard output, indented for people, exact for programs."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2)
    click.echo(text.decode())

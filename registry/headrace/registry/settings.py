"""Settings of every role: `headrace.yaml`, then `HEADRACE_*` of the environment, then flags.

`load_settings` is pure: file text, environment and flags are arguments. `process_environment` is
the only place of the product that reads the environment. Relative paths in URLs are relative to
the working directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import msgspec

from headrace.registry.errors import SettingsError
from headrace.registry.names import nearest
from headrace.registry.url_options import without_credentials

if TYPE_CHECKING:
    from headrace.registry.yaml_tree import YamlProblem

DEFAULT_FILE = Path("headrace.yaml")
"""Read from the working directory when no file is named; it may be absent."""

PREFIX = "HEADRACE_"

Port = Annotated[int, msgspec.Meta(ge=0, le=65_535)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=2**31)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Root of all sections: frozen, and a mistyped name is an error."""


class GatewaySettings(Section, frozen=True, kw_only=True):
    """The HTTP server. Port 0 asks the system for a free one."""

    host: str = "127.0.0.1"
    port: Port = 6566
    workers: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    default_deadline_ms: Positive = 100
    keys_max: Positive = 1_000
    body_bytes_max: Positive = 1 << 20
    compression: Literal["asked", "accepted", "never"] = "asked"
    """Whose Accept-Encoding is followed: see `docs/formats.md`."""


class Settings(Section, frozen=True, kw_only=True):
    """One value per engine (a URL that alone decides which engine is used) and the gateway."""

    registry: str = "."
    online: str = "lmdb:.headrace/online"
    cache: str = "none"
    commands: str = "sqlite:.headrace/commands.db"
    offline: str = "duckdb:.headrace/offline"
    gateway: GatewaySettings = GatewaySettings()


def process_environment() -> Mapping[str, str]:
    """The environment of this process; the composition root hands it to `load_settings`."""
    return os.environ  # noqa: TID251 - the one place that reads it


def load_settings(
    path: Path | None,
    env: Mapping[str, str],
    flags: Mapping[str, object],
) -> Settings:
    """Merge the file at `path`, `env` and `flags` (dotted names such as `gateway.port`).

    With `path` None, `headrace.yaml` of the working directory is read if it is there. A flag whose
    value is None was not given. Raises `SettingsError` naming where the value came from.
    """
    values = _read_file(path)
    origins: dict[str, str] = {}
    for name in setting_names():
        variable = PREFIX + name.replace(".", "_").upper()
        if variable in env:
            _place(values, name, env[variable])
            origins[name] = variable
        if flags.get(name) is not None:
            _place(values, name, flags[name])
            origins[name] = f"flag --{name.rpartition('.')[2].replace('_', '-')}"
    try:
        return msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(_explain(error, origins, path)) from None


def setting_names() -> Iterator[str]:
    """Dotted names of all values, as flags and problem texts use them."""
    for field in msgspec.structs.fields(Settings):
        if field.name == "gateway":
            yield from (f"gateway.{part.name}" for part in msgspec.structs.fields(GatewaySettings))
        else:
            yield field.name


def masked(settings: Settings) -> dict[str, object]:
    """The effective settings for a log line: user names and passwords in URLs are hidden."""
    values = cast("dict[str, object]", msgspec.to_builtins(settings))
    return {
        name: without_credentials(value) if isinstance(value, str) else value
        for name, value in values.items()
    }


def _read_file(path: Path | None) -> dict[str, object]:
    chosen = path or DEFAULT_FILE
    try:
        text = chosen.read_bytes()
    except FileNotFoundError:
        if path is None:
            return {}
        raise SettingsError(f"`{path}` does not exist; name a settings file that does") from None
    except OSError as error:
        raise SettingsError(f"`{chosen}` cannot be read: {error.strerror}") from None
    return _parse(text, chosen)


def _parse(text: bytes, path: Path) -> dict[str, object]:
    # Imported here: most commands of a production role are configured by the environment alone.
    from headrace.registry.yaml_tree import YamlMapping, parse_yaml, plain_values

    parsed = parse_yaml(text)
    _raise_first(parsed.problems, path)
    if parsed.root is None:
        return {}
    if not isinstance(parsed.root, YamlMapping):
        raise SettingsError(f"`{path}`: expected a mapping of settings at the top")
    values, problems = plain_values(parsed.root)
    _raise_first(problems, path)
    return cast("dict[str, object]", values)


def _raise_first(problems: Sequence[YamlProblem], path: Path) -> None:
    for mark, rule, sentence in problems:
        raise SettingsError(f"{path}:{mark}  {rule}  {sentence}")


def _place(values: dict[str, object], name: str, value: object) -> None:
    section, _, leaf = name.rpartition(".")
    if not section:
        values[leaf] = value
        return
    inner = values.setdefault(section, {})
    if isinstance(inner, dict):
        cast("dict[str, object]", inner)[leaf] = value


def _explain(error: msgspec.ValidationError, origins: Mapping[str, str], path: Path | None) -> str:
    message, _, place = str(error).partition(" - at `$")
    name = place.rstrip("`").lstrip(".")
    origin = origins.get(name, f"`{path or DEFAULT_FILE}`")
    text = f"{origin}: {_lower_first(message)}" + (f" at `{name}`" if name else "")
    if "unknown field" in message:
        wrong = message.rsplit("`", 2)[1]
        scope = f"{name}.{wrong}" if name else wrong
        text += f"; the nearest setting is `{nearest(scope, list(setting_names()))}`"
    if origin.startswith(PREFIX) and "PORT" in origin:
        # A service named headrace-gateway makes Kubernetes set HEADRACE_GATEWAY_PORT=tcp://…
        text += "; where Kubernetes set it, turn off `enableServiceLinks` for the pod"
    return text


def _lower_first(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]

"""Settings: file, then environment, then flags; every mistake says where it came from."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from headrace.registry.errors import SettingsError
from headrace.registry.settings import (
    GatewaySettings,
    Settings,
    load_settings,
    masked,
    process_environment,
    setting_names,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "headrace.yaml"
    path.write_text("online: lmdb:here\ngateway: {port: 7000, host: 127.0.0.2}\n")
    return path


def test_without_anything_the_embedded_engines_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings(None, {}, {}) == Settings()


def test_file_of_the_working_directory_is_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    assert load_settings(None, {}, {}).online == "lmdb:here"


def test_environment_overrules_the_file_and_flags_overrule_both(file: Path) -> None:
    env = {"HEADRACE_GATEWAY_PORT": "7001", "HEADRACE_ONLINE": "lmdb:there"}
    settings = load_settings(file, env, {"gateway.port": 7002, "online": None})
    assert settings.online == "lmdb:there"
    assert settings.gateway == GatewaySettings(host="127.0.0.2", port=7002)


@pytest.mark.parametrize("name", list(setting_names()))
def test_every_setting_has_its_variable(name: str, tmp_path: Path) -> None:
    """product 6: each value is overridable by `HEADRACE_<NAME>`."""
    path = tmp_path / "empty.yaml"
    path.write_text("")
    variable = "HEADRACE_" + name.replace(".", "_").upper()
    text = "never" if name == "gateway.compression" else "77"
    settings = load_settings(path, {variable: text}, {})
    assert settings != Settings()


def test_other_variables_of_the_environment_are_not_ours(file: Path) -> None:
    assert load_settings(file, {"HEADRACE_SERVICE_HOST": "10.0.0.1"}, {}).online == "lmdb:here"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("onlin: x", "object contains unknown field `onlin`; the nearest setting is `online`"),
        ("gateway: {prt: 1}", "the nearest setting is `gateway.port`"),
        ("gateway: {port: 70000}", "expected `int` <= 65535 at `gateway.port`"),
        ("gateway: {compression: gzip}", "invalid enum value 'gzip' at `gateway.compression`"),
        ("gateway: {port: no}", "headrace.yaml:1:17  SCALAR_UNAMBIGUOUS"),
        ("online: [a]", "expected `str`, got `array` at `online`"),
        ("gateway: 5", "expected `object`, got `int` at `gateway`"),
        ("- online", "expected a mapping of settings at the top"),
        ("online: &x lmdb:a", "headrace.yaml:1:9  YAML_NO_ALIASES"),
        ("a: [", "headrace.yaml:2:1  YAML_SYNTAX"),
    ],
)
def test_mistakes_of_the_file_name_the_place(file: Path, text: str, expected: str) -> None:
    file.write_text(text)
    with pytest.raises(SettingsError) as raised:
        load_settings(file, {}, {})
    assert expected in str(raised.value)
    assert "headrace.yaml" in str(raised.value)


def test_mistake_of_a_variable_names_it(file: Path) -> None:
    with pytest.raises(SettingsError) as raised:
        load_settings(file, {"HEADRACE_GATEWAY_WORKERS": "many"}, {})
    assert str(raised.value) == (
        "HEADRACE_GATEWAY_WORKERS: expected `int`, got `str` at `gateway.workers`"
    )


def test_port_set_by_kubernetes_is_explained(file: Path) -> None:
    env = {"HEADRACE_GATEWAY_PORT": "tcp://10.0.0.1:6566"}
    with pytest.raises(SettingsError, match="enableServiceLinks"):
        load_settings(file, env, {})


def test_mistake_of_a_flag_names_it(file: Path) -> None:
    with pytest.raises(SettingsError, match=r"^flag --default-deadline-ms: expected"):
        load_settings(file, {}, {"gateway.default_deadline_ms": 0})


def test_variable_cannot_enter_a_section_that_is_none(file: Path) -> None:
    file.write_text("gateway: 5")
    with pytest.raises(SettingsError, match="got `int` at `gateway`"):
        load_settings(file, {"HEADRACE_GATEWAY_PORT": "1"}, {})


def test_named_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        load_settings(tmp_path / "none.yaml", {}, {})


def test_unreadable_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot be read: Is a directory"):
        load_settings(tmp_path, {}, {})


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Settings().online = "lmdb:x"  # type: ignore[misc]  # that it is refused is the test


def test_masked_settings_hide_passwords() -> None:
    settings = msgspec.structs.replace(Settings(), cache="redis://user:secret@host:6379/0")
    shown = masked(settings)
    assert shown["cache"] == "redis://***@host:6379/0"
    assert shown["online"] == "lmdb:.headrace/online"
    assert "secret" not in repr(shown)


def test_process_environment_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_ONLINE", "lmdb:x")
    assert process_environment()["HEADRACE_ONLINE"] == "lmdb:x"


def test_masked_settings_hide_passwords_among_the_options_of_a_url() -> None:
    url = "scylla://h/ks?dc=a&user=me&password=s%26cret&tls=true"
    shown = masked(load_settings(None, {"HEADRACE_ONLINE": url}, {}))
    assert shown["online"] == "scylla://h/ks?dc=a&user=***&password=***&tls=true"

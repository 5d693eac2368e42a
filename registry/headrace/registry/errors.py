"""Errors of the registry.

RegistryError
├── SettingsError       headrace.yaml, the environment or a flag holds a value that cannot be used
│   ├── OnlineStoreMissing  nothing was ever made where `online` points
│   └── OnlineStoreUnreachable  nobody answers where `online` points, or the login is refused
├── DefinitionErrors    the registry's YAML breaks rules; carries every finding of every file
├── PlanRefused         `apply` was asked to make a breaking change
├── PublishConflict     another `apply` published a generation first
├── CatalogMissing      no generation was ever published
└── CatalogUnreadable   the published catalog cannot be read by this version
"""

from __future__ import annotations

from typing import ClassVar


class RegistryError(Exception):
    """Root of the hierarchy. `code` is stable; `retriable` says whether trying again can help."""

    code: ClassVar[str] = "REGISTRY_ERROR"
    retriable: ClassVar[bool] = False


class SettingsError(RegistryError):
    code = "SETTINGS_INVALID"


class OnlineStoreMissing(SettingsError):
    code = "ONLINE_STORE_MISSING"


class OnlineStoreUnreachable(SettingsError):
    """`reason` says what happened and where, `fix` what to do about it."""

    code = "ONLINE_STORE_UNREACHABLE"
    retriable = True

    def __init__(self, reason: str, *, fix: str) -> None:
        super().__init__(f"`online`: {reason}; {fix}")
        self.reason = reason
        self.fix = fix


class PlanRefused(RegistryError):
    code = "PLAN_REFUSED"


class PublishConflict(RegistryError):
    code = "PUBLISH_CONFLICT"
    retriable = True


class CatalogMissing(RegistryError):
    code = "CATALOG_MISSING"


class CatalogUnreadable(RegistryError):
    code = "CATALOG_UNREADABLE"

"""Checks of `access.yaml`: structure only; the gateway enforces what it says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from headrace.registry.model import Principal, Registry
from headrace.registry.physical import is_group_name, is_service_name
from headrace.registry.yaml_tree import Mark, YamlSequence, shown

Problems = Iterator[tuple[Mark, str]]

_PRINCIPAL = re.compile(r"[a-z][a-z0-9._-]{0,63}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_DOMAIN_PATTERN = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*::\*\Z")


def principal_name(principal: Principal, _: Registry) -> Problems:
    if _PRINCIPAL.match(principal.name) is None:
        sentence = f"`{shown(principal.name)}` is not `[a-z][a-z0-9._-]*` of at most 64 characters"
        yield principal.mark, sentence


def key_form(principal: Principal, _: Registry) -> Problems:
    if not principal.api_key_sha256:
        yield (
            principal.at("api_key_sha256"),
            f"`{shown(principal.name)}` has no key, so nobody is it",
        )
    for digest, mark in _items(principal, "api_key_sha256", principal.api_key_sha256):
        if _SHA256.match(digest) is None:
            # Not repeated: somebody may have pasted the key itself.
            yield mark, "expected 64 lower-case hex digits, the SHA-256 of the key and not the key"


def key_unique(principal: Principal, registry: Registry) -> Problems:
    owners: dict[str, str] = {}
    for other in registry.principals or ():
        for digest in other.api_key_sha256:
            owners.setdefault(digest, other.name)
    seen: set[str] = set()
    for digest, mark in _items(principal, "api_key_sha256", principal.api_key_sha256):
        if owners[digest] != principal.name or digest in seen:
            yield mark, f"the key already belongs to `{shown(owners[digest])}`"
        seen.add(digest)


def pattern_form(principal: Principal, _: Registry) -> Problems:
    for pattern, mark in _patterns(principal):
        if not _is_pattern(pattern):
            yield mark, f"`{shown(pattern)}` is not a name, `domain::*` or `*`"


def pattern_matches(principal: Principal, registry: Registry) -> Problems:
    names = [part.name for part in (*registry.groups, *registry.services)]
    for pattern, mark in _patterns(principal):
        if _is_pattern(pattern) and not any(fnmatchcase(name, pattern) for name in names):
            yield mark, f"`{shown(pattern)}` names no group or service of this registry"


def quota(principal: Principal, _: Registry) -> Problems:
    if principal.quota_rps is not None and principal.quota_rps < 1:
        yield principal.at("quota_rps"), "a quota is at least 1 request a second"


def _is_pattern(text: str) -> bool:
    return (
        text == "*"
        or is_group_name(text)
        or is_service_name(text)
        or _DOMAIN_PATTERN.match(text) is not None
    )


def _patterns(principal: Principal) -> Iterator[tuple[str, Mark]]:
    yield from _items(principal, "read", principal.read)
    yield from _items(principal, "write", principal.write)


def _items(principal: Principal, member: str, texts: tuple[str, ...]) -> Iterator[tuple[str, Mark]]:
    entry = principal.node.entries.get(member)
    if entry is not None and isinstance(entry[1], YamlSequence):
        # Unreadable items are left out of `texts`; the places of the rest may then be one off.
        for text, node in zip(texts, entry[1].items, strict=False):
            yield text, node.mark

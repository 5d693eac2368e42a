"""The tables of rules themselves."""

from __future__ import annotations

import re

from headrace.registry.compatibility import COMPATIBILITY_RULES
from headrace.registry.rules import (
    GROUP_RULES,
    PRINCIPAL_RULES,
    READING_RULES,
    SERVICE_RULES,
    rule_ids,
)


def test_ids_are_unique_over_all_tables() -> None:
    ids = [*rule_ids(), *(rule.id for rule in COMPATIBILITY_RULES)]
    assert len(ids) == len(set(ids))


def test_ids_are_upper_case_words() -> None:
    for rule_id in rule_ids():
        assert re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+", rule_id)


def test_every_rule_says_what_it_is_for() -> None:
    tables = (READING_RULES, GROUP_RULES, SERVICE_RULES, PRINCIPAL_RULES, COMPATIBILITY_RULES)
    for rule in (rule for table in tables for rule in table):
        assert re.fullmatch(r"[A-Z`1-9].*\.", rule.purpose), rule.id

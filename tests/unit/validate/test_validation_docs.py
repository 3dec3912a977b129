"""The reference lists every rule there is."""

from pathlib import Path

import pytest

from clusterguard.validate import PROFILES, SYSTEM_KINDS, SYSTEM_RULES

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "validation.md"
RULES = [*SYSTEM_KINDS, *SYSTEM_RULES, *(rule for profile in PROFILES.values() for rule in profile.rules)]


@pytest.mark.parametrize("rule", sorted({(rule.name, rule.reason) for rule in RULES}), ids=lambda rule: rule[0])
def test_every_rule_is_documented_with_its_reason(rule):
    name, reason = rule
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith(f"| {name}")]
    assert any(reason in row for row in rows)

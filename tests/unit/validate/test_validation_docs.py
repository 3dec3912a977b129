"""The reference lists every rule there is."""

from pathlib import Path

from clusterguard.validate import PROFILES, SYSTEM_KINDS, SYSTEM_RULES

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "validation.md"
RULES = [*SYSTEM_KINDS, *SYSTEM_RULES, *(rule for profile in PROFILES.values() for rule in profile.rules)]


def test_every_rule_is_documented_with_its_reason():
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    assert [
        rule for rule in RULES if not any(row.startswith(f"| {rule.name}") and rule.reason in row for row in rows)
    ] == []

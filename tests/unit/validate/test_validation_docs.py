"""The reference lists every rule there is; ``python tests/unit/validate/test_validation_docs.py`` writes its tables."""

from pathlib import Path

import pytest

from clusterguard.validate import PROFILES, SYSTEM_KINDS, SYSTEM_RULES
from clusterguard.validate.compare import FINISHED_WORK
from clusterguard.validate.validator import UNANSWERED

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "validation.md"
NOTHING_LEFT = (
    "Velero restores neither Jobs that are done nor pods that have ended: there is nothing left for them to do"
)
NOTHING_OF_IT = "nothing of it was in the inventory, so there is nothing of it to be missing"
NOT_CARED_FOR = "whoever wrote the drill does not care for it"
EXTRA = (
    (FINISHED_WORK, "`Job.batch`<br>`Pod`", "the whole object", NOTHING_LEFT, "`velero-restore`"),
    (UNANSWERED, "all", "the whole kind", NOTHING_OF_IT, "all"),
    ("ignored by the drill", "as written", "as written", NOT_CARED_FOR, "all"),
)


def code(words):
    return "<br>".join(f"`{word}`" for word in words) or "all"


def system_kinds():
    yield "| rule | kinds | why |"
    yield "|---|---|---|"
    for rule in SYSTEM_KINDS:
        kinds = code(sorted(rule.kinds)) if rule.kinds else "every kind that can be listed but not created"
        yield f"| {rule.name} | {kinds} | {rule.reason} |"


def system_rules():
    yield "| rule | kinds | why | watched |"
    yield "|---|---|---|---|"
    for rule in SYSTEM_RULES:
        yield f"| {rule.name} | {code(sorted(rule.kinds))} | {rule.reason} | {'yes' if rule.watched else 'no'} |"


def volatile_rules():
    """Each rule once, with its cause: the first sentence of the condition."""
    yield "| rule | kinds | fields | why | only where | profiles |"
    yield "|---|---|---|---|---|---|"
    rules = {rule: None for profile in PROFILES.values() for rule in profile.rules}
    for rule in rules:
        having = [f"`{name}`" for name, profile in PROFILES.items() if rule in profile.rules]
        profiles = "all" if len(having) == len(PROFILES) else ", ".join(having)
        cause = (rule.when.__doc__ or "").partition("\n")[0].rstrip(".") if rule.when else "always"
        cause = (
            cause[0].lower() + cause[1:]
            if cause.split()[0] in {"A", "An", "It", "The", "There", "Both", "Whoever"}
            else cause
        )
        yield f"| {rule.name} | {code(rule.kinds)} | {code(rule.paths)} | {rule.reason} | {cause} | {profiles} |"
    for name, kinds, fields, reason, profiles in EXTRA:
        yield f"| {name} | {kinds} | {fields} | {reason} | always | {profiles} |"


TABLES = {"whole kinds": system_kinds, "single objects": system_rules, "rules": volatile_rules}


def marks(name):
    return f"<!-- {name}, generated -->\n", "<!-- end -->"


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_of_the_reference_are_those_of_the_code(name):
    begin, end = marks(name)
    assert PAGE.read_text().partition(begin)[2].partition(end)[0].splitlines() == list(TABLES[name]())


def test_every_rule_has_a_reason_and_a_cause_that_the_table_can_tell():
    for rule in {rule for profile in PROFILES.values() for rule in profile.rules}:
        assert rule.name
        assert rule.reason
        assert rule.when is None or rule.when.__doc__


def write():
    page = PAGE.read_text()
    for name, table in TABLES.items():
        begin, end = marks(name)
        before, _, rest = page.partition(begin)
        page = before + begin + "\n".join(table()) + "\n" + end + rest.partition(end)[2]
    PAGE.write_text(page)


if __name__ == "__main__":
    write()

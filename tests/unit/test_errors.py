"""The errors: one tree, as it is drawn, and each of them travels whole between processes."""

from __future__ import annotations

import ast
import inspect
import pickle
import re
from pathlib import Path

from clusterguard import errors
from clusterguard.model.report import ValidationReport
from clusterguard.rehearsal.report import RehearsalReport

REPORTS = {
    errors.RestoreValidationError: ValidationReport(compared=0),
    errors.RehearsalFailedError: RehearsalReport(source="nightly.db"),
}
CLASSES = [getattr(errors, name) for name in errors.__all__]

SOURCES = Path(errors.__file__).parent
ERRORS_PAGE = Path(__file__).parents[2] / "docs/reference/errors.md"


def drawn():
    """Return the name of each error's parent as the module's docstring draws it."""
    parents, descent = {}, []
    for line in errors.__doc__.splitlines():
        if found := re.match(r"    ([│├└─ ]*)(\w+Error)\b", line):
            depth = len(found[1]) // 4
            parents[found[2]] = descent[depth - 1] if depth else None
            descent[depth:] = [found[2]]
    return parents


def example(kind):
    """Return an error that bears everything its class can bear."""
    if kind in REPORTS:
        return kind(REPORTS[kind])
    values = {"seconds": 5, "rolled_back": True, "exit_code": 1, "fields": {"path": "/a"}}
    named = [one.name for one in inspect.signature(kind).parameters.values() if one.kind is one.KEYWORD_ONLY]
    return kind("what was seen", **{name: values.get(name, f"some {name}") for name in named})


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes():
    root = errors.ClusterGuardError
    assert drawn() == {kind.__name__: None if kind is root else kind.__base__.__name__ for kind in CLASSES}


def test_every_error_of_the_module_is_exported():
    defined = {
        name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert defined == set(errors.__all__)


def test_every_error_says_what_was_seen_and_what_to_do():
    for kind in CLASSES:
        error = example(kind)
        assert str(error) == error.message != "", kind
        assert error.hint is not None or kind in REPORTS, kind  # the report says all there is
        assert kind.__doc__, kind


def test_every_error_travels_whole_between_processes():
    for kind in CLASSES:
        error = example(kind)
        twin = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
        assert (type(twin), str(twin), vars(twin)) == (kind, str(error), vars(error))


def test_trying_again_may_help_exactly_where_somebody_did_not_answer():
    silent = {kind for kind in CLASSES if kind.__name__.endswith(("UnavailableError", "UnreachableError"))}
    assert {kind for kind in CLASSES if kind.retryable} == silent


def test_a_timeout_tells_what_was_waited_for_and_seen():
    error = errors.WaitTimeoutError("etcd starts", seconds=2.5, last_seen="port closed")
    assert str(error) == "etcd starts: not within 2.5 s; last seen: port closed"


def test_every_class_has_a_code_of_its_own():
    assert len({kind.code for kind in CLASSES}) == len(CLASSES)
    assert errors.SnapshotCorruptError.code == "snapshot-corrupt"
    assert errors.VeleroNotInstalledError.code == "velero-not-installed"


def test_the_documented_codes_are_those_of_the_classes():
    documented = dict(re.findall(r"^\| `([a-z-]+)` \| `(\w+)` \|", ERRORS_PAGE.read_text(), re.MULTILINE))
    assert documented == {kind.code: kind.__name__ for kind in CLASSES}


def given_codes():
    """Return the codes that the sources give to errors, steps and remarks, beside those of the classes."""
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "code":
                values = [node.value.body, node.value.orelse] if isinstance(node.value, ast.IfExp) else [node.value]
                yield from (each.value for each in values if isinstance(each, ast.Constant) and each.value)


def test_every_code_is_documented_and_every_documented_code_is_given():
    page = ERRORS_PAGE.read_text()
    rows = re.findall(r"^\| (`[a-z-]+`(?:, `[a-z-]+`)*) \|", page, re.MULTILINE)
    documented = [code for row in rows for code in re.findall("[a-z-]+", row)]
    assert len(documented) == len(set(documented)), "a code has one meaning"
    # Findings are documented with the feature that finds them.
    reference = "".join(each.read_text() for each in ERRORS_PAGE.parent.glob("*.md"))
    assert [code for code in given_codes() if f"`{code}`" not in reference] == []
    literals = "".join(path.read_text() for path in SOURCES.rglob("*.py"))
    classes = {kind.code for kind in CLASSES}
    assert [code for code in documented if code not in classes and f'"{code}"' not in literals] == []


def test_an_error_can_carry_a_narrower_code_and_its_values():
    error = errors.StoreError("scratch is full", code="scratch-full", fields={"folder": "/scratch"})
    twin = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (twin.code, twin.fields) == ("scratch-full", {"folder": "/scratch"})
    assert errors.StoreError("another").code == "store"

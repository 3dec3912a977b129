"""Everything that can be wrong in a drill file, each with its exact place and what was meant."""

from __future__ import annotations

import pytest

from mistakes import DRILL_MISTAKES

TWO_OF_THEIR_KIND = {"matrix inside of the matrix", "file elsewhere", "unknown cluster to delete"}


def test_a_mistake_is_one_problem_at_its_place(minimal, problems):
    for case, (old, new, line, column) in DRILL_MISTAKES.items():
        assert old in minimal, case
        found = problems(minimal.replace(old, new, 1), environ={"APPS": "x"})
        there = [one for one in found if one[:2] == (line, column)]
        assert there, (case, found)
        assert len(found) == 1 or case in TWO_OF_THEIR_KIND, (case, found)


def test_all_problems_are_told_in_the_order_of_the_file(minimal, problems):
    text = minimal.replace("startIn: restore", "startIn: never").replace("app=web", "=").replace("restored", "restord")

    found = problems(text)

    assert [one.line for one in found] == [8, 17, 21]


def test_nothing_is_told_twice_for_every_combination_of_a_matrix(minimal, problems):
    text = minimal.replace("  clusters:\n", "  matrix: {a: [1, 2, 3]}\n  clusters:\n").replace("app=web", "=")

    assert len(problems(text)) == 1


def test_the_error_shows_the_line_and_says_where_to_read_on(minimal, write):
    from clusterguard.drills.load import load_drill
    from clusterguard.errors import InvalidDrillError

    path = write(minimal.replace("namespace: shop, selector", "namspace: shop, selector"))

    with pytest.raises(InvalidDrillError) as caught:
        load_drill(path)

    line = "  - delete: {kind: Pod, namspace: shop, selector: app=web}"
    assert f"   17 | {line}\n      | {' ' * 24}^" in str(caught.value)
    assert "drill-files.md" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (1, 1, "the file is empty")),
        ("# nothing\n---\n", (1, 1, "the file is empty")),
        ("[]\n", (1, 1, "a mapping is expected here, not a list")),
        ("just text\n", (1, 1, "a mapping is expected here, not the text `just text`")),
    ],
)
def test_a_file_without_a_drill_is_refused(text, expected, problems):
    assert problems(text) == [expected]


def test_a_second_document_is_refused(minimal, problems):
    assert problems(f"{minimal}---\n{minimal}") == [(23, 1, "a second document; a drill file holds one drill")]

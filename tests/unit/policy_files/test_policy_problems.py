"""Everything that can be wrong in a policy file, each with its exact place and what was meant."""

from __future__ import annotations

import pytest

from mistakes import POLICY_MISTAKES


def test_each_problem_is_told_at_its_place_and_once(minimal, problems):
    wrong = {}
    for case, (old, new, line, column) in POLICY_MISTAKES.items():
        assert old in minimal, case
        found = problems(minimal.replace(old, new, 1), BACKUPS="x")
        if [each[:2] for each in found] != [(line, column)]:
            wrong[case] = found

    assert not wrong


def test_all_problems_are_told_in_the_order_of_the_file(minimal, problems):
    text = minimal.replace("30 3 * * *", "30 3 31 2 *").replace("daily: 14", "daily: 0").replace("./backups", "backups")

    assert [one.line for one in problems(text)] == [6, 13, 15]


def test_problems_of_shape_are_told_together_with_missing_variables(minimal, problems):
    text = minimal.replace("daily", "dayly").replace("./backups", '"${env.NO}"')

    assert [one.line for one in problems(text)] == [13, 15]


def test_the_error_shows_the_line_and_says_where_to_read_on(minimal, refused):
    error = refused(minimal.replace("daily", "dayly"))

    assert f"   15 |   retention: {{dayly: 14}}\n      | {' ' * 14}^" in error.message
    assert "policy-files.md" in error.hint


@pytest.mark.parametrize("text", ["", "# nothing\n", "[]\n", "text\n"])
def test_a_file_without_a_policy_is_refused(text, problems):
    ((line, column, message),) = problems(text)

    assert (line, column) == (1, 1)
    assert "the file is empty" in message or "a mapping is expected here" in message


def test_a_second_document_is_refused(minimal, problems):
    assert problems(f"{minimal}---\n{minimal}") == [(22, 1, "a second document; a policy file holds one policy")]

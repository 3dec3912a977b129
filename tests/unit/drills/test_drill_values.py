"""The small languages inside a drill file."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterguard.drills import values
from clusterguard.drills.values import Comparison, expand_matrix, matrix_id, substitute

OPERATORS = ["==", "!=", "<", "<=", ">", ">="]


@given(st.sampled_from(OPERATORS), st.integers(0, 10**9 - 1))
def test_a_comparison_reads_what_it_writes(operator, value):
    comparison = Comparison(operator, value)

    assert Comparison.read(str(comparison)) == comparison


@given(st.integers(0, 20), st.integers(0, 20))
def test_a_comparison_and_its_opposite_never_agree(count, value):
    for one, other in [("==", "!="), ("<", ">="), (">", "<=")]:
        assert Comparison(one, value).holds(count) != Comparison(other, value).holds(count)


@pytest.mark.parametrize("written", ["three", "=>3", "3.5", "-1", True, None, [], "9" * 30, ""])
def test_what_is_no_count_is_refused(written):
    with pytest.raises(ValueError, match="a count is expected"):
        Comparison.read(written)


@given(st.timedeltas(min_value=timedelta(microseconds=1), max_value=timedelta(days=30)))
def test_a_duration_reads_what_it_writes(duration):
    assert values.read_duration(values.duration_text(duration)) == duration


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (90, "`90` has no unit; write it like 90s"),
        ("90", "is not a duration"),
        ("0s", "is no time at all"),
        ("0.0001ms", "is no time at all"),
        ("9" * 400 + "h", "longer than can be waited for"),
        (True, "a duration is expected"),
        (None, "a duration is expected"),
    ],
)
def test_what_is_no_duration_is_refused(written, said):
    with pytest.raises(ValueError, match=said):
        values.read_duration(written)


def test_no_time_is_a_duration_only_where_it_makes_sense():
    assert values.read_duration("0s", zero=True) == timedelta()


@pytest.mark.parametrize(
    "selector",
    [
        "app=web",
        "app==web,tier!=cache",
        "env in (test, live),!canary",
        "app",
        "example.com/part = x",
        "a notin ()",
        "a=",
    ],
)
def test_label_selectors_are_taken(selector):
    assert values.check_selector(selector) == selector


@pytest.mark.parametrize("selector", ["", "app=web,", "app = a b", "env in test", "-a=b", "app=>1", "a=" + "b" * 64])
def test_slips_in_label_selectors_are_refused(selector):
    with pytest.raises(ValueError, match="no label requirement"):
        values.check_selector(selector)


@pytest.mark.parametrize(
    ("kind", "meant"),
    [("pod", "`Pod`"), ("deployments", "`Deployment`"), ("configmap", "`ConfigMap`"), ("x", "such as")],
)
def test_a_kind_is_written_as_in_manifests(kind, meant):
    with pytest.raises(ValueError, match=meant):
        values.check_kind(kind)


@pytest.mark.parametrize("schedule", ["0 4 * * 1", "*/5 0-6 1,15 JAN-MAR MON"])
def test_cron_schedules_are_taken(schedule):
    assert values.check_cron(schedule) == schedule


@pytest.mark.parametrize("schedule", ["0 4 * *", "daily", "0 4 * * 1 2", "0 4 * * ,"])
def test_what_is_no_cron_schedule_is_refused(schedule):
    with pytest.raises(ValueError, match="no cron schedule"):
        values.check_cron(schedule)


def resolve(text, **known):
    problems = []
    return substitute(text, problems=problems, **{"environ": {}, "matrix": {}, **known}), problems


def test_references_are_replaced_inside_of_text():
    environ, matrix = {"HOME": "/root"}, {"n": 3, "on": True}

    assert resolve("${env.HOME}/x-${matrix.n}-${matrix.on}", environ=environ, matrix=matrix) == (
        "/root/x-3-true",
        [],
    )


def test_a_reference_alone_keeps_the_type_of_its_value():
    assert resolve("${matrix.n}", matrix={"n": 3}) == (3, [])


def test_what_was_substituted_is_not_looked_at_again():
    assert resolve("${env.A}${env.A}", environ={"A": "${env.B}"}) == ("${env.B}${env.B}", [])


def test_two_dollars_are_a_literal_reference():
    assert resolve("echo $${HOME} $HOME") == ("echo ${HOME} $HOME", [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("${env.HOM}", "the environment has no variable HOM; did you mean `HOME`?"),
        ("${matrix.k8}", "spec.matrix has no `k8`; did you mean `k8s`?"),
        ("${steps.a.b}", "steps have no outputs"),
        ("${HOME}", "did you mean `env.HOME`?"),
        ("${}", "is unknown; only ${env.NAME} and ${matrix.name} are known, and $${ is a literal ${"),
        ("${env.}", "names nothing; write ${env.name}"),
        ("x ${env.HOME", "has no closing brace"),
    ],
)
def test_unknown_references_are_told_and_left_as_they_are(text, said):
    value, problems = resolve(text, environ={"HOME": "/"}, matrix={"k8s": "1"})

    assert value == text
    assert len(problems) == 1
    assert said in problems[0]


@given(st.text())
def test_any_text_is_resolved_or_told(text):
    value, problems = resolve(text)

    assert isinstance(value, str)
    assert problems or "${" not in text.replace("$${", "")


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,5}", fullmatch=True),
        st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True),
        max_size=3,
    )
)
def test_a_matrix_makes_every_combination_once(matrix):
    combinations = expand_matrix(matrix)

    expected = 1
    for items in matrix.values():
        expected *= len(items)
    assert len(combinations) == expected
    assert len({matrix_id("d", combination) for combination in combinations}) == expected


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        ({"a": []}, "`a` has no values"),
        ({"a": ["x", "x"]}, "holds 'x' twice"),
        ({"a": ["1", 1]}, "holds '1' twice"),
        ({"a": ["x y"]}, "cannot be part of a drill's id"),
        ({"a b": ["x"]}, "cannot be referred to"),
        ({"a": list(range(8)), "b": list(range(9))}, "more than 64 combinations"),
    ],
)
def test_a_matrix_that_makes_no_sense_is_refused(matrix, said):
    with pytest.raises(ValueError, match=said):
        expand_matrix(matrix)

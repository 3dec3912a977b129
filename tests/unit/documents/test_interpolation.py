"""References inside of texts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clusterguard.documents.interpolation import substitute


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


def test_unknown_references_are_told_and_left_as_they_are():
    for text, said in [
        ("${env.HOM}", "the environment has no variable HOM; did you mean `HOME`?"),
        ("${matrix.k8}", "spec.matrix has no `k8`; did you mean `k8s`?"),
        ("${steps.a.b}", "steps have no outputs"),
        ("${HOME}", "did you mean `env.HOME`?"),
        ("${}", "is unknown; only ${env.NAME} and ${matrix.name} are known, and $${ is a literal ${"),
        ("${env.}", "names nothing; write ${env.name}"),
        ("x ${env.HOME", "has no closing brace"),
    ]:
        value, problems = resolve(text, environ={"HOME": "/"}, matrix={"k8s": "1"})

        assert value == text
        assert len(problems) == 1
        assert said in problems[0]


@given(st.text())
def test_any_text_is_resolved_or_told(text):
    value, problems = resolve(text)

    assert isinstance(value, str)
    assert problems or "${" not in text.replace("$${", "")


def test_a_document_without_a_matrix_knows_the_environment_only():
    for text in ["${matrix.k8s}", "${steps.a}", "${matrix.}"]:
        problems = []

        assert substitute(text, environ={}, problems=problems) == text
        assert problems == [f"`{text}` is unknown; only ${{env.NAME}} is known, and $${{ is a literal ${{"]

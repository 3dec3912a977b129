"""The small languages of drill files alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterguard.drills import values
from clusterguard.drills.values import Comparison, expand_matrix, matrix_id

OPERATORS = ["==", "!=", "<", "<=", ">", ">="]


@given(st.sampled_from(OPERATORS), st.integers(0, 10**9 - 1))
def test_a_comparison_reads_what_it_writes(operator, value):
    comparison = Comparison(operator, value)

    assert Comparison.read(str(comparison)) == comparison


@given(st.integers(0, 20), st.integers(0, 20))
def test_a_comparison_and_its_opposite_never_agree(count, value):
    for one, other in [("==", "!="), ("<", ">="), (">", "<=")]:
        assert Comparison(one, value).holds(count) != Comparison(other, value).holds(count)


def test_what_is_no_count_is_refused():
    for written in ["three", "=>3", "3.5", "-1", True, None, [], "9" * 30, ""]:
        with pytest.raises(ValueError, match="a count is expected"):
            Comparison.read(written)
            pytest.fail(f"{written!r} is taken")


def test_a_kind_is_written_as_in_manifests():
    for kind, meant in [
        ("pod", "`Pod`"),
        ("deployments", "`Deployment`"),
        ("configmap", "`ConfigMap`"),
        ("x", "such as"),
    ]:
        with pytest.raises(ValueError, match=meant):
            values.check_kind(kind)
            pytest.fail(f"{kind!r} is taken")


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


def test_a_matrix_that_makes_no_sense_is_refused():
    for matrix, said in [
        ({"a": []}, "`a` has no values"),
        ({"a": ["x", "x"]}, "holds 'x' twice"),
        ({"a": ["1", 1]}, "holds '1' twice"),
        ({"a": ["x y"]}, "cannot be part of a drill's id"),
        ({"a b": ["x"]}, "cannot be referred to"),
        ({"a": list(range(8)), "b": list(range(9))}, "more than 64 combinations"),
    ]:
        with pytest.raises(ValueError, match=said):
            expand_matrix(matrix)
            pytest.fail(f"{matrix!r} is taken")

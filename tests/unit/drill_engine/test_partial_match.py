"""Partial trees: what is asked for must be there, what is not asked for does not matter."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterguard.drills.partial import mismatches

names = st.text("abc", min_size=1, max_size=3)
scalars = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), names)
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(st.dictionaries(names, inner, max_size=3), st.lists(inner, max_size=3)),
    max_leaves=12,
)
mappings = st.dictionaries(names, trees, max_size=4)


@given(mappings)
def test_everything_matches_itself(tree):
    assert mismatches(tree, copy.deepcopy(tree)) == []


@given(mappings, mappings)
def test_what_is_not_asked_for_does_not_matter(tree, more):
    assert mismatches(tree, {**more, **tree}) == []


@given(mappings, names, scalars)
def test_what_is_lacking_is_told_by_its_path(tree, key, value):
    without = {name: inner for name, inner in tree.items() if name != key}
    assert any(line.startswith(f"{key}: not there") for line in mismatches({**tree, key: value}, without))


@given(
    st.lists(scalars, min_size=1, max_size=5).flatmap(lambda items: st.tuples(st.just(items), st.permutations(items)))
)
def test_the_order_of_a_list_does_not_matter(lists):
    wanted, found = lists
    assert mismatches({"args": wanted}, {"args": found}) == []


CONTAINERS = [
    {"name": "sidecar", "image": "busybox:1.36"},
    {"name": "web", "image": "busybox:1.37", "ports": [{"containerPort": 8080, "protocol": "TCP"}]},
]


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ([{"name": "web", "image": "busybox:1.37"}], []),
        ([{"name": "web", "ports": [{"containerPort": 8080}]}], []),
        ([{"name": "web", "image": "busybox:1.0"}], ['c[name=web].image: "busybox:1.37", "busybox:1.0" expected']),
        ([{"name": "job"}], ['c[name=job]: not there, {"name": "job"} expected']),
        ([{"image": "busybox:1.36"}], []),  # no key to look by: any item that has it all
        ([{"image": "busybox:1.35"}], ['c[0]: not there, {"image": "busybox:1.35"} expected']),
    ],
)
def test_items_of_lists_are_found_by_what_kubernetes_tells_them_apart_by(wanted, told):
    assert mismatches({"c": wanted}, {"c": CONTAINERS}) == told


@pytest.mark.parametrize(
    ("wanted", "found", "told"),
    [
        ({"a": 1}, {"a": True}, "a: true, 1 expected"),
        ({"a": {"b": 1}}, {"a": 3}, "a: 3 instead of a mapping"),
        ({"a": [1]}, {"a": {"b": 1}}, 'a: {"b": 1} instead of a list'),
        ({"a": "x" * 200}, {"a": ""}, 'a: "", "' + "x" * 119 + "… expected"),
    ],
)
def test_what_differs_is_told_in_one_line(wanted, found, told):
    assert mismatches(wanted, found) == [told]

"""One document from one file, and YAML that people read."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from clusterguard.documents.reading import only_document, raising, value_at, walk
from clusterguard.documents.writing import yaml_text
from clusterguard.documents.yamlfile import SourceText
from clusterguard.errors import InvalidDocumentError, InvalidPolicyError


def read(text, **settings):
    return only_document(SourceText("x.yaml", text), noun="policy", hint="read on", **settings)


def test_a_literal_key_is_text_whatever_yaml_makes_of_it():
    assert read("{on: 1, a: {on: 2}}", literal_keys={"on"}).data == {"on": 1, "a": {"on": 2}}


def test_any_other_boolean_is_no_key():
    with pytest.raises(InvalidDocumentError) as caught:
        read("{on: 1, off: 2}", literal_keys={"on"})
    assert caught.value.fields["places"] == ["x.yaml:1:9"]
    assert "`off`" in caught.value.message


def test_a_literal_key_is_still_given_once():
    with pytest.raises(InvalidDocumentError, match="key `on` is here twice"):
        read("{on: 1, on: 2}", literal_keys={"on"})


def test_as_a_value_it_stays_what_it_is():
    assert read("{a: on}", literal_keys={"on"}).data == {"a": True}


def test_an_error_takes_the_name_of_its_kind_and_keeps_what_it_said():
    with (
        pytest.raises(InvalidPolicyError) as caught,
        raising(InvalidPolicyError),
    ):
        read("")
    assert caught.value.fields == {"places": ["x.yaml:1:1"]}

    assert caught.value.hint == "read on"


def test_everything_is_walked_through_and_found_again():
    data = {"a": [1, {"b": None}], "c": "d"}

    assert all(value_at(data, path) == value for path, value in walk(data))
    assert [path for path, _ in walk(data)] == [(), ("a",), ("a", 0), ("a", 1), ("a", 1, "b"), ("c",)]


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(), PLAIN, max_size=4), min_size=1, max_size=3))
def test_what_is_written_reads_back(documents):
    assert list(yaml.safe_load_all(yaml_text(documents))) == documents


def test_texts_of_several_lines_are_written_as_they_are_read_and_nothing_is_an_alias():
    shared = {"run": "one\ntwo\n"}

    assert yaml_text([{"a": shared, "b": shared}]) == "a:\n  run: |\n    one\n    two\nb:\n  run: |\n    one\n    two\n"

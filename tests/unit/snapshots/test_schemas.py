"""Custom resources by the schema of now; the integration tests compare the same with an API server."""

from __future__ import annotations

import copy

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clusterguard import SnapshotReader
from clusterguard.snapshots.schemas import as_defined
from small_snapshot import file_of, history_of, widget

TEXT = {"type": "string"}
KEEPS = {"x-kubernetes-preserve-unknown-fields": True}


def read(spec, schema, **definition):
    version = {"name": "v1", "schema": {"openAPIV3Schema": {"properties": {"spec": schema}}}}
    item = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": copy.deepcopy(spec)}
    return as_defined(item, {"spec": {"versions": [version], **definition}}).get("spec")


@pytest.mark.parametrize(
    ("spec", "schema", "expected"),
    [
        pytest.param({"a": 1, "b": 2}, {"properties": {"a": {}}}, {"a": 1}, id="unknown field"),
        pytest.param({"a": 1}, {**KEEPS}, {"a": 1}, id="unknown fields are kept"),
        pytest.param(
            {"a": {"b": 1}, "c": 2},
            {**KEEPS, "properties": {"a": {}}},
            {"a": {}, "c": 2},
            id="kept, but in known ones not",
        ),
        pytest.param([{"a": 1}], {**KEEPS, "items": {}}, [{"a": 1}], id="unknown fields are kept in lists"),
        pytest.param([{"a": 1}], {"items": {}}, [{}], id="unknown fields in lists"),
        pytest.param(
            {"x": {"a": 1, "b": 2}}, {"additionalProperties": {"properties": {"a": {}}}}, {"x": {"a": 1}}, id="map"
        ),
        pytest.param({"x": {"a": 1}}, {"additionalProperties": True}, {"x": {}}, id="map of anything"),
        pytest.param(
            {"kind": "Pod", "metadata": {"name": "p"}, "x": 1},
            {"x-kubernetes-embedded-resource": True},
            {"kind": "Pod", "metadata": {"name": "p"}},
            id="embedded resource",
        ),
        pytest.param({}, {"properties": {"a": {"default": {"b": 1}}}}, {"a": {"b": 1}}, id="default"),
        pytest.param(
            {}, {"properties": {"a": {"default": {}, "properties": {"b": {"default": 1}}}}}, {"a": {"b": 1}}, id="deep"
        ),
        pytest.param({"a": None}, {"properties": {"a": TEXT}}, {}, id="null that may not be"),
        pytest.param({"a": None}, {"properties": {"a": {"nullable": True}}}, {"a": None}, id="null that may be"),
        pytest.param({"a": None}, {"properties": {"a": {"default": 1}}}, {"a": 1}, id="default instead of null"),
        pytest.param([None], {"items": {"default": 1}}, [1], id="default instead of null in a list"),
    ],
)  # fmt: skip
def test_what_the_schema_makes_of_it(spec, schema, expected):
    assert read(spec, schema) == expected


def test_a_definition_from_before_pruning_keeps_unknown_fields_but_defaults():
    schema = {"properties": {"a": {"default": 1}}}
    assert read({"b": 2}, schema, preserveUnknownFields=True) == {"a": 1, "b": 2}


def test_a_version_that_is_no_longer_defined_is_left_as_it_is():
    item = {"apiVersion": "example.com/v0", "kind": "Widget", "metadata": {}, "spec": {"a": 1}}
    assert as_defined(copy.deepcopy(item), {"spec": {"versions": [{"name": "v1"}]}}) == item


def test_the_reader_knows_the_definition_of_now(tmp_path):
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1beta1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": True, "storage": True}],
            "validation": {"openAPIV3Schema": {"properties": {"spec": {"properties": {"a": {"default": "new"}}}}}},
            "preserveUnknownFields": False,
        },
    }
    key = "/registry/apiextensions.k8s.io/customresourcedefinitions/widgets.example.com"
    objects = {"/registry/example.com/widgets/shop/w": widget("w", old=1), key: orjson.dumps(definition)}
    with SnapshotReader(path=file_of(tmp_path, history_of(objects))) as reader:
        found = reader.get("widgets.example.com", "w", namespace="shop")
        assert (found["spec"], found["metadata"]["generation"]) == ({"a": "new"}, 1)
        assert [each.data["spec"] for each in reader.objects("widgets")] == [{"a": "new"}]


LEAVES = st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "v1", "example.com", "Widget"])
NAMES = [
    "spec",
    "versions",
    "schema",
    "openAPIV3Schema",
    "properties",
    "items",
    "default",
    "names",
    "name",
    "conversion",
]
ANY_JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=25,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(spec=ANY_JSON, version=st.sampled_from(["v1", "v1beta1"]), own=ANY_JSON)
def test_whatever_a_definition_says_an_object_is_read_or_named_as_damaged(tmp_path, spec, version, own):
    definition = {
        "apiVersion": f"apiextensions.k8s.io/{version}",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com", "labels": own},
        "spec": spec,
    }
    item = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w", "labels": own}, "spec": own}
    key = "/registry/apiextensions.k8s.io/customresourcedefinitions/widgets.example.com"
    objects = {"/registry/example.com/widgets/shop/w": orjson.dumps(item), key: orjson.dumps(definition)}
    with SnapshotReader(path=file_of(tmp_path, history_of(objects))) as reader:
        found = list(reader.objects(selector="!app"))
        assert len(found) == 2
        assert {each.error.code for each in found if each.error} <= {"stored-object-damaged"}

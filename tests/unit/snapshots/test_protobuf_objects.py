"""Each rule of how protobuf becomes the API server's JSON, and every kind of damage as one error."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterguard.etcd.protobuf import length_delimited as text
from clusterguard.etcd.protobuf import varint_field as number
from clusterguard.snapshots.fields import field_table
from clusterguard.snapshots.protobuf import decode_message


def decoded(name, data, *, minor=36, unknown=None):
    return decode_message(
        data, 0, len(data), field_table(minor).message(name), Counter() if unknown is None else unknown
    )


@pytest.mark.parametrize(
    ("message", "data", "field", "value"),
    [
        pytest.param("core/v1.ContainerPort", b"", "containerPort", 0, id="zero that Go writes"),
        pytest.param("core/v1.ContainerPort", number(2, 0), "hostPort", ..., id="zero that Go leaves out"),
        pytest.param("core/v1.ContainerPort", number(2, 80), "hostPort", 80, id="number"),
        pytest.param("core/v1.Toleration", number(5, -1), "tolerationSeconds", -1, id="negative"),
        pytest.param("core/v1.Toleration", number(5, 0), "tolerationSeconds", 0, id="pointer to zero"),
        pytest.param("core/v1.Toleration", b"", "tolerationSeconds", ..., id="no pointer"),
        pytest.param("meta/v1.OwnerReference", number(6, 0), "controller", False, id="pointer to false"),
        pytest.param("core/v1.Container", b"", "resources", {}, id="struct without anything stored"),
        pytest.param("core/v1.Container", text(3, b"") + text(3, b"x"), "command", ["", "x"], id="list"),
        pytest.param("rbac/v1.ClusterRole", b"", "rules", None, id="nil list that Go writes"),
        pytest.param("core/v1.ConfigMap", text(2, text(1, b"k") + text(2, b"v")), "data", {"k": "v"}, id="map"),
        pytest.param("core/v1.ConfigMap", text(2, text(1, b"k")), "data", {"k": ""}, id="map without a value"),
        pytest.param("core/v1.Secret", text(2, text(1, b"k") + text(2, b"\xff")), "data", {"k": "/w=="}, id="bytes"),
        pytest.param("core/v1.Secret", text(2, text(1, b"k")), "data", {"k": ""}, id="no bytes in a map"),
        pytest.param("core/v1.ServicePort", text(4, number(1, 0) + number(2, 80)), "targetPort", 80, id="port"),
        pytest.param("core/v1.ServicePort", text(4, number(1, 1) + text(3, b"a")), "targetPort", "a", id="named port"),
        pytest.param("core/v1.ServicePort", b"", "targetPort", 0, id="no port"),
        pytest.param("meta/v1.ManagedFieldsEntry", text(7, text(1, b'{"f:a":{}}')), "fieldsV1", {"f:a": {}}, id="JSON"),
        pytest.param("apps/v1.ControllerRevision", b"", "data", None, id="no JSON"),
        pytest.param("meta/v1.ObjectMeta", text(9, number(1, 1)), "deletionTimestamp",
                     "1970-01-01T00:00:01Z", id="time"),
        pytest.param("meta/v1.ObjectMeta", text(8, b""), "creationTimestamp", ..., id="zero time with omitzero"),
        pytest.param("meta/v1.ObjectMeta", text(9, b""), "deletionTimestamp", None, id="pointer to zero time"),
        pytest.param("coordination/v1.LeaseSpec", text(4, number(1, 0) + number(2, 5000)), "renewTime",
                     "1970-01-01T00:00:00.000005Z", id="time with microseconds"),
        pytest.param("core/v1.ResourceRequirements", text(1, text(1, b"cpu") + text(2, text(1, b"500m"))), "limits",
                     {"cpu": "500m"}, id="quantity"),
        pytest.param("core/v1.ResourceRequirements", text(1, text(1, b"cpu")), "limits",
                     {"cpu": "0"}, id="no quantity"),
        pytest.param("core/v1.Volume", text(2, text(2, b"")), "emptyDir", {}, id="part of its parent"),
        pytest.param("admissionregistration/v1.RuleWithOperations", text(2, text(1, b"*")), "apiGroups",
                     ["*"], id="list in a part of its parent"),
        pytest.param("certificates/v1.CertificateSigningRequestSpec", text(6, text(1, b"k") + text(2, text(1, b"v"))),
                     "extra", {"k": ["v"]}, id="list in a message of its own"),
    ],
)  # fmt: skip
def test_what_json_has(message, data, field, value):
    assert decoded(message, data).get(field, ...) == value


def test_numbers_are_not_text_and_lose_nothing():
    assert decoded("meta/v1.ObjectMeta", number(7, 2**53 + 1))["generation"] == 2**53 + 1


def test_a_time_without_pointer_is_null_when_it_is_zero():
    assert decoded("core/v1.PodCondition", b"")["lastProbeTime"] is None
    assert decoded("core/v1.PodCondition", text(3, b""))["lastProbeTime"] is None


def test_packed_numbers_are_read_like_others():
    apart = number(4, 7) + number(4, 300)
    assert decoded("core/v1.PodSecurityContext", apart)["supplementalGroups"] == [7, 300]
    assert decoded("core/v1.PodSecurityContext", text(4, b"\x07\xac\x02"))["supplementalGroups"] == [7, 300]


def test_unknown_fields_are_counted_and_skipped():
    unknown = Counter()
    of_eight, of_four = b"\xb9\x3e" + bytes(8), b"\xbd\x3e" + bytes(4)
    data = number(998, 5) + text(998, b"new") + of_eight + of_four
    assert decoded("core/v1.Secret", data + text(3, b"Opaque"), unknown=unknown)["type"] == "Opaque"
    assert unknown == {"core/v1.Secret 998": 2, "core/v1.Secret 999": 2}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(number(3, 1), id="a number where a text should be"),
        pytest.param(text(3, b"Opaque")[:-1], id="a text that is cut"),
        pytest.param(text(3, b"\xff"), id="a text that is none"),
        pytest.param(b"\x1a", id="no length"),
        pytest.param(b"\x1a\xff", id="a length that is cut"),
        pytest.param(b"\xff" * 11, id="a number that does not end"),
        pytest.param(b"\x00\x00", id="field zero"),
        pytest.param(b"\x1b", id="a group"),
        pytest.param(text(1, b"\x0a\x05ab"), id="a message that ends behind what holds it"),
        pytest.param(text(1, text(8, number(1, 2**62))), id="a time beyond the calendar"),
        pytest.param(text(2, number(1, 1)), id="a key that is no text"),
        pytest.param(text(998, b"x")[:-1], id="an unknown field that is cut"),
    ],
)
def test_damage_is_a_value_error(data):
    with pytest.raises(ValueError, match=r"."):
        decoded("core/v1.Secret", data)


POD = (
    text(1, text(1, b"name") + text(8, number(1, 1_700_000_000)) + text(11, text(1, b"app") + text(2, b"web")))
    + text(2, text(2, text(1, b"c") + text(2, b"image") + text(6, number(3, 80)) + text(8, text(2, text(1, b"cpu")))))
    + text(3, text(1, b"Running") + text(7, text(1, b"") + number(2, 1)))
)


@settings(max_examples=300)
@given(at=st.integers(0, len(POD) - 1), byte=st.integers(0, 255))
def test_a_changed_byte_is_read_or_refused_but_never_crashes(at, byte):
    changed = POD[:at] + bytes([byte]) + POD[at + 1 :]
    try:
        assert isinstance(decoded("core/v1.Pod", changed), dict)
    except ValueError:
        return


@given(data=st.binary(max_size=40))
def test_any_bytes_are_read_or_refused_but_never_crash(data):
    try:
        assert isinstance(decoded("core/v1.Pod", data), dict)
    except ValueError:
        return

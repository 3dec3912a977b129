"""What lies under a key, in each of its forms, and why it cannot be read."""

from __future__ import annotations

import json
import os
import struct
from base64 import b64encode
from collections import Counter

import orjson
import pytest
import yaml
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.padding import PKCS7
from hypothesis import given
from hypothesis import strategies as st

from clusterguard.errors import ConfigError, StoredObjectError
from clusterguard.etcd.protobuf import length_delimited as text
from clusterguard.snapshots.cbor import MAGIC, decode_cbor
from clusterguard.snapshots.definitions import definition_as_v1
from clusterguard.snapshots.encryption import EncryptionKeys
from clusterguard.snapshots.fields import field_table
from clusterguard.snapshots.values import ValueDecoder

KEY = b"/registry/secrets/shop/db"
SECRET = bytes(range(32))
WIDGET = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 3}}


def protobuf(kind, raw, version="v1"):
    return b"k8s\0" + text(1, text(1, version.encode()) + text(2, kind.encode())) + text(2, raw)


def decoder(keys=None):
    return ValueDecoder(
        table=field_table(),
        versioned=field_table,
        keys=keys or EncryptionKeys.none(),
        unknown=Counter(),
        encrypted=Counter(),
    )


def decode(value, *, keys=None, key=KEY):
    return decoder(keys).decode(value, key=key, revision=7)


def keys_file(folder, provider, name="k1", secret=SECRET):
    path = folder / "encryption.yaml"
    providers = [{provider: {"keys": [{"name": name, "secret": b64encode(secret).decode()}]}}, {"identity": {}}]
    document = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": providers}],
    }
    path.write_text(yaml.safe_dump(document))
    path.chmod(0o600)
    return path


def sealed(provider, plain, *, name="k1", secret=SECRET, key=KEY):
    nonce = os.urandom(16)
    if provider == "aesgcm":
        body = nonce[:12] + AESGCM(secret).encrypt(nonce[:12], plain, key)
    else:
        padder = PKCS7(128).padder()
        encryptor = Cipher(algorithms.AES(secret), modes.CBC(nonce)).encryptor()
        body = nonce + encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()
    return f"k8s:enc:{provider}:v1:{name}:".encode() + body


def test_protobuf_is_an_object_with_its_revision():
    found = decode(protobuf("Secret", text(1, text(1, b"db") + text(3, b"shop")) + text(3, b"Opaque")))
    assert found == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "db", "namespace": "shop", "resourceVersion": "7"},
        "type": "Opaque",
    }


def test_json_is_an_object_with_its_revision():
    expected = {**WIDGET, "metadata": {"name": "w", "resourceVersion": "7"}}
    assert decode(orjson.dumps(WIDGET)) == expected


def test_what_the_server_fills_in_at_each_read():
    claim = text(1, text(1, b"data"))
    assert decode(protobuf("PersistentVolumeClaim", claim))["status"] == {"phase": "Pending"}
    found = decode(protobuf("StatefulSet", text(1, text(1, b"s")) + text(2, text(4, claim)), "apps/v1"))
    (template,) = found["spec"]["volumeClaimTemplates"]
    assert (template["apiVersion"], template["kind"], template["status"]) == (
        "v1",
        "PersistentVolumeClaim",
        {"phase": "Pending"},
    )


def test_a_job_has_the_labels_of_its_template_unless_it_has_its_own():
    template = text(6, text(1, text(11, text(1, b"controller-uid") + text(2, b"u"))))
    own = text(11, text(1, b"app") + text(2, b"x"))
    for metadata, labels in ((b"", {"controller-uid": "u"}), (own, {"app": "x"})):
        job = decode(protobuf("Job", text(1, text(1, b"j") + metadata) + text(2, template), "batch/v1"))
        assert job["metadata"]["labels"] == labels


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (b"", "stored-object-unknown-format"),
        (b"plain", "stored-object-unknown-format"),
        (b"{", "stored-object-damaged"),
        (b"{}", "stored-object-damaged"),
        (b'{"kind":"Widget","apiVersion":"v1","metadata":[]}', "stored-object-damaged"),
        (MAGIC, "stored-object-damaged"),
        (MAGIC + b"\x01", "stored-object-damaged"),
        (b"k8s\0\xff", "stored-object-damaged"),
        (protobuf("Secret", text(1, text(1, b"db")))[:-1], "stored-object-damaged"),
        (protobuf("Nonsense", b""), "stored-object-unknown-kind"),
        (protobuf("Secret", b"", "v9"), "stored-object-unknown-kind"),
        (protobuf("Secret", b"") + text(3, b"gzip"), "stored-object-unknown-format"),
        (b"k8s:enc:kms:v2:vault:\x00", "stored-object-kms"),
        (b"k8s:enc:aesgcm:v1:k1:\x00", "stored-object-key-missing"),
        (b"k8s:enc:rot13:v1:k1:\x00", "stored-object-unknown-format"),
        (b"k8s:enc:aesgcm", "stored-object-unknown-format"),
    ],
)
def test_what_cannot_be_read_says_why(value, code):
    with pytest.raises(StoredObjectError) as caught:
        decode(value)
    assert caught.value.code == code
    assert caught.value.hint


@pytest.mark.parametrize("size", [16, 24, 32])
@pytest.mark.parametrize("provider", ["aesgcm", "aescbc"])
def test_an_encrypted_value_is_decrypted(tmp_path, provider, size):
    keys = EncryptionKeys.load(keys_file(tmp_path, provider, secret=SECRET[:size]))
    value = sealed(provider, orjson.dumps(WIDGET), secret=SECRET[:size])
    assert decode(value, keys=keys)["spec"] == {"size": 3}


@pytest.mark.parametrize("provider", ["aesgcm", "aescbc"])
def test_a_wrong_key_a_missing_one_and_damage_are_told_apart(tmp_path, provider):
    keys = EncryptionKeys.load(keys_file(tmp_path, provider))
    value = sealed(provider, orjson.dumps(WIDGET))
    for changed, code in (
        (sealed(provider, orjson.dumps(WIDGET), secret=bytes(32)), "stored-object-wrong-key"),
        (sealed(provider, orjson.dumps(WIDGET), name="k2"), "stored-object-key-missing"),
        (value[:-1], "stored-object-wrong-key"),
        (value[:22], "stored-object-wrong-key"),
    ):
        with pytest.raises(StoredObjectError) as caught:
            decode(changed, keys=keys)
        assert caught.value.code == code
        assert caught.value.fields["provider"] == provider


def test_a_value_that_was_moved_to_another_key_does_not_open(tmp_path):
    keys = EncryptionKeys.load(keys_file(tmp_path, "aesgcm"))
    value = sealed("aesgcm", orjson.dumps(WIDGET), key=b"/registry/secrets/shop/other")
    with pytest.raises(StoredObjectError) as caught:
        decode(value, keys=keys)
    assert caught.value.code == "stored-object-wrong-key"


def test_secretbox_opens_what_nacl_made():
    # The vector of NaCl's own tests (tests/secretbox.c).
    key = bytes.fromhex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389")
    nonce = bytes.fromhex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37")
    box = bytes.fromhex(
        "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186ac0dfc17c98dce87b"
        "4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae90224368517acfeabd6bb3732bc0e9da"
        "99832b61ca01b6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74e355a5"
    )
    plain = bytes.fromhex(
        "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c61296cdc3c01233561f4"
        "1db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde048977eb48f59ffd4924ca1c60902e52"
        "f0a089bc76897040e082f937763848645e0705"
    )
    head = b"k8s:enc:secretbox:v1:k1:"
    keys = EncryptionKeys(keys={("secretbox", "k1"): [key]})
    assert keys.open(head + nonce + box, key=KEY) == plain
    wrong = EncryptionKeys(keys={("secretbox", "k1"): [bytes(32)]})
    for opened_by, value in ((keys, nonce + box[:-1] + b"\x00"), (keys, nonce), (keys, b""), (wrong, nonce + box)):
        with pytest.raises(StoredObjectError) as caught:
            opened_by.open(head + value, key=KEY)
        assert caught.value.code == "stored-object-wrong-key"


@pytest.mark.parametrize(
    "content",
    [
        "}{",
        "[]",
        "kind: Pod",
        "kind: EncryptionConfiguration",
        "kind: EncryptionConfiguration\nresources: [{providers: [{aesgcm: {keys: [{name: a}]}}]}]",
        "kind: EncryptionConfiguration\nresources: [{providers: [{aesgcm: {keys: [{name: a, secret: c2hvcnQ=}]}}]}]",
        "kind: EncryptionConfiguration\nresources: [{providers: [{aesgcm: {keys: [{name: a, secret: '!'}]}}]}]",
    ],
)
def test_a_file_that_is_no_encryption_configuration_is_refused(tmp_path, content):
    path = tmp_path / "keys.yaml"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        EncryptionKeys.load(path)
    assert caught.value.hint


def test_keys_are_shown_nowhere(tmp_path):
    keys = EncryptionKeys.load(keys_file(tmp_path, "secretbox"))
    assert b64encode(SECRET).decode() not in repr(keys)
    assert "1 keys" in repr(keys)


# ---- CBOR ------------------------------------------------------------------------------------------------


def encoded(value):
    """Encode as Kubernetes does: texts as byte strings."""
    if value is None or isinstance(value, bool):
        return {None: b"\xf6", False: b"\xf4", True: b"\xf5"}[value]
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, float):
        return b"\xfb" + struct.pack(">d", value)
    if isinstance(value, str):
        return head(2, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(encoded, value))
    return head(5, len(value)) + b"".join(encoded(key) + encoded(each) for key, each in value.items())


def head(major, number):
    if number < 24:
        return bytes([major << 5 | number])
    low = 24 if number < 1 << 8 else 25 if number < 1 << 16 else 26 if number < 1 << 32 else 27
    return bytes([major << 5 | low]) + number.to_bytes(1 << low - 24, "big")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(value=JSON)
def test_cbor_says_what_json_says(value):
    assert decode_cbor(MAGIC + encoded(value)) == value


@given(data=st.binary(max_size=40))
def test_any_bytes_are_read_as_cbor_or_refused(data):
    try:
        json.dumps(decode_cbor(data))
    except ValueError:
        return


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ("63616263", "abc"),
        ("f97c00", None),
        ("f93c00", 1.0),
        ("fa47c35000", 100000.0),
        ("d643010203", "AQID"),
        ("d543ffffff", "____"),
        ("d743ffff01", "FFFF01"),
        ("c074323031332d30332d32315432303a30343a30305a", "2013-03-21T20:04:00Z"),
        ("9f0102ff", [1, 2]),
        ("bf616101ff", {"a": 1}),
        ("7f61616162ff", "ab"),
        ("5f41614162ff", "ab"),
        ("c249010000000000000000", None),
        ("1bffffffffffffffff", None),
        ("3bffffffffffffffff", None),
        ("f7", None),
        ("a2616101616102", None),
        ("a10101", None),
        ("0000", None),
        ("9f01", None),
        ("5b7fffffffffffffff", None),
        ("61ff", None),
        ("1c", None),
        ("81" * 3000, None),
    ],
)
def test_what_cbor_may_hold(data, value):
    if value is None:
        with pytest.raises(ValueError, match=r"."):
            decode_cbor(bytes.fromhex(data))
    else:
        assert decode_cbor(bytes.fromhex(data)) == value


def test_a_custom_resource_in_cbor():
    assert decode(MAGIC + encoded(WIDGET))["spec"] == {"size": 3}


# ---- definitions -----------------------------------------------------------------------------------------


def test_a_definition_stored_as_v1beta1_is_served_as_v1():
    stored = {
        "apiVersion": "apiextensions.k8s.io/v1beta1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "version": "v1",
            "names": {"plural": "widgets", "kind": "Widget"},
            "scope": "Namespaced",
            "validation": {"openAPIV3Schema": {"type": "object"}},
            "subresources": {"status": {}},
            "additionalPrinterColumns": [{"name": "Size", "type": "integer", "JSONPath": ".spec.size"}],
            "versions": [
                {"name": "v1", "served": True, "storage": True},
                {"name": "v2", "served": True, "storage": False},
            ],
            "conversion": {
                "strategy": "Webhook",
                "webhookClientConfig": {"url": "https://192.0.2.1/"},
                "conversionReviewVersions": ["v1"],
            },
            "preserveUnknownFields": False,
        },
        "status": {},
    }
    found = definition_as_v1(stored)
    shared = {
        "schema": {"openAPIV3Schema": {"type": "object"}},
        "subresources": {"status": {}},
        "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
    }
    assert found["apiVersion"] == "apiextensions.k8s.io/v1"
    assert found["spec"] == {
        "group": "example.com",
        "names": {"plural": "widgets", "kind": "Widget", "singular": "widget", "listKind": "WidgetList"},
        "scope": "Namespaced",
        "versions": [
            {"name": "v1", "served": True, "storage": True, **shared},
            {"name": "v2", "served": True, "storage": False, **shared},
        ],
        "conversion": {
            "strategy": "Webhook",
            "webhook": {"clientConfig": {"url": "https://192.0.2.1/"}, "conversionReviewVersions": ["v1"]},
        },
    }


def test_an_old_definition_has_one_version_and_keeps_unknown_fields():
    spec = {"group": "example.com", "version": "v1", "names": {"plural": "widgets", "kind": "Widget"}}
    found = definition_as_v1({"apiVersion": "apiextensions.k8s.io/v1beta1", "kind": "CustomResourceDefinition",
                              "metadata": {}, "spec": spec})  # fmt: skip
    assert found["spec"]["versions"] == [{"name": "v1", "served": True, "storage": True}]
    assert found["spec"]["preserveUnknownFields"] is True
    assert found["spec"]["conversion"] == {"strategy": "None"}


def test_a_definition_stored_as_v1_is_left_alone():
    stored = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "spec": {}}
    assert definition_as_v1(stored) is stored

"""What the API server stores under a key, as the object that it would serve.

A value is ``k8s`` and a zero byte before protobuf (built-in kinds), JSON or CBOR (custom resources; definitions and API
services are always JSON), or encrypted. What is stored is not quite what is served: the resource version is etcd's, and
some fields are filled in at each read.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import orjson

from clusterguard.errors import StoredObjectError
from clusterguard.etcd.protobuf import places_of
from clusterguard.snapshots.cbor import MAGIC as CBOR
from clusterguard.snapshots.cbor import decode_cbor
from clusterguard.snapshots.definitions import definition_as_v1
from clusterguard.snapshots.encryption import ENCRYPTED
from clusterguard.snapshots.protobuf import decode_message

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator

    from clusterguard.snapshots.encryption import EncryptionKeys
    from clusterguard.snapshots.fields import FieldTable, Message

__all__ = ["SERVED_AS", "ValueDecoder", "whole"]

_PROTOBUF: Final = b"k8s\x00"
_TYPE_META, _RAW, _ENCODING, _CONTENT_TYPE = 1, 2, 3, 4
_API_VERSION, _KIND = 1, 2
# Kinds that are stored in a version that is not served by default: since which minor version, and as what they are.
# Nothing but the name of the version differs.
SERVED_AS: Final = {
    ("admissionregistration.k8s.io/v1beta1", "MutatingAdmissionPolicy"): (36, "admissionregistration.k8s.io/v1"),
    ("admissionregistration.k8s.io/v1beta1", "MutatingAdmissionPolicyBinding"): (36, "admissionregistration.k8s.io/v1"),
    ("resource.k8s.io/v1alpha3", "DeviceTaintRule"): (36, "resource.k8s.io/v1beta2"),
}
_HINT_DAMAGED: Final = "the snapshot's pages may be intact all the same: look at an older snapshot for this object"


class ValueDecoder:
    """Reads values.

    Args:
        table: The fields of built-in kinds.
        versioned: Returns the same for the version that wrote the values; asked where versions differ.
        keys: What opens encrypted values.
        unknown: Counts the fields of built-in kinds that the table does not have, by message and number.
        encrypted: Counts the values that are encrypted, by provider.
    """

    def __init__(
        self,
        *,
        table: FieldTable,
        versioned: Callable[[], FieldTable],
        keys: EncryptionKeys,
        unknown: Counter[str],
        encrypted: Counter[str],
    ) -> None:
        self._table = table
        self._versioned = versioned
        self._keys = keys
        self._unknown = unknown
        self._encrypted = encrypted
        self._differing: dict[tuple[str, str], bool] = {}

    def plain(self, value: bytes, *, key: bytes) -> bytes:
        """Return a value without its encryption, if it has one.

        Raises:
            StoredObjectError: It is encrypted, and no key given opens it.
        """
        if not value.startswith(ENCRYPTED):
            return value
        self._encrypted[value[len(ENCRYPTED) :].partition(b":")[0].decode("utf-8", "replace")] += 1
        return self._keys.open(value, key=key)

    def decode(self, value: bytes, *, key: bytes, revision: int) -> dict[str, Any]:
        """Return the object that a value is.

        Args:
            value: As it is stored.
            key: Of etcd.
            revision: Of its last change.

        Raises:
            StoredObjectError: It cannot be read; the code says why.
        """
        item = self._item(self.plain(value, key=key))
        metadata = item.get("metadata")
        if not isinstance(metadata, dict) or not isinstance(item.get("kind"), str) or not item.get("apiVersion"):
            raise _damaged("it is no object of Kubernetes: kind, apiVersion or metadata is missing")
        metadata["resourceVersion"] = str(revision)
        with whole():
            fill_in = _FILLED_IN.get((item["apiVersion"], item["kind"]))
            if fill_in is not None:
                fill_in(item)
            return definition_as_v1(item) if item["kind"] == "CustomResourceDefinition" else item

    def _item(self, plain: bytes) -> dict[str, Any]:
        try:
            if plain.startswith(_PROTOBUF):
                return self._message(plain)
            if plain.startswith(b"{"):
                item = orjson.loads(plain)
            elif plain.startswith(CBOR):
                item = decode_cbor(plain)
            else:
                raise _unknown_format()
        except (ValueError, RecursionError) as error:
            raise _damaged(str(error)) from error
        if not isinstance(item, dict):
            raise _damaged("it is no object")
        return item

    def _message(self, plain: bytes) -> dict[str, Any]:
        envelope = places_of(plain, len(_PROTOBUF), len(plain))
        named = places_of(plain, *envelope.get(_TYPE_META, (0, 0)))
        api_version, kind = (plain[slice(*named.get(each, (0, 0)))].decode() for each in (_API_VERSION, _KIND))
        if any(start < end for start, end in (envelope.get(each, (0, 0)) for each in (_ENCODING, _CONTENT_TYPE))):
            raise _unknown_format()
        message = self._table.kind(api_version, kind)
        if message is None:
            raise StoredObjectError(
                f"protobuf of kind {kind} in {api_version}, which is not in the table of Kubernetes' kinds",
                code="stored-object-unknown-kind",
                fields={"apiVersion": api_version, "kind": kind},
                hint="kinds of other API servers (OpenShift's, aggregated ones) can be counted, but not shown",
            )
        if self._differs(api_version, kind, message):
            message = self._versioned().kind(api_version, kind) or message
        start, end = envelope.get(_RAW, (0, 0))
        since, served = SERVED_AS.get((api_version, kind), (0, api_version))
        if since and self._versioned().minor >= since:
            api_version = served
        found = decode_message(plain, start, end, message, self._unknown)
        return {"apiVersion": api_version, "kind": kind, **found}

    def _differs(self, api_version: str, kind: str, message: Message) -> bool:
        found = self._differing.get((api_version, kind))
        if found is None:
            found = self._differing[api_version, kind] = self._table.is_versioned(message)
        return found


def _claim_templates(item: dict[str, Any]) -> None:
    # An embedded TypeMeta is not in protobuf; the API server's defaults write it again.
    for claim in item["spec"].get("volumeClaimTemplates") or ():
        claim["apiVersion"], claim["kind"] = "v1", "PersistentVolumeClaim"
        claim["status"].setdefault("phase", "Pending")


def _pending(item: dict[str, Any]) -> None:
    item["status"].setdefault("phase", "Pending")


def _labels_of_template(item: dict[str, Any]) -> None:
    # A Job's template gets labels of its own after the defaults were set, so the Job has them only when it is read.
    labels = item["spec"]["template"]["metadata"].get("labels")
    if labels and not item["metadata"].get("labels"):
        item["metadata"]["labels"] = labels


_FILLED_IN = {
    ("batch/v1", "Job"): _labels_of_template,
    ("apps/v1", "StatefulSet"): _claim_templates,
    ("v1", "PersistentVolumeClaim"): _pending,
    ("v1", "PersistentVolume"): _pending,
}


@contextmanager
def whole() -> Iterator[None]:
    """Say of an object that lacks what each of its kind has that it is damaged."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise _damaged(f"it has not the form of its kind ({type(error).__name__})") from error


def _damaged(problem: str) -> StoredObjectError:
    return StoredObjectError(f"damaged: {problem}", code="stored-object-damaged", hint=_HINT_DAMAGED)


def _unknown_format() -> StoredObjectError:
    return StoredObjectError(
        "neither protobuf, JSON nor CBOR",  # what it is stays unsaid: it may be a secret
        code="stored-object-unknown-format",
        hint="is --prefix that of the API server? a newer clusterguard may know the format",
    )

"""What is signed of a bundle: an in-toto Statement that names every file of it by its SHA-256, in a DSSE envelope.

Sources: https://github.com/in-toto/attestation (spec/v1) and https://github.com/secure-systems-lab/dsse. Stock programs
for these check it as well; docs/how-to/evidence.md has them.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clusterguard.evidence.keys import SigningKey, VerifyingKey

__all__ = ["PREDICATE_TYPE", "Statement", "open_envelope", "sealed", "signers"]

PREDICATE_TYPE: Final = "https://clusterguard.dev/evidence/drill/v1"
_STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
_PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What a signature says of a bundle.

    Attributes:
        files: SHA-256 of each file, in hexadecimal, by its name in the bundle.
        predicate: What the run came to; see docs/reference/formats.md.
    """

    files: Mapping[str, str]
    predicate: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Return it as in-toto has it; the same statement makes the same bytes."""
        document = {
            "_type": _STATEMENT_TYPE,
            "subject": [{"name": name, "digest": {"sha256": self.files[name]}} for name in sorted(self.files)],
            "predicateType": PREDICATE_TYPE,
            "predicate": dict(self.predicate),
        }
        return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def sealed(statement: Statement, key: SigningKey) -> bytes:
    """Return the envelope, one line of JSON."""
    payload = statement.to_json()
    signature = key.sign(_encoded(_PAYLOAD_TYPE, payload))
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": _PAYLOAD_TYPE,
        "signatures": [{"keyid": key.public.id, "sig": base64.b64encode(signature).decode()}],
    }
    return orjson.dumps(envelope) + b"\n"


def open_envelope(data: bytes, key: VerifyingKey) -> Statement | None:
    """Return what a key has signed, or None where it has signed nothing of this.

    A key id is a hint that nobody signed: each signature is tried.

    Raises:
        ValueError: It is no such envelope, or what is signed is no statement about a bundle.
    """
    payload_type, payload, signatures = _parsed(data)
    signed = _encoded(payload_type, payload)
    if not any(key.verifies(signature, signed) for _, signature in signatures):
        return None
    if payload_type != _PAYLOAD_TYPE:
        raise ValueError(f"a {payload_type} is signed, not an in-toto statement")
    return _statement(payload)


def signers(data: bytes) -> tuple[str, ...]:
    """Return the ids of the keys that an envelope says signed it.

    Raises:
        ValueError: It is no such envelope.
    """
    return tuple(key_id for key_id, _ in _parsed(data)[2])


def _encoded(payload_type: str, payload: bytes) -> bytes:
    """Return what is really signed (DSSE's pre-authentication encoding)."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _parsed(data: bytes) -> tuple[str, bytes, tuple[tuple[str, bytes], ...]]:
    try:
        envelope = orjson.loads(data)
        signatures = tuple(
            (str(each.get("keyid") or ""), base64.b64decode(each["sig"], validate=True))
            for each in envelope["signatures"]
        )
        return str(envelope["payloadType"]), base64.b64decode(envelope["payload"], validate=True), signatures
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise ValueError("it is not a DSSE envelope") from error


def _statement(payload: bytes) -> Statement:
    try:
        document = orjson.loads(payload)
        if (document["_type"], document["predicateType"]) != (_STATEMENT_TYPE, PREDICATE_TYPE):
            raise ValueError(f"what is signed is a {document['predicateType']}")
        files = {str(each["name"]): str(each["digest"]["sha256"]) for each in document["subject"]}
        predicate = document["predicate"]
        if len(files) != len(document["subject"]) or not isinstance(predicate, dict):
            raise ValueError("what is signed names a file twice")
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError("what is signed is not an in-toto statement") from error
    return Statement(files=files, predicate=predicate)

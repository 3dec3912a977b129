"""Keys that sign evidence and check it: Ed25519 or ECDSA on P-256, in PEM, and those that cosign generates.

A private key is PKCS #8, plain or encrypted by a passphrase, as openssl writes it, or what ``cosign generate-key-pair``
writes: JSON in PEM, whose PKCS #8 is sealed by NaCl's secretbox under scrypt of the passphrase. Public keys are PEM
(``PUBLIC KEY``) everywhere. Source of cosign's format: sigstore's pkg/cosign/keys.go and secure-systems-lab's
encrypted package.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from clusterguard.errors import ConfigError
from clusterguard.secret_files import read_secret_file

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    _PrivateKey: TypeAlias = "Ed25519PrivateKey | EllipticCurvePrivateKey"
    _PublicKey: TypeAlias = "Ed25519PublicKey | EllipticCurvePublicKey"

__all__ = ["SigningKey", "VerifyingKey", "load_signing_key", "load_verifying_key"]

_COSIGN: Final = ("ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY")
_MOST_MEMORY: Final = 256 << 20  # cosign's own parameters take 64 MiB; a key file must not take whatever it likes
_HINT: Final = "openssl genpkey -algorithm ed25519 -out evidence.key, or cosign generate-key-pair"


class VerifyingKey:
    """A public key; made by `load_verifying_key`."""

    __slots__ = ("_key", "id")

    def __init__(self, key: _PublicKey) -> None:
        from cryptography.hazmat.primitives import serialization

        self._key = key
        encoded = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        digest = hashlib.sha256(base64.b64decode(encoded.split()[1])).digest()
        # cosign passes a signature over whose key id is any other than this one, or none (go-securesystemslib 0.9.1).
        self.id = f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"
        """Its fingerprint as ssh-keygen prints it."""

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Return whether this key's private half signed the data."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519

        try:
            if isinstance(self._key, ed25519.Ed25519PublicKey):
                self._key.verify(signature, data)
            else:
                self._key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True


class SigningKey:
    """A private key; made by `load_signing_key`. It is shown nowhere."""

    __slots__ = ("_key",)

    def __init__(self, key: _PrivateKey) -> None:
        self._key = key

    def __repr__(self) -> str:
        return f"SigningKey({self.public.id})"

    @property
    def public(self) -> VerifyingKey:
        """Its public half."""
        return VerifyingKey(self._key.public_key())

    def sign(self, data: bytes) -> bytes:
        """Return the signature: 64 bytes of Ed25519, or ECDSA over SHA-256 in DER."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519

        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(data)
        return self._key.sign(data, ec.ECDSA(hashes.SHA256()))


def load_signing_key(path: Path, *, passphrase: str | None = None) -> SigningKey:
    """Read a private key that nobody else may read.

    Args:
        path: The file.
        passphrase: What opens it; None where it is not encrypted.

    Raises:
        ConfigError: It cannot be read or others may read it, it is not a key that signs evidence, or the passphrase
            does not open it.
    """
    what = "the key that signs evidence"
    text = read_secret_file(path, what=what)
    if any(f"-----BEGIN {label}-----" in text for label in _COSIGN):
        encoded, passphrase = _opened_cosign(path, text, passphrase or ""), None
    else:
        encoded = text.encode()
    return SigningKey(_private(path, encoded, passphrase))


def load_verifying_key(path: Path) -> VerifyingKey:
    """Read a public key in PEM.

    Raises:
        ConfigError: It cannot be read, everybody may write to it, or it is not a key that signs evidence.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    text = read_secret_file(path, what="the public key of the evidence", private=False)
    if "PRIVATE KEY-----" in text:
        raise _invalid(path, "it is a private key", hint="give its public half: openssl pkey -in FILE -pubout")
    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _invalid(path, "it is not a public key in PEM") from error
    _require_kind(path, key)
    return VerifyingKey(key)  # type: ignore[arg-type] # _require_kind says that it is


def _private(path: Path, encoded: bytes, passphrase: str | None) -> _PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key

    load = load_pem_private_key if encoded.lstrip().startswith(b"-----") else load_der_private_key
    try:
        key = load(encoded, password=passphrase.encode() if passphrase else None)
    except TypeError as error:  # encrypted, and no passphrase; or the other way round
        if passphrase:
            return _private(path, encoded, None)
        raise _locked(path, "it is encrypted, and no passphrase is given") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        # OpenSSL does not tell a wrong passphrase from damage.
        if passphrase and b"ENCRYPTED" in encoded:
            raise _locked(path, "the passphrase does not open it, or it is damaged") from error
        raise _invalid(path, "it is not a private key in PEM") from None
    _require_kind(path, key)
    return key  # type: ignore[return-value] # _require_kind says that it is


def _require_kind(path: Path, key: object) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    if isinstance(key, (ed25519.Ed25519PrivateKey, ed25519.Ed25519PublicKey)):
        return
    if isinstance(key, (ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey)) and key.curve.name == "secp256r1":
        return
    raise _invalid(path, "its kind is neither Ed25519 nor ECDSA on P-256")


def _opened_cosign(path: Path, text: str, passphrase: str) -> bytes:
    """Return the PKCS #8 (DER) that is sealed in a key of cosign; its passphrase may be empty."""
    from nacl.exceptions import CryptoError
    from nacl.secret import SecretBox

    try:
        document: Any = json.loads(_body(text))
        kdf, cipher = document["kdf"], document["cipher"]
        parameters = {name.lower(): int(kdf["params"][name]) for name in ("N", "r", "p")}
        salt, nonce, sealed = (
            base64.b64decode(each, validate=True) for each in (kdf["salt"], cipher["nonce"], document["ciphertext"])
        )
        if (kdf["name"], cipher["name"]) != ("scrypt", "nacl/secretbox"):
            raise _invalid(path, f"it is sealed by {kdf['name']} and {cipher['name']}, not scrypt and nacl/secretbox")
        key = hashlib.scrypt(passphrase.encode(), salt=salt, dklen=32, maxmem=_MOST_MEMORY, **parameters)
        return bytes(SecretBox(key).decrypt(sealed, nonce))
    except CryptoError as error:
        raise _locked(path, "the passphrase does not open it") from error
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise _invalid(path, "it is not a whole key of cosign") from error


def _body(text: str) -> bytes:
    lines = text.strip().splitlines()
    return base64.b64decode("".join(line.strip() for line in lines if not line.startswith("-----")), validate=True)


def _invalid(path: Path, problem: str, *, hint: str = _HINT) -> ConfigError:
    return ConfigError(f"{path}: {problem}", code="invalid-evidence-key", fields={"path": str(path)}, hint=hint)


def _locked(path: Path, problem: str) -> ConfigError:
    return ConfigError(
        f"{path}: {problem}",
        code="evidence-key-locked",
        fields={"path": str(path)},
        hint="name a file with its passphrase, or set COSIGN_PASSWORD",
    )

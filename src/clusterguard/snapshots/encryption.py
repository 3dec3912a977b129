"""Values that the API server encrypted at rest, opened with the keys of its ``EncryptionConfiguration``.

A value begins with ``k8s:enc:PROVIDER:v1:KEYNAME:``. aesgcm authenticates the etcd key along with the value, so it
opens under no other one; secretbox authenticates the value alone, aescbc nothing. What a KMS plugin encrypted cannot be
opened from files. Facts: apiserver's pkg/storage/value/encrypt and pkg/server/options/encryptionconfig.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from clusterguard.errors import ConfigError, StoredObjectError
from clusterguard.secret_files import read_secret_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self

__all__ = ["ENCRYPTED", "EncryptionKeys"]

ENCRYPTED: Final = b"k8s:enc:"
"""What every encrypted value begins with."""

_Keys: TypeAlias = "dict[tuple[str, str], list[bytes]]"
_PROVIDERS: Final = ("aesgcm", "aescbc", "secretbox")
_SIZES: Final = {"aesgcm": {16, 24, 32}, "aescbc": {16, 24, 32}, "secretbox": {32}}
_WHAT: Final = "the encryption configuration"
_NONCE, _BLOCK, _PARTS = 12, 16, 5


class EncryptionKeys:
    """The keys of an encryption configuration; made by `load`. They are shown nowhere.

    Args:
        keys: By provider and name of the key; several of one name are tried in turn, as the API server does.
    """

    __slots__ = ("_keys",)

    def __init__(self, *, keys: _Keys) -> None:
        self._keys = keys

    def __repr__(self) -> str:
        return f"EncryptionKeys({len(self._keys)} keys)"

    @classmethod
    def none(cls) -> Self:
        """Return no keys at all."""
        return cls(keys={})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file that the API server is given as ``--encryption-provider-config``.

        Raises:
            ConfigError: It cannot be read, others may read it, or it is no encryption configuration.
        """
        import yaml  # slow to load, and most snapshots have nothing encrypted

        text = read_secret_file(path, what=_WHAT)
        try:
            document = yaml.safe_load(text)
        except yaml.YAMLError as error:
            # The error itself quotes the file.
            raise _invalid(path, f"it is not YAML: {type(error).__name__}") from None
        keys: _Keys = {}
        for provider, key in _keys_in(path, document):
            name, secret = _key(path, provider, key)
            keys.setdefault((provider, name), []).append(secret)
        return cls(keys=keys)

    def open(self, value: bytes, *, key: bytes) -> bytes:
        """Return what an encrypted value says.

        Args:
            value: As it is stored.
            key: Of etcd, which is part of what some providers authenticate.

        Raises:
            StoredObjectError: The key is not here or does not open it, or a KMS plugin encrypted it.
        """
        parts = value.split(b":", _PARTS)
        provider = parts[2].decode("utf-8", "replace") if len(parts) > _PARTS else ""
        if provider == "kms":
            raise _kms(parts[4].decode("utf-8", "replace"))
        if provider not in _PROVIDERS:
            raise StoredObjectError(
                f"encrypted by {provider or 'something'}, which is not known here",
                code="stored-object-unknown-format",
                hint="a newer clusterguard may know it",
            )
        name = parts[4].decode("utf-8", "replace")
        secrets = self._keys.get((provider, name), [])
        for secret in secrets:
            opened = _opened(provider, secret, parts[5], key)
            if opened is not None:
                return opened
        raise _wrong_key(provider, name) if secrets else _no_key(provider, name)


def _opened(provider: str, secret: bytes, sealed: bytes, key: bytes) -> bytes | None:
    if provider == "aesgcm":
        return _aesgcm(secret, sealed, key)
    if provider == "aescbc":
        return _aescbc(secret, sealed)
    return _secretbox(secret, sealed)


def _secretbox(secret: bytes, sealed: bytes) -> bytes | None:
    from nacl.exceptions import CryptoError
    from nacl.secret import SecretBox

    try:
        return bytes(SecretBox(secret).decrypt(sealed))
    except (CryptoError, ValueError):
        return None


def _aesgcm(secret: bytes, sealed: bytes, key: bytes) -> bytes | None:
    from cryptography.exceptions import InvalidTag  # slow to load, and most snapshots have nothing encrypted
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        return AESGCM(secret).decrypt(sealed[:_NONCE], sealed[_NONCE:], key)
    except (InvalidTag, ValueError):
        return None


def _aescbc(secret: bytes, sealed: bytes) -> bytes | None:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.padding import PKCS7

    if len(sealed) < 2 * _BLOCK or len(sealed) % _BLOCK:
        return None
    decryptor = Cipher(algorithms.AES(secret), modes.CBC(sealed[:_BLOCK])).decryptor()
    padded = decryptor.update(sealed[_BLOCK:]) + decryptor.finalize()
    unpadder = PKCS7(8 * _BLOCK).unpadder()
    try:
        plain = unpadder.update(padded) + unpadder.finalize()
    except ValueError:
        return None
    # Nothing is authenticated: one in 256 wrong keys leaves right padding, but no beginning that any value has.
    return plain if plain.startswith((b"k8s\x00", b"{", b"\xd9\xd9\xf7")) else None


def _keys_in(path: Path, document: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - whatever YAML has
    kind = document.get("kind") if isinstance(document, dict) else None
    if kind not in {"EncryptionConfiguration", "EncryptionConfig"}:
        raise _invalid(path, f"its kind is {kind!r}, not EncryptionConfiguration")
    try:
        for resources in document["resources"]:
            for each in resources["providers"]:
                for provider in _PROVIDERS:
                    for key in (each.get(provider) or {}).get("keys") or ():
                        yield provider, key
    except (KeyError, TypeError, AttributeError):
        raise _invalid(path, "it has no resources with their providers") from None


def _key(path: Path, provider: str, key: Any) -> tuple[str, bytes]:  # noqa: ANN401 - whatever YAML has
    try:
        name, secret = str(key["name"]), b64decode(key["secret"], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise _invalid(path, f"a key of {provider} has no name or no secret in base64") from None
    if len(secret) not in _SIZES[provider]:
        raise _invalid(path, f"key {name} of {provider} has {len(secret)} bytes")
    return name, secret


def _invalid(path: Path, problem: str) -> ConfigError:
    return ConfigError(
        f"{_WHAT}: {path}: {problem}", hint="give the file of the API server's --encryption-provider-config"
    )


def _kms(name: str) -> StoredObjectError:
    return StoredObjectError(
        f"encrypted by the KMS plugin {name}",
        code="stored-object-kms",
        fields={"provider": "kms", "key": name},
        hint="only the plugin can open it; a restore needs it, too",
    )


def _no_key(provider: str, name: str) -> StoredObjectError:
    return StoredObjectError(
        f"encrypted with {provider} key {name}, which is not given",
        code="stored-object-key-missing",
        fields={"provider": provider, "key": name},
        hint="give the cluster's EncryptionConfiguration: --encryption-config FILE; a restore needs it, too",
    )


def _wrong_key(provider: str, name: str) -> StoredObjectError:
    return StoredObjectError(
        f"encrypted with {provider} key {name}, but the key given under that name does not open it",
        code="stored-object-wrong-key",
        fields={"provider": provider, "key": name},
        hint="the configuration is of another cluster or of another time, or the value is damaged",
    )

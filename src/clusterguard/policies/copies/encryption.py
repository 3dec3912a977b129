"""The encryption that a policy asks for: its keys, read from where the policy says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from clusterguard.errors import ConfigError
from clusterguard.secret_files import read_secret_file
from clusterguard.stores.encryption import Encryption

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clusterguard.policies.policy import Encryption as EncryptionKeys
    from clusterguard.policies.policy import Policy, Secret

__all__ = ["encryption_of", "read_secret"]


def encryption_of(policy: Policy, environ: Mapping[str, str]) -> Encryption:
    """Return how a policy's copies are encrypted, and decrypted where it names a private key or a passphrase.

    Raises:
        ConfigError: A key cannot be read, is invalid, or lies in a file that others may read.
    """
    keys, level = policy.encryption, policy.compression_level
    if keys is None:
        return Encryption(compression_level=level)
    if keys.passphrase is not None:
        passphrase = read_secret(keys.passphrase, environ, what="the passphrase")
        return Encryption(passphrase=passphrase, compression_level=level)
    recipients = (*keys.recipients, *_recipients_of(keys))
    identities: tuple[str, ...] = ()
    if keys.identity is not None:
        identities = (read_secret(keys.identity, environ, what="the identity"),)
        _require_valid((), identities, f"the identity in {keys.identity}")
    return Encryption(recipients=recipients, identities=identities, compression_level=level)


def read_secret(secret: Secret, environ: Mapping[str, str], *, what: str) -> str:
    """Return a secret without the space around it.

    Raises:
        ConfigError: It is not there, is empty, or is not text, or others may read or change it.
    """
    if secret.env:
        value = environ.get(secret.env, "").strip()
        if not value:
            raise ConfigError(
                f"{what} should be in the variable {secret.env}, which is not set",
                code="variable-not-set",
                fields={"variable": secret.env},
                hint=f"set {secret.env}",
            )
        return value
    value = read_secret_file(Path(secret.file), what=what).strip()
    if not value:
        raise ConfigError(f"{what}: {secret.file} is empty", hint="put it there, and nothing else")
    return value


def _recipients_of(keys: EncryptionKeys) -> tuple[str, ...]:
    if not keys.recipients_file:
        return ()
    path = Path(keys.recipients_file).expanduser()
    lines = [line.strip() for line in read_secret_file(path, what="the recipients", private=False).splitlines()]
    found = tuple(line for line in lines if line and not line.startswith("#"))
    if not found:
        raise ConfigError(
            f"{path} holds no recipient", hint="write one public key a line: age1…, ssh-ed25519 … or ssh-rsa …"
        )
    _require_valid(found, (), str(path))
    return found


def _require_valid(recipients: tuple[str, ...], identities: tuple[str, ...], place: str) -> None:
    """Refuse keys with a word on where they are: `Encryption` alone does not know."""
    try:
        Encryption(recipients=recipients, identities=identities, compression_level=None)
    except ConfigError as error:
        # Its cause may know too much.
        raise ConfigError(
            f"{place}: {error.message}", code=error.code, fields={"place": place}, hint=error.hint
        ) from None

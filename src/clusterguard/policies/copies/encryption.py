"""The encryption that a policy asks for: its keys, read from where the policy says."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clusterguard.errors import ConfigError
from clusterguard.stores.encryption import Encryption

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clusterguard.policies.policy import Encryption as EncryptionKeys
    from clusterguard.policies.policy import Policy, Secret

__all__ = ["encryption_of", "read_secret"]

_LARGEST_BYTES: Final = 64 * 1024  # a key is a few hundred bytes; anything larger is something else
_BY_GROUP_OR_OTHERS: Final = 0o077
_GROUP_READS: Final = 0o040


def encryption_of(policy: Policy, environ: Mapping[str, str]) -> Encryption:
    """Return how a policy's copies are encrypted, and decrypted where it names a private key or a passphrase.

    Args:
        policy: The policy.
        environ: The variables that secrets may be in.

    Raises:
        ConfigError: A key cannot be read, is none, or lies in a file that others may read.
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

    A file of this user must be readable by nobody else, as ssh has it. One of another user may be readable by our
    group too: that is how Kubernetes gives secrets (0440, of root) to a pod that does not run as root.

    Args:
        secret: Where it is.
        environ: The variables.
        what: Is looked for, in words for messages; they never hold any of the secret.

    Raises:
        ConfigError: It is not there, is empty, or is no text, or others may read or change it.
    """
    if secret.env:
        value = environ.get(secret.env, "").strip()
        if not value:
            raise ConfigError(
                f"{what} should be in the variable {secret.env}, which is not set", hint=f"set {secret.env}"
            )
        return value
    value = _read(Path(secret.file).expanduser(), what=what, private=True).strip()
    if not value:
        raise ConfigError(f"{what}: {secret.file} is empty", hint="put it there, and nothing else")
    return value


def _recipients_of(keys: EncryptionKeys) -> tuple[str, ...]:
    if not keys.recipients_file:
        return ()
    path = Path(keys.recipients_file).expanduser()
    lines = [line.strip() for line in _read(path, what="the recipients", private=False).splitlines()]
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
        raise ConfigError(f"{place}: {error.message}", hint=error.hint) from None  # its cause may know too much


def _read(path: Path, *, what: str, private: bool) -> str:
    try:
        with path.open("rb") as file:
            # Of the open file: the name may mean another one by the time it is read.
            _require_safe(path, os.fstat(file.fileno()), what=what, private=private)
            data = file.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{what}: {path}: {error.strerror}", hint="check the path in the policy, and that this user may read it"
        ) from error
    if len(data) > _LARGEST_BYTES:
        raise ConfigError(f"{what}: {path} is larger than any file of keys", hint="check the path in the policy")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ConfigError(
            f"{what}: {path} is no text",
            hint="an identity that is itself encrypted must be decrypted first: age -d -o FILE",
        ) from None


def _require_safe(path: Path, status: os.stat_result, *, what: str, private: bool) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if not private:
        if mode & stat.S_IWOTH:
            raise ConfigError(
                f"{what}: everybody may write to {path} (mode {mode:04o}), and add a key of their own",
                hint=f"chmod o-w {path}",
            )
        return
    allowed = _GROUP_READS if status.st_uid != os.geteuid() else 0
    if mode & _BY_GROUP_OR_OTHERS & ~allowed:
        raise ConfigError(
            f"{what}: others may read {path}, or change it (mode {mode:04o})",
            hint=f"chmod 600 {path}; in Kubernetes, give the volume of the secret defaultMode: 0440",
        )

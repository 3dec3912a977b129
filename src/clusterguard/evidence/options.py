"""What the command line and pytest say of evidence: where it is kept, and what signs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from clusterguard.errors import ConfigError
from clusterguard.evidence.bundle import evidence_store
from clusterguard.evidence.keys import SigningKey, load_signing_key
from clusterguard.secret_files import read_secret_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["EvidenceSettings", "evidence_settings"]

_PASSPHRASE = "COSIGN_PASSWORD"  # noqa: S105 - the name of a variable, which cosign gave it


class EvidenceSettings(TypedDict):
    """The parts of `DrillSettings` that are about evidence."""

    evidence: str | None
    evidence_key: SigningKey | None


def evidence_settings(
    location: str, *, key: Path | None, passphrase_file: Path | None, environ: Mapping[str, str]
) -> EvidenceSettings:
    """Read what evidence needs, so that what will not do is told before anything runs.

    Args:
        location: A folder or the location of a store; empty for no evidence.
        key: File with the private key that signs it; None signs nothing.
        passphrase_file: File with the passphrase of the key; without it ``COSIGN_PASSWORD`` has it, if anything does.
        environ: The variables of this process.

    Raises:
        ConfigError: The location or the key is not valid, or the key has nothing to sign.
    """
    if location:
        evidence_store(location)
    elif key is not None:
        raise ConfigError("a key is given, and no evidence for it to sign", hint="give --evidence, too")
    passphrase = environ.get(_PASSPHRASE)
    if passphrase_file is not None:
        text = read_secret_file(passphrase_file, what="the passphrase of the key that signs evidence")
        passphrase = text.removesuffix("\n").removesuffix("\r")
    signing = load_signing_key(key, passphrase=passphrase) if key is not None else None
    return {"evidence": location or None, "evidence_key": signing}

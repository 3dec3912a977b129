"""Secrets that were written where only their location belongs: found, reported, and kept out of messages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from clusterguard.documents.model import Model

__all__ = ["PRIVATE_KEY", "SECRET_KEYS", "secret_in_place", "without_secrets"]

SECRET_KEYS: Final = frozenset({
    "recipients", "passphraseFile", "passphraseEnv", "identityFile", "identityEnv", "urlFile", "urlEnv", "keyFile",
    "passwordEnv",
})  # fmt: skip
"""Keys that name where a secret is, and whose value may be the secret itself by mistake."""

_INSTEAD: Final = {
    "passphrase": ("passphraseFile", "passphraseEnv"),
    "password": ("passwordEnv", "passphraseFile", "passphraseEnv"),
    "identity": ("identityFile", "identityEnv"),
    "identities": ("identityFile", "identityEnv"),
    "url": ("urlFile", "urlEnv"),
    "webhook": ("urlFile", "urlEnv"),
    "token": ("urlFile", "urlEnv"),
}
PRIVATE_KEY: Final = re.compile(r"AGE-SECRET-KEY-|AGE-PLUGIN-|PRIVATE KEY-----", re.IGNORECASE)
"""How private keys begin: of age, of its plugins, and in PEM, as SSH's are."""

_ANYWHERE: Final = (
    re.compile(r"(?<=AGE-SECRET-KEY-)\w+|(?<=AGE-PLUGIN-)[-\w]+", re.IGNORECASE),
    re.compile(r"(?<=PRIVATE KEY-----).+"),
    re.compile(r"(?<=://)[^/\s@]*(?=@)"),
)
# A line of the file as problems show it. Where a key holds a secret the rest of its line goes, too.
_EXCERPT: Final = re.compile(r"^ *[0-9]+ \| .*$", re.MULTILINE)
_KEY: Final = r"""(?:^|(?<=[\s{{,"']))(?:{keys})["']?\s*:\s*"""
_NAME_ALONE: Final = r"""["']?(?:[a-z_]\w*|\$\{env\.\w+\})["']?\s*(?:[,}#]|$)"""
_IN_A_LINE: Final = tuple(
    re.compile(_KEY.format(keys=keys) + value, re.IGNORECASE)
    for keys, value in (
        ("|".join(key for key in _INSTEAD if key != "url") + "|secret", r"(?P<secret>\S.*)"),
        ("url", r"(?P<secret>[\"']?(?!(?:s3|file)://)[a-z0-9+.-]+://.*)"),
        ("passphraseFile|identityFile|urlFile|keyFile", r"(?P<secret>.*://.*)"),
        ("passphraseEnv|passwordEnv|identityEnv|urlEnv", rf"(?P<secret>(?!{_NAME_ALONE})\S.*)"),
    )
)


def secret_in_place(model: type[Model], key: str) -> str | None:
    """Return what to say of a key that would hold a secret, or None where it is just unknown."""
    known = set(model.keys())
    instead = " or ".join(f"`{each}`" for each in _INSTEAD.get(key.lower(), ()) if each in known)
    return f"`{key}` would put a secret into the file; use {instead}" if instead else None


def without_secrets(text: str) -> str:
    """Return a message with what may be a secret made unreadable, character by character."""
    for pattern in _ANYWHERE:
        text = pattern.sub(lambda found: "•" * len(found.group()), text)
    return _EXCERPT.sub(lambda line: _line_without_secrets(line.group()), text)


def _line_without_secrets(line: str) -> str:
    for pattern in _IN_A_LINE:
        if found := pattern.search(line):
            line = line[: found.start("secret")] + "•" * len(found["secret"])
    return line

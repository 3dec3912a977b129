"""How far a store reaches, and whether two of them are the same place."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from clusterguard.errors import ConfigError
from clusterguard.stores import open_store

__all__ = ["StorageRoot", "resolve_url", "storage_root"]

_RELATIVE: Final = ("./", "../", "~/")


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageRoot:
    """A part of a system that stores bytes."""

    system: str  # this machine's files, or one bucket of one server
    parts: tuple[str, ...]  # the folders, from the top

    def relation(self, other: StorageRoot) -> str | None:
        """Return how this lies to another one, in words, or None where they have nothing in common."""
        if self.system != other.system:
            return None
        if self.parts == other.parts:
            return "is the same storage as"
        if self.parts[: len(other.parts)] == other.parts:
            return "is inside of"
        return "contains" if other.parts[: len(self.parts)] == self.parts else None


def resolve_url(url: str, directory: Path) -> str:
    """Return a store's location with its paths made absolute, relative ones beginning in ``directory``."""
    if url.startswith(_RELATIVE) or url in {".", "..", "~"}:
        return os.path.normpath(directory / Path(url).expanduser())
    base, mark, query = url.partition("?")
    if not base.startswith("s3://") or not mark:
        return url
    pairs = parse_qsl(query, keep_blank_values=True)
    if not any(name == "ca" and not Path(value).is_absolute() for name, value in pairs):
        return url  # as it was written: what is wrong with it is for the store to say
    absolute = [
        (name, os.path.normpath(directory / Path(value).expanduser()) if name == "ca" and value else value)
        for name, value in pairs
    ]
    return f"{base}?{urlencode(absolute, safe='/:')}"


def storage_root(url: str) -> StorageRoot:
    """Return how far the store at a location reaches; nothing is connected to.

    Raises:
        ConfigError: It is not a store's location, or one that is gone with the process.
    """
    opened = urlsplit(open_store(url).url)
    match opened.scheme:
        case "file":
            return StorageRoot(system="files", parts=Path(unquote(opened.path)).resolve().parts)
        case "s3":
            server = dict(parse_qsl(opened.query)).get("endpoint", "").rstrip("/").lower()
            parts = tuple(part for part in unquote(opened.path).split("/") if part)
            return StorageRoot(system=f"s3://{opened.netloc}@{server}", parts=parts)
    raise ConfigError(
        f"{url!r} is gone when the process ends", hint="write a folder, such as ./backups, or s3://bucket/prefix"
    )

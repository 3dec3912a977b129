"""The port to wherever bytes rest: five verbs, all of them streams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable
from unicodedata import category

from clusterguard.errors import ConfigError, ObjectChangedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from datetime import datetime

__all__ = [
    "CHUNK_BYTES",
    "PARTIAL",
    "ByteReader",
    "ObjectInfo",
    "ObjectStore",
    "ObjectWriter",
    "check_key",
    "key_problem",
    "object_changed",
]

CHUNK_BYTES = 1 << 20
"""How much to read at a time where nothing else decides: large enough to be fast, too small to matter."""

PARTIAL = ".clusterguard-partial"
"""The first part of a key that no object has: `LocalStore` keeps unfinished objects there."""

_LONGEST_KEY = 1024  # bytes; S3's own limit, so that an object may move to any store


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """What a store says about one object.

    Attributes:
        key: Path inside the store, with ``/`` between its parts, never starting with one.
        size: Bytes.
        modified: When the store made the object visible, in UTC, to the store's own resolution.
        encoded: Whether the size is that of compressed or encrypted bytes, and not of those that `get` gives.
        version: What `put` takes as ``if_version``; opaque, and another one whenever the bytes change. Empty in a
            store that has no versions.
    """

    key: str
    size: int
    modified: datetime
    encoded: bool = False
    version: str = ""


class ObjectWriter(Protocol):
    """Takes the bytes of one object, in order."""

    def write(self, data: bytes | bytearray | memoryview, /) -> object:
        """Take the next bytes. The buffer may be reused by the caller as soon as this returns.

        Raises:
            StoreError: The store cannot take them (full, gone, refused); the object will not appear.
        """


class ByteReader(Protocol):
    """Gives the bytes of one object, in order, all of them from one version of it."""

    def read(self, size: int = ..., /) -> bytes:
        """Return at most ``size`` bytes, and ``b""`` only at the end.

        Raises:
            StoreError: The bytes so far are not the object: the stream broke (StoreUnavailableError), or the
                object was replaced or removed meanwhile and the store no longer has the bytes of the old one.
        """


@runtime_checkable
class ObjectStore(Protocol):
    """A place for objects.

    Every verb refuses a key that `check_key` refuses. A key may be a part of another one's path (``a`` and
    ``a/b``) only in stores that have no directories underneath, so do not rely on it.
    """

    @property
    def url(self) -> str:
        """Where this is, as `open_store` would take it, without secrets."""

    def put(
        self, key: str, *, overwrite: bool = False, if_version: str | None = None
    ) -> AbstractContextManager[ObjectWriter]:
        """Open an object for writing.

        Leaving the ``with`` block normally makes the whole object visible, durably and at once; leaving it
        by an exception, or losing the process, leaves the store as it was.

        Args:
            key: The object.
            overwrite: Whether the key may be taken.
            if_version: Replace the object only if it still is this version (`ObjectInfo.version`), as one atomic
                step: of several writers that name the version that is there, with bytes of their own each, one
                succeeds. Writers that name no version are not excluded, so let all writers of such a key name one.

        Raises:
            ObjectExistsError: The key is taken, ``overwrite`` is false and no version is named; checked on entry and
                again at the end.
            ObjectChangedError: The object is another version, or gone; checked at the end.
            ConfigError: A version is named, and the store has none.
            StoreError: The object could not be made visible.
        """

    def get(self, key: str) -> AbstractContextManager[ByteReader]:
        """Open an object for reading.

        Raises:
            ObjectNotFoundError: There is none.
        """

    def stat(self, key: str) -> ObjectInfo:
        """Describe one object.

        Raises:
            ObjectNotFoundError: There is none.
        """

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the visible objects whose key starts with ``prefix``, in ascending order of their keys."""

    def delete(self, key: str) -> None:
        """Remove an object; removing one that is not there is no error."""


def key_problem(key: str) -> str | None:
    """Return what is wrong with a key, or None where nothing is."""
    parts = key.split("/")
    problems = (
        (not key, "it is empty"),
        (not all(parts), "it has an empty part (a / at its start or end, or two in a row)"),
        ("." in parts or ".." in parts, "it has a part . or .."),
        (parts[0] == PARTIAL, f"{PARTIAL} is where unfinished objects are kept"),
        # Cs is half a surrogate pair: text that has no UTF-8.
        (
            any(category(letter) in {"Cc", "Cs"} for letter in key),
            "it has a control character or half a letter",
        ),
        (len(key.encode(errors="surrogatepass")) > _LONGEST_KEY, f"it is longer than {_LONGEST_KEY} bytes"),
    )
    return next((problem for wrong, problem in problems if wrong), None)


def check_key(key: str) -> None:
    """Refuse a key that no store takes.

    Raises:
        ConfigError: It is empty, longer than 1024 bytes, or has an empty part, ``.``, ``..`` or a control
            character.
    """
    problem = key_problem(key)
    if problem is not None:
        raise ConfigError(
            f"{key[:80]!r} is not a valid object key: {problem}",
            hint="write it like snapshots/2030-01-31.db: names with / between them",
        )


def object_changed(place: str) -> ObjectChangedError:
    """Return the error for an object that is not the version which a put was to replace."""
    return ObjectChangedError(
        f"{place}: the object has changed: it is not the version to replace", hint="read it again before replacing it"
    )

"""`EncryptedStore`: an object store whose objects rest encrypted in another one."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from clusterguard.errors import ConfigError, ObjectExistsError, ObjectNotFoundError
from clusterguard.stores.base import ObjectInfo, check_key, key_problem
from clusterguard.stores.encryption.encryption import SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from datetime import datetime

    from clusterguard.stores.base import ByteReader, ObjectStore, ObjectWriter
    from clusterguard.stores.encryption.encryption import Encryption

__all__ = ["EncryptedStore", "StoredObject"]

_T = TypeVar("_T")
_MARKS: Final = (".zst", ".age")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """What a put left in the store.

    Attributes:
        key: Under which the inner store has it, suffix included.
        size: Bytes there.
        sha256: Of those bytes, in lower-case hexadecimal.
    """

    key: str
    size: int
    sha256: str


class EncryptedStore:
    """Compresses and encrypts what is put into another store, and undoes it for what is read.

    Keys are without the suffix that tells how an object is stored (``NAME.db`` rests as ``NAME.db.zst.age``).
    What was written otherwise is found and read too: policies change, and old backups stay. Where an object lies
    there in two ways, the one that this encryption would write counts. Sizes are those of the stored bytes, marked by
    `ObjectInfo.encoded`: what is inside is known only to who opens it.

    Args:
        inner: Where the objects rest.
        encryption: How.
        plain: Keys that end so are passed through untouched.
    """

    def __init__(self, inner: ObjectStore, encryption: Encryption, *, plain: tuple[str, ...] = (".json",)) -> None:
        self._inner = inner
        self._encryption = encryption
        self._plain = plain
        self._stored: dict[str, StoredObject] = {}

    @property
    def url(self) -> str:
        """The inner store's."""
        return self._inner.url

    @property
    def inner(self) -> ObjectStore:
        """Where the objects rest encrypted."""
        return self._inner

    @property
    def encryption(self) -> Encryption:
        """How objects are encrypted and decrypted."""
        return self._encryption

    def stored(self, key: str) -> StoredObject:
        """Return what the last put of a key by this very store left; its digest was computed on the way.

        Raises:
            ObjectNotFoundError: This store has not put it.
        """
        try:
            return self._stored[key]
        except KeyError:
            raise ObjectNotFoundError(f"{self.url}: {key}: not put by this run", hint="put it first") from None

    @contextmanager
    def put(self, key: str, *, overwrite: bool = False, if_version: str | None = None) -> Iterator[ObjectWriter]:
        """Open an object for writing; see `ObjectStore.put`. One that was written otherwise takes the key too."""
        stored = key + self._suffix(key)
        creates = not overwrite and if_version is None
        if creates:
            self._refuse_others(key)
        with self._inner.put(stored, overwrite=overwrite, if_version=if_version) as raw:
            digesting = _Digesting(raw)
            with self._encrypting(key, digesting) as writer:
                yield writer
            if creates:
                self._refuse_others(key)
        self._stored[key] = StoredObject(key=stored, size=digesting.size, sha256=digesting.hexdigest())
        for other in self._others(key):
            self._inner.delete(other)

    @contextmanager
    def get(self, key: str) -> Iterator[ByteReader]:
        """Open an object for reading; see `ObjectStore.get`.

        Raises:
            ObjectNotFoundError: There is none.
            WrongKeyError: Nothing at hand opens it; a read may raise this too.
        """
        with ExitStack() as stack:

            def opened(stored: str) -> ByteReader:
                raw = stack.enter_context(self._inner.get(stored))
                return stack.enter_context(self._encryption.decrypting(raw, suffix=stored.removeprefix(key)))

            yield self._first(key, opened)

    def stat(self, key: str) -> ObjectInfo:
        """Describe one object; see `ObjectStore.stat`. The size is that of the stored bytes."""
        return _as_seen(self.stat_stored(key), key)

    def stat_stored(self, key: str) -> ObjectInfo:
        """Describe an object as the inner store has it: under its key there, with the suffix.

        Raises:
            ObjectNotFoundError: There is none.
        """
        return self._first(key, self._inner.stat)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose key starts with ``prefix``, in the order of their keys.

        All of them are held in memory: without their suffixes, keys have another order than with them.
        """
        found: dict[str, ObjectInfo] = {}
        for info in self._inner.list(prefix):
            key = self._key_of(info.key)
            if key is not None and key.startswith(prefix) and (key not in found or info.key == key + self._suffix(key)):
                found[key] = _as_seen(info, key)
        yield from (found[key] for key in sorted(found))

    def delete(self, key: str) -> None:
        """Remove an object, however it is stored; removing one that is not there is no error."""
        self._inner.delete(key + self._suffix(key))
        for other in self._others(key):
            self._inner.delete(other)

    @property
    def locked_until(self) -> Callable[[str], datetime | None]:
        """The inner store's, for keys without suffix; there is no such attribute where it has none."""
        inner: Any = self._inner
        ask: Callable[[str], datetime | None] = inner.locked_until
        return lambda key: self._first(key, ask)

    def _encrypting(self, key: str, sink: ObjectWriter) -> AbstractContextManager[ObjectWriter]:
        return nullcontext(sink) if key.endswith(self._plain) else self._encryption.encrypting(sink)

    def _suffix(self, key: str) -> str:
        check_key(key)
        if key.endswith(_MARKS):
            raise ConfigError(
                f"{key!r} ends like an object that is compressed or encrypted already",
                hint="give the key without .zst and .age",
            )
        return "" if key.endswith(self._plain) else self._encryption.suffix

    def _key_of(self, stored: str) -> str | None:
        """Return the key of a stored object; None for one that this store would never have written."""
        suffix = next(suffix for suffix in SUFFIXES if stored.endswith(suffix))
        key = stored.removesuffix(suffix)
        if suffix and (key_problem(key) is not None or key.endswith((*self._plain, *_MARKS))):
            return None
        return key

    def _first(self, key: str, ask: Callable[[str], _T]) -> _T:
        """Ask about an object as this encryption would have written it, or else as it lies there."""
        try:
            return ask(key + self._suffix(key))
        except ObjectNotFoundError as error:
            for other in self._others(key):
                return ask(other)
            raise ObjectNotFoundError(f"{self.url}: {key}: there is no such object", fields={"key": key}) from error

    def _others(self, key: str) -> Iterator[str]:
        """Yield the stored objects of a key that are written otherwise, by one listing and not a question for each."""
        own = key + self._suffix(key)
        if key.endswith(self._plain):
            return
        others = {key + suffix for suffix in SUFFIXES} - {own}
        for info in self._inner.list(key):
            if info.key in others:
                yield info.key
            if info.key >= max(others):
                return

    def _refuse_others(self, key: str) -> None:
        for other in self._others(key):
            raise ObjectExistsError(
                f"{self.url}: {key}: the object exists already by {other}",
                hint="choose another key, or allow overwriting",
            )


class _Digesting:
    """Passes bytes on, and knows how many they were and their digest."""

    def __init__(self, sink: ObjectWriter) -> None:
        self._sink = sink
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        self._sink.write(data)
        self._digest.update(data)
        self.size += memoryview(data).nbytes

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def _as_seen(info: ObjectInfo, key: str) -> ObjectInfo:
    return replace(info, key=key, encoded=info.key != key)

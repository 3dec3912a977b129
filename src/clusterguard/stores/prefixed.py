"""`PrefixedStore`: a part of another store, as a store of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from clusterguard.stores.base import check_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from datetime import datetime
    from pathlib import Path

    from clusterguard.stores.base import ByteReader, ObjectInfo, ObjectStore, ObjectWriter

__all__ = ["PrefixedStore"]


class PrefixedStore:
    """The objects of another store below a folder, under keys without it.

    The prefix of an `S3Store` is another thing: a part of an address in S3, and any text, where a folder follows the
    rules of keys.

    Args:
        inner: The whole store.
        folder: A part of keys, such as ``nightly`` or ``teams/blue``.

    Raises:
        ConfigError: No key could begin so.
    """

    def __init__(self, inner: ObjectStore, folder: str) -> None:
        check_key(folder)
        self._inner = inner
        self._folder = folder

    @property
    def url(self) -> str:
        """Where this is; `open_store` opens the same objects by it, unless they are in memory."""
        place, mark, settings = self._inner.url.partition("?")
        return f"{place}/{quote(self._folder)}{mark}{settings}"

    def put(
        self, key: str, *, overwrite: bool = False, if_version: str | None = None
    ) -> AbstractContextManager[ObjectWriter]:
        """Open an object for writing; see `ObjectStore.put`."""
        return self._inner.put(self._full(key), overwrite=overwrite, if_version=if_version)

    def get(self, key: str) -> AbstractContextManager[ByteReader]:
        """Open an object for reading; see `ObjectStore.get`."""
        return self._inner.get(self._full(key))

    def stat(self, key: str) -> ObjectInfo:
        """Describe one object; see `ObjectStore.stat`."""
        return self._seen(self._inner.stat(self._full(key)))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose key starts with ``prefix``, in the order of their keys."""
        return map(self._seen, self._inner.list(f"{self._folder}/{prefix}"))

    def delete(self, key: str) -> None:
        """Remove an object; removing one that is not there is no error."""
        self._inner.delete(self._full(key))

    @property
    def local_path(self) -> Callable[[str], Path]:
        """The inner store's; there is no such attribute where it has none."""
        inner: Any = self._inner
        path_of: Callable[[str], Path] = inner.local_path
        return lambda key: path_of(self._full(key))

    @property
    def get_range(self) -> Callable[[str, int, int], AbstractContextManager[ByteReader]]:
        """The inner store's; there is no such attribute where it has none."""
        inner: Any = self._inner
        ranged: Callable[[str, int, int], AbstractContextManager[ByteReader]] = inner.get_range
        return lambda key, first, size: ranged(self._full(key), first, size)

    @property
    def part_size(self) -> int:
        """The inner store's; there is no such attribute where it has none."""
        inner: Any = self._inner
        size: int = inner.part_size
        return size

    @property
    def locked_until(self) -> Callable[[str], datetime | None]:
        """The inner store's; there is no such attribute where it has none."""
        inner: Any = self._inner
        ask: Callable[[str], datetime | None] = inner.locked_until
        return lambda key: ask(self._full(key))

    def _full(self, key: str) -> str:
        check_key(key)
        return f"{self._folder}/{key}"

    def _seen(self, info: ObjectInfo) -> ObjectInfo:
        return replace(info, key=info.key.removeprefix(f"{self._folder}/"))

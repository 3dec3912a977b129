"""Objects in the memory of this process: for tests, and for runs that shall leave nothing."""

from __future__ import annotations

import io
import itertools
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from clusterguard.errors import ObjectExistsError, ObjectNotFoundError
from clusterguard.stores.base import ObjectInfo, check_key, object_changed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["MemoryStore"]


def _utc_now() -> datetime:
    return datetime.now(UTC)


class MemoryStore:
    """An object store that is gone with the process.

    Args:
        now: The clock that ``modified`` is read from, UTC.
    """

    def __init__(self, *, now: Callable[[], datetime] = _utc_now) -> None:
        self._now = now
        self._objects: dict[str, tuple[bytes, datetime, str]] = {}
        self._versions = itertools.count(1)
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Always ``memory:``, which `open_store` takes as a new, empty store."""
        return "memory:"

    @contextmanager
    def put(self, key: str, *, overwrite: bool = False, if_version: str | None = None) -> Iterator[io.BytesIO]:
        """Open an object for writing; see `ObjectStore.put`."""
        check_key(key)
        creates = not overwrite and if_version is None
        if creates:
            self._refuse_taken(key)
        data = io.BytesIO()
        yield data
        with self._lock:
            if creates:
                self._refuse_taken(key)
            if if_version is not None:
                self._refuse_changed(key, if_version)
            self._objects[key] = (data.getvalue(), self._now(), str(next(self._versions)))

    @contextmanager
    def get(self, key: str) -> Iterator[io.BytesIO]:
        """Open an object for reading; see `ObjectStore.get`."""
        data, _, _ = self._find(key)
        yield io.BytesIO(data)

    def stat(self, key: str) -> ObjectInfo:
        """Describe one object; see `ObjectStore.stat`."""
        data, modified, version = self._find(key)
        return ObjectInfo(key=key, size=len(data), modified=modified, version=version)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose key starts with ``prefix``, in the order of their keys."""
        with self._lock:
            found = sorted((key, *entry) for key, entry in self._objects.items() if key.startswith(prefix))
        for key, data, modified, version in found:
            yield ObjectInfo(key=key, size=len(data), modified=modified, version=version)

    def delete(self, key: str) -> None:
        """Remove an object; removing one that is not there is no error."""
        check_key(key)
        with self._lock:
            self._objects.pop(key, None)

    def _find(self, key: str) -> tuple[bytes, datetime, str]:
        check_key(key)
        try:
            return self._objects[key]
        except KeyError:
            raise ObjectNotFoundError(f"memory:{key}: there is no such object") from None

    def _refuse_taken(self, key: str) -> None:
        if key in self._objects:
            raise ObjectExistsError(
                f"memory:{key}: the object exists already", hint="choose another key, or allow overwriting"
            )

    def _refuse_changed(self, key: str, version: str) -> None:
        if key not in self._objects or self._objects[key][2] != version:
            raise object_changed(f"memory:{key}")

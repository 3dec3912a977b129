"""A store that shows what would be written, for plans."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from clusterguard.errors import ObjectExistsError, ObjectNotFoundError
from clusterguard.stores.base import ByteReader, ObjectInfo, ObjectStore, check_key, object_changed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

__all__ = ["DryRunStore", "PlannedChange"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedChange:
    """One change that was not made.

    Attributes:
        verb: What would have been done.
        key: To which object.
        size: Bytes that would have been put; 0 for a delete.
    """

    verb: Literal["put", "delete"]
    key: str
    size: int = 0


class DryRunStore:
    """Passes reads through to another store and records changes instead of making them.

    Reads show the other store as it is: an object that was "put" here cannot be read back. Its key is taken
    from then on, and a "deleted" one is free, so that a plan meets the refusals the real run would meet.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._planned: list[PlannedChange] = []

    @property
    def url(self) -> str:
        """The other store's."""
        return self._store.url

    @property
    def planned(self) -> tuple[PlannedChange, ...]:
        """The changes so far, in their order."""
        return tuple(self._planned)

    @contextmanager
    def put(self, key: str, *, overwrite: bool = False, if_version: str | None = None) -> Iterator[_Counter]:
        """Count what would be written; refuses what the other store would refuse."""
        check_key(key)
        if if_version is not None:
            self._refuse_changed(key, if_version)
        elif not overwrite and self._is_taken(key):
            raise ObjectExistsError(
                f"{self.url}: {key}: the object exists already", hint="choose another key, or allow overwriting"
            )
        counter = _Counter()
        yield counter
        self._planned.append(PlannedChange(verb="put", key=key, size=counter.size))

    def get(self, key: str) -> AbstractContextManager[ByteReader]:
        """Open an object of the other store for reading."""
        return self._store.get(key)

    def stat(self, key: str) -> ObjectInfo:
        """Describe an object of the other store."""
        return self._store.stat(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield objects of the other store."""
        return self._store.list(prefix)

    def delete(self, key: str) -> None:
        """Record that an object would be removed."""
        check_key(key)
        self._planned.append(PlannedChange(verb="delete", key=key))

    def _refuse_changed(self, key: str, version: str) -> None:
        planned = any(change.key == key for change in self._planned)
        if planned or not self._is_taken(key) or self._store.stat(key).version != version:
            raise object_changed(f"{self.url}: {key}")

    def _is_taken(self, key: str) -> bool:
        for change in reversed(self._planned):
            if change.key == key:
                return change.verb == "put"
        try:
            self._store.stat(key)
        except ObjectNotFoundError:
            return False
        return True


class _Counter:
    """Counts bytes and forgets them."""

    def __init__(self) -> None:
        self.size = 0

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Count the next bytes."""
        self.size += memoryview(data).nbytes

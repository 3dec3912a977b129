"""The port to backups that were there before a drill: those that a policy makes every night."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from clusterguard.model.snapshot import Snapshot
    from clusterguard.stores.base import ObjectStore

__all__ = ["StoredBackups", "StoredSnapshot"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSnapshot:
    """An etcd snapshot that a policy made.

    Attributes:
        record: What it is.
        store: Where `EtcdSnapshotter` finds it under its name; decrypts what is encrypted.
        location: What the policy calls the place.
    """

    record: Snapshot
    store: ObjectStore
    location: str


class StoredBackups(Protocol):
    """Finds the backups of policies."""

    def __call__(self, policy: Path, source: str, *, backup: str = "", location: str = "") -> StoredSnapshot:
        """Return a backup of a policy's source.

        Args:
            policy: The policy file.
            source: The source's name in it.
            backup: The backup's name; empty for the newest one that is not known to be damaged.
            location: The location's name; empty for the first one that has it.

        Raises:
            ConfigError: There is no such source or location, or the key to open it is missing.
            ObjectNotFoundError: There is no such backup.
        """

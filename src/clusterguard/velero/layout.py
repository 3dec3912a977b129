"""Where Velero keeps what in a bucket, and how the paths inside a backup's tarball are built.

Source: Velero 1.18, ``pkg/persistence/object_store_layout.go`` and ``pkg/archive/filesystem.go``. All keys are
relative to the prefix of the backup storage location, so a store is opened at that prefix.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from clusterguard.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "BACKUPS",
    "FORMAT_MAJOR",
    "ITEMS",
    "MANDATORY",
    "PREFERRED",
    "RESTORES",
    "TOP_LEVEL",
    "VERSION_PATH",
    "BackupFile",
    "BackupLayout",
    "ItemPath",
    "format_major",
    "parse_item_path",
    "plural_of",
    "repository_folder",
    "repository_key",
]

TOP_LEVEL: Final = frozenset({"backups", "restores", "restic", "metadata", "plugins", "kopia"})
"""The folders that may be under the prefix; with any other one Velero calls the location unavailable."""

BACKUPS: Final = "backups/"
RESTORES: Final = "restores/"
FORMAT_MAJOR: Final = 1
"""The major format version that is understood here; Velero 1.18 writes 1.1.0."""

VERSION_PATH: Final = "metadata/version"
ITEMS: Final = "resources"
PREFERRED: Final = "-preferredversion"
_CLUSTER, _NAMESPACES = "cluster", "namespaces"
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")


class BackupFile(StrEnum):
    """The files of one backup; the value is the key under the backup's folder."""

    METADATA = "velero-backup.json"
    CONTENTS = "{name}.tar.gz"
    RESOURCE_LIST = "{name}-resource-list.json.gz"
    RESULTS = "{name}-results.gz"
    VOLUME_INFO = "{name}-volumeinfo.json.gz"
    POD_VOLUME_BACKUPS = "{name}-podvolumebackups.json.gz"
    VOLUME_SNAPSHOTS = "{name}-volumesnapshots.json.gz"
    ITEM_OPERATIONS = "{name}-itemoperations.json.gz"
    LOG = "{name}-logs.gz"
    CSI_SNAPSHOTS = "{name}-csi-volumesnapshots.json.gz"
    CSI_CONTENTS = "{name}-csi-volumesnapshotcontents.json.gz"
    CSI_CLASSES = "{name}-csi-volumesnapshotclasses.json.gz"


# The log is uploaded as well as may be, and the files of CSI snapshots are no longer written.
MANDATORY: Final = (
    BackupFile.METADATA,
    BackupFile.CONTENTS,
    BackupFile.RESOURCE_LIST,
    BackupFile.RESULTS,
    BackupFile.VOLUME_INFO,
    BackupFile.POD_VOLUME_BACKUPS,
    BackupFile.VOLUME_SNAPSHOTS,
    BackupFile.ITEM_OPERATIONS,
)


@dataclass(frozen=True, slots=True)
class BackupLayout:
    """The keys of one backup.

    Raises:
        ConfigError: No backup can have that name.
    """

    name: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"{self.name[:80]!r} is not a valid name of a backup",
                code="invalid-name",
                hint="lower-case letters, digits, dashes and dots, 253 at most",
            )

    @property
    def folder(self) -> str:
        """What the keys of all its files start with."""
        return f"{BACKUPS}{self.name}/"

    def key(self, file: BackupFile) -> str:
        """Return the key of one of its files."""
        return self.folder + file.format(name=self.name)

    def known(self) -> Mapping[str, BackupFile]:
        """Return all keys that Velero may write for it."""
        return {self.key(file): file for file in BackupFile}


class ItemPath(NamedTuple):
    """The path of one object inside the tarball.

    Attributes:
        resource: Plural with its group, such as ``deployments.apps``.
        version: ``""`` for the copy that restores read by default, else such as ``v1``.
        preferred: Whether the version is marked as the one that the API server preferred.
        namespace: ``""`` for what has none.
        name: Of the object.
    """

    resource: str
    version: str
    preferred: bool
    namespace: str
    name: str

    @property
    def group(self) -> str:
        """The API group, ``""`` for the core group."""
        return self.resource.partition(".")[2]

    @property
    def full_name(self) -> str:
        """``namespace/name``, or the name alone, as resource lists write it."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


def parse_item_path(path: str) -> ItemPath | None:
    """Read ``resources/<resource.group>[/<version>]/{namespaces/<namespace>|cluster}/<name>.json``.

    Returns:
        None where the path is not of that form.
    """
    if not path.endswith(".json"):
        return None
    parts = path.split("/")
    if parts[0] != ITEMS or len(parts) < 4:  # noqa: PLR2004 - the shortest form has four
        return None
    count, scope, namespace, name = len(parts), parts[-3], parts[-2], parts[-1][:-5]
    # A namespace may be called "cluster", so the form with a namespace is looked for first.
    if scope == _NAMESPACES and count in {5, 6}:
        return _item(parts[1], parts[2:-3], namespace, name)
    if namespace == _CLUSTER and count in {4, 5}:
        return _item(parts[1], parts[2:-2], "", name)
    return None


def format_major(version: str) -> int | None:
    """Return the major number of a format version such as ``1.1.0``, or None where it is not valid."""
    major = version.partition(".")[0]
    return int(major) if major.isascii() and major.isdigit() else None


def repository_folder(uploader: str, namespace: str) -> str:
    """Return what the keys of the repository of a namespace's volumes start with.

    Args:
        uploader: ``kopia``, or ``restic`` in old backups.
        namespace: Of the volumes.
    """
    return f"{'restic' if uploader == 'restic' else 'kopia'}/{namespace}/"


def repository_key(uploader: str, namespace: str) -> str:
    """Return the key whose presence shows that the repository of a namespace's volumes exists.

    Args:
        uploader: ``kopia``, or ``restic`` in old backups.
        namespace: Of the volumes.
    """
    return repository_folder(uploader, namespace) + ("config" if uploader == "restic" else "kopia.repository")


def _item(resource: str, version: list[str], namespace: str, name: str) -> ItemPath:
    if not version:
        return ItemPath(resource, "", False, namespace, name)
    preferred = version[0].endswith(PREFERRED)
    return ItemPath(resource, version[0].removesuffix(PREFERRED), preferred, namespace, name)


def plural_of(kind: str) -> str:
    """Return the plural that Kubernetes gives to a kind of its own."""
    name = kind.lower()
    if name == "endpoints":
        return name
    if name.endswith("y") and name[-2:-1] not in "aeiou":
        return f"{name[:-1]}ies"
    return f"{name}es" if name.endswith(("s", "x", "ch", "sh")) else f"{name}s"

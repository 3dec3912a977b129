"""Which versions of other programs are supported: the one table that code, tests and documentation go by."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from clusterguard.errors import UnsupportedVersionError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ETCDUTL_BUMPS_REVISIONS",
    "SUPPORTED",
    "VersionRange",
    "parse_version",
    "require_restorable",
    "require_supported",
]

# Not part of a longer word: kind and kwok also print the Go version they were built with ("go1.26.8").
_VERSION = re.compile(r"(?<![\w.])v?(\d+)\.(\d+)\.(\d+)")


def parse_version(text: str) -> tuple[int, int, int] | None:
    """Return the first ``1.2.3`` or ``v1.2.3`` in what a program prints, or None where there is none."""
    match = _VERSION.search(text)
    if match is None:
        return None
    major, minor, patch = match.groups()
    return int(major), int(minor), int(patch)


@dataclass(frozen=True, slots=True)
class VersionRange:
    """The versions that will do: from ``at_least`` (included) to ``below`` (excluded)."""

    at_least: tuple[int, ...]
    below: tuple[int, ...]

    def __contains__(self, version: tuple[int, ...]) -> bool:
        return self.at_least <= version < self.below

    def __str__(self) -> str:
        return f">={_dotted(self.at_least)},<{_dotted(self.below)}"


SUPPORTED: Final[Mapping[str, VersionRange]] = MappingProxyType(
    {
        "etcd": VersionRange((3, 4), (3, 8)),
        "Kubernetes": VersionRange((1, 30), (1, 38)),
        "Velero": VersionRange((1, 14), (1, 19)),
        "Python": VersionRange((3, 11), (3, 15)),
    }
)
# The oldest etcdutl that can raise revisions (3.6.0 can, too). It also builds the data of an older etcd.
ETCDUTL_BUMPS_REVISIONS: Final = (3, 5, 10)
_KEEPS_STORAGE_VERSION: Final = (3, 6, 0)


def require_supported(program: str, version: str, *, where: str, reads_only: bool = False) -> None:
    """Return if a program that runs somewhere is supported.

    Args:
        program: As `SUPPORTED` calls it.
        version: What it says of itself, or ``""`` where it could not be asked, which is not held against it.
        where: How messages call the place.
        reads_only: Whether nothing there is changed, and what is read is checked by itself: then a newer version than
            any that was tested is no obstacle.

    Raises:
        UnsupportedVersionError: It is not.
    """
    supported, found = SUPPORTED[program], parse_version(version)
    if not version or (found is not None and (found in supported or (reads_only and found >= supported.below))):
        return
    newer = found is not None and found >= supported.below
    raise UnsupportedVersionError(
        f"{where} runs {program} {version}, which is not supported ({supported}); nothing was touched",
        fields={"program": program, "version": version, "supported": str(supported)},
        hint="upgrade clusterguard" if newer else f"upgrade {program}",
    )


def require_restorable(etcd_version: str, storage_version: str | None, *, live: str, where: str) -> None:
    """Return if an etcd starts on the data of a snapshot: its storage is not newer than that etcd.

    Since 3.6 a member writes the version of its storage down, and refuses a newer minor version than its own. Older
    members neither write nor read it (one may be left in their files from before a downgrade), so between two of them
    the version of the server counts.

    Args:
        etcd_version: Of the member that the snapshot was saved from, or ``""`` if unknown.
        storage_version: As the snapshot's file has it, or None.
        live: The etcd that would start, or ``""`` where it could not be asked.
        where: How messages call the place.

    Raises:
        UnsupportedVersionError: It would not start.
    """
    server, needed, starts = (parse_version(each or "") for each in (etcd_version, storage_version, live))
    if starts is None:
        return
    if server is not None and max(server, starts) < _KEEPS_STORAGE_VERSION:
        needed = server
    if needed is not None and needed[:2] > starts[:2]:
        storage = _dotted(needed[:2])
        raise UnsupportedVersionError(
            f"the snapshot's storage is of etcd {storage}, and {where} runs etcd {live}; nothing was touched",
            fields={"program": "etcd", "version": live, "storage": storage},
            hint=f"restore it where etcd {storage} or newer runs",
        )


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(number) for number in version)

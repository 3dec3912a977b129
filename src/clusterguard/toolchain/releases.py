"""Official release files: where they are and what their bytes must be, from ``releases.toml``."""

from __future__ import annotations

import platform
import sys
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Asset", "asset_for", "parse_releases", "pinned_releases", "this_platform"]

_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """One file of an official release for a platform such as ``linux-amd64``.

    ``programs`` has the path of each inside the archive, or ``""`` where the file itself is the program.
    """

    url: str
    sha256: str
    version: str
    platform: str
    programs: Mapping[str, str]

    @property
    def filename(self) -> str:
        """The last part of the address."""
        return self.url.rpartition("/")[2]


def this_platform() -> str:
    """Return this machine as Go names it, such as ``linux-amd64``."""
    machine = platform.machine().lower()
    return f"{sys.platform}-{_ARCHITECTURES.get(machine, machine)}"


def asset_for(program: str, *, releases: Iterable[Asset], platform: str) -> Asset | None:
    """Return the pinned file that holds a program for a platform, or None where none is pinned."""
    for asset in releases:
        if asset.platform == platform and program in asset.programs:
            return asset
    return None


def parse_releases(text: str) -> tuple[Asset, ...]:
    """Read the format of ``releases.toml``."""
    return tuple(Asset(**entry) for entry in tomllib.loads(text)["asset"])


@lru_cache(maxsize=1)
def pinned_releases() -> tuple[Asset, ...]:
    """Return the files whose checksums this version of clusterguard pins."""
    return parse_releases(resources.files(__package__).joinpath("releases.toml").read_text(encoding="utf-8"))

"""Velero: back up, verify in the bucket, restore, and say honestly what came of it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clusterguard.velero.client import VeleroClient
    from clusterguard.velero.install import InstallOptions
    from clusterguard.velero.locations import LocationSpec
    from clusterguard.velero.options import BackupOptions, RestoreOptions
    from clusterguard.velero.outcome import BackupOutcome, RestoreOutcome, Rule

__all__ = [
    "BackupOptions",
    "BackupOutcome",
    "InstallOptions",
    "LocationSpec",
    "RestoreOptions",
    "RestoreOutcome",
    "Rule",
    "VeleroClient",
]

_HOMES = {
    "BackupOptions": "velero.options",
    "BackupOutcome": "velero.outcome",
    "InstallOptions": "velero.install",
    "LocationSpec": "velero.locations",
    "RestoreOptions": "velero.options",
    "RestoreOutcome": "velero.outcome",
    "Rule": "velero.outcome",
    "VeleroClient": "velero.client",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attribute can be anything
    if name not in _HOMES:
        raise AttributeError(f"module 'clusterguard.velero' has no attribute {name!r}")
    return getattr(import_module(f"clusterguard.{_HOMES[name]}"), name)

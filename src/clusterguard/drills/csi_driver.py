"""A CSI driver with snapshots in the clusters that a drill creates: from manifests that the user has of one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

from clusterguard.clusters.applying import apply_all
from clusterguard.errors import ConfigError
from clusterguard.model.progress import ProgressSink, ignore_progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from clusterguard.clusters.kube import Json, KubeClient

__all__ = ["VARIABLE", "driver_manifests", "install_driver", "names_driver"]

VARIABLE: Final = "CLUSTERGUARD_CSI_MANIFESTS"
"""A file of manifests, or a folder of them; several are separated as in ``PATH``."""

_READY_SECONDS: Final = 300.0
_SUFFIXES: Final = (".yaml", ".yml")
_FIRST: Final = {"CustomResourceDefinition": 0, "Namespace": 1}


def names_driver(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether the user has manifests of a CSI driver for clusters that drills create."""
    return bool(environ.get(VARIABLE))


def driver_manifests(environ: Mapping[str, str] = os.environ) -> list[Json]:
    """Return the objects of the driver, definitions and namespaces first.

    Raises:
        ConfigError: A path is not there, holds no manifests or a kustomization, or is no YAML.
    """
    found: list[Json] = []
    for word in filter(None, environ.get(VARIABLE, "").split(os.pathsep)):
        for file in _files(Path(word)):
            found += _objects(file)
    return sorted(found, key=lambda each: _FIRST.get(str(each["kind"]), len(_FIRST)))


def install_driver(api: KubeClient, *, progress: ProgressSink = ignore_progress) -> None:
    """Apply the driver's manifests and wait until it runs; the nodes have its images, or pull them.

    Raises:
        ConfigError: The manifests cannot be read.
        WaitTimeoutError: It did not become ready.
    """
    apply_all(
        driver_manifests(), api=api, task="installing the CSI driver", wait_seconds=_READY_SECONDS, progress=progress
    )


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    files = sorted(each for each in path.glob("*") if each.suffix in _SUFFIXES) if path.is_dir() else []
    if not files:
        raise ConfigError(f"{VARIABLE}: {path} holds no manifests", hint="name a file of YAML, or a folder of such")
    return files


def _objects(file: Path) -> Iterator[Json]:
    try:
        documents = [each for each in yaml.safe_load_all(file.read_text(encoding="utf-8")) if each]
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{VARIABLE}: {file} cannot be read: {error}") from error
    for each in documents:
        kind = each.get("kind") if isinstance(each, dict) else None
        if kind == "Kustomization":
            raise ConfigError(
                f"{VARIABLE}: {file} is a kustomization, not what it makes",
                hint=f"kubectl kustomize {file.parent} > driver.yaml, and name that file",
            )
        if kind == "List":
            yield from each.get("items") or ()
        elif not kind or not (each.get("metadata") or {}).get("name"):
            raise ConfigError(f"{VARIABLE}: {file} holds something that is no Kubernetes object")
        else:
            yield each

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from real_backup import NAMESPACE, PROGRAMS, apply_workloads, velero_lab

from clusterguard.clusters import EmbeddedCluster
from clusterguard.model.inventory import Inventory, Scope
from clusterguard.validate.capture import capture

if TYPE_CHECKING:
    from pathlib import Path

    from clusterguard.stores.s3 import S3Store


@dataclass(frozen=True)
class RealBackups:
    """What Velero's server wrote, and what was in the cluster then.

    Attributes:
        store: The S3 server, opened at the location's prefix.
        directory: The same, as files.
        statuses: Of the Backup objects in the cluster, by name.
        shop: The inventory of the namespace.
        everything: The inventory of the whole cluster.
    """

    store: S3Store
    directory: Path
    statuses: dict[str, Any]
    shop: Inventory
    everything: Inventory


@pytest.fixture(scope="module")
def real(toolchain, tmp_path_factory):
    """Real backups, made once: of a namespace, of everything, of nothing, and with file-system backup asked for."""
    specs = {
        "shop": {"includedNamespaces": [NAMESPACE], "ttl": "240h"},
        "everything": {},
        "all-kinds": {"includedClusterScopedResources": ["*"], "includedNamespaceScopedResources": ["*"]},
        "nothing": {"includedNamespaces": ["no-such-namespace"]},
        "files": {"includedNamespaces": [NAMESPACE], "defaultVolumesToFsBackup": True},
    }
    programs = toolchain.ensure(*PROGRAMS)
    folder = tmp_path_factory.mktemp("velero")
    with EmbeddedCluster(toolchain=toolchain, home=tmp_path_factory.mktemp("clusters")) as cluster:
        apply_workloads(cluster.api)
        with velero_lab(cluster, programs, folder) as lab:
            shop, everything = (capture(cluster.api, scope) for scope in (Scope(namespaces=(NAMESPACE,)), Scope()))
            statuses = {name: lab.back_up(name, **spec)["status"] for name, spec in specs.items()}
            yield RealBackups(
                store=lab.store, directory=lab.directory, statuses=statuses, shop=shop, everything=everything
            )

"""The kind provider: real nodes, kubelets, pods and volumes, in Docker containers."""

from clusterguard.clusters.kind.cluster import KindCluster, default_home
from clusterguard.clusters.kind.docker import Docker
from clusterguard.clusters.kind.records import KindRecord

__all__ = ["Docker", "KindCluster", "KindRecord", "default_home"]

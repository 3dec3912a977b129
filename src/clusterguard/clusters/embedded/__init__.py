"""The embedded provider: a control plane of child processes, on a machine with nothing installed."""

from clusterguard.clusters.embedded.cluster import PROGRAMS, EmbeddedCluster, default_home
from clusterguard.clusters.embedded.records import ClusterRecord

__all__ = ["PROGRAMS", "ClusterRecord", "EmbeddedCluster", "default_home"]

"""Which cluster can do what: asked for by what it has, never by its provider's name."""

from itertools import product

from clusterguard.clusters import capabilities
from clusterguard.clusters.embedded import EmbeddedCluster
from clusterguard.clusters.existing import ExistingCluster
from clusterguard.clusters.kind import KindCluster

CAN = {
    EmbeddedCluster: {"EtcdFaults", "HasExternalVelero", "MemberFaults"},
    KindCluster: {"LoadsImages", "EtcdFaults", "MemberFaults", "OnDockerNetwork", "NodePowerControl"},
    ExistingCluster: set(),
}
ALL = set.union(*CAN.values())


def members(capability):
    return {name for name in vars(capability) if not name.startswith("_")}


def test_a_cluster_has_all_of_a_capability_or_nothing_that_is_its_alone():
    for cluster, capability in product(CAN, sorted(ALL)):
        needed = members(getattr(capabilities, capability)) - {"api"}
        has = {name for name in needed if hasattr(cluster, name)}
        assert has == (needed if capability in CAN[cluster] else set()), (cluster, capability)

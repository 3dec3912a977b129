"""Which cluster can do what: asked for by what it has, never by its provider's name."""

import pytest

from clusterguard.clusters import capabilities
from clusterguard.clusters.embedded import EmbeddedCluster
from clusterguard.clusters.existing import ExistingCluster
from clusterguard.clusters.kind import KindCluster

CAN = {
    EmbeddedCluster: {"EtcdFaults", "HasExternalVelero"},
    KindCluster: {"LoadsImages", "EtcdFaults", "OnDockerNetwork", "NodePowerControl"},
    ExistingCluster: set(),
}
ALL = set.union(*CAN.values())


def members(capability):
    return {name for name in vars(capability) if not name.startswith("_")}


@pytest.mark.parametrize("capability", sorted(ALL))
@pytest.mark.parametrize("cluster", CAN, ids=lambda cluster: cluster.__name__)
def test_a_cluster_has_all_of_a_capability_or_nothing_that_is_its_alone(cluster, capability):
    needed = members(getattr(capabilities, capability)) - {"api"}
    has = {name for name in needed if hasattr(cluster, name)}
    assert has == (needed if capability in CAN[cluster] else set())

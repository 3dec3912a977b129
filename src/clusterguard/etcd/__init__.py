"""etcd snapshots: `EtcdSnapshotter` saves, lists, verifies and restores them."""

from clusterguard.etcd.snapshotter import EtcdSnapshotter

__all__ = ["EtcdSnapshotter"]

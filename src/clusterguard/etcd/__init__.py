"""etcd snapshots: `EtcdSnapshotter` saves, lists, verifies and restores them."""

from clusterguard.lazy_names import lazy_names

__getattr__, __dir__ = lazy_names(__name__, __file__)

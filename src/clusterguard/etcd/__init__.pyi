from clusterguard.etcd.snapshotter import EtcdSnapshotter as EtcdSnapshotter

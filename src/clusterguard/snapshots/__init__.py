"""Objects out of etcd snapshots, with no cluster at hand: `SnapshotReader`."""

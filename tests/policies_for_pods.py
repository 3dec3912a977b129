"""Sources of policies that run in pods."""

from __future__ import annotations

from clusterguard.policies.deploy.kubernetes import IN_CLUSTER
from clusterguard.policies.policy import EtcdSource, Source, VeleroSource

PKI = "/etc/kubernetes/pki/etcd"
NODE_ETCD = Source(
    name="etcd",
    etcd=EtcdSource(
        endpoints=("https://127.0.0.1:2379",),
        ca_file=f"{PKI}/ca.crt",
        cert_file=f"{PKI}/healthcheck-client.crt",
        key_file=f"{PKI}/healthcheck-client.key",
    ),
)
SECRET_ETCD = Source(
    name="etcd",
    etcd=EtcdSource(
        endpoints=("https://etcd.example.com:2379",),
        ca_file="/etc/clusterguard/etcd/ca.crt",
        cert_file="/etc/clusterguard/etcd/tls.crt",
        key_file="/etc/clusterguard/etcd/tls.key",
    ),
)
SHOP = Source(
    name="shop", velero=VeleroSource(cluster=IN_CLUSTER, bucket="s3://velero/backups", included_namespaces=("shop",))
)


def changed(source: Source, **fields: object) -> Source:
    """Return a source whose etcd or Velero is another one."""
    key = "etcd" if source.etcd else "velero"
    return source.model_copy(update={key: source.engine.model_copy(update=fields)})

"""Sources of policies that run in pods."""

from __future__ import annotations

from clusterguard.policies.deploy.kubernetes import IN_CLUSTER
from clusterguard.policies.policy import EtcdSource, VeleroSource

PKI = "/etc/kubernetes/pki/etcd"
NODE_ETCD = EtcdSource(
    name="etcd",
    endpoints=("https://127.0.0.1:2379",),
    ca=f"{PKI}/ca.crt",
    cert=f"{PKI}/healthcheck-client.crt",
    key=f"{PKI}/healthcheck-client.key",
)
SECRET_ETCD = EtcdSource(
    name="etcd",
    endpoints=("https://etcd.example.com:2379",),
    ca="/etc/clusterguard/etcd/ca.crt",
    cert="/etc/clusterguard/etcd/tls.crt",
    key="/etc/clusterguard/etcd/tls.key",
)
SHOP = VeleroSource(name="shop", cluster=IN_CLUSTER, bucket="s3://velero/backups", included_namespaces=("shop",))

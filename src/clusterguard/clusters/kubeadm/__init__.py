"""A control plane that kubeadm made: etcd, API server and controllers are static pods of its nodes' kubelets."""

from clusterguard.clusters.kubeadm.access import etcd_access
from clusterguard.clusters.kubeadm.control_plane import KubeadmControlPlane
from clusterguard.clusters.kubeadm.restore_commands import Command, Timeouts

__all__ = ["Command", "KubeadmControlPlane", "Timeouts", "etcd_access"]

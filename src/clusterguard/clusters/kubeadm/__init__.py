"""A control plane that kubeadm made, of static pods of its nodes' kubelets; etcd may be on hosts of its own."""

from clusterguard.clusters.kubeadm.access import etcd_access
from clusterguard.clusters.kubeadm.commands import Command, Timeouts
from clusterguard.clusters.kubeadm.control_plane import KubeadmControlPlane

__all__ = ["Command", "KubeadmControlPlane", "Timeouts", "etcd_access"]

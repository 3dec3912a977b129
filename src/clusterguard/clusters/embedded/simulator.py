"""What kwok needs in the cluster: nodes to run, and the right to run them."""

from __future__ import annotations

from typing import Any

__all__ = ["KWOK_USER", "node", "rbac"]

KWOK_USER = "clusterguard:kwok"
_CAPACITY = {"cpu": "1000", "memory": "1Ti", "pods": "100000", "ephemeral-storage": "1Ti"}


def node(name: str) -> dict[str, Any]:
    """Return a simulated node with room for any drill."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name, "clusterguard.dev/simulated": "true"},
            "annotations": {"clusterguard.dev/simulated": "pods on this node have a status, but no process runs"},
        },
        "status": {"capacity": _CAPACITY, "allocatable": _CAPACITY},
    }


def rbac() -> list[dict[str, Any]]:
    """Return the role of the simulator and its binding: nodes, their leases, pods and events, nothing else."""
    name = "clusterguard:kwok"
    every_write = ["create", "get", "list", "watch", "update", "patch", "delete"]
    rules = [
        {"apiGroups": [""], "resources": ["nodes", "pods"], "verbs": every_write},
        {"apiGroups": [""], "resources": ["nodes/status", "pods/status"], "verbs": ["update", "patch"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": every_write},
        {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "update", "patch"]},
    ]
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole"}
    return [
        {**role, "metadata": {"name": name}, "rules": rules},
        {
            **role,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": KWOK_USER}],
        },
    ]

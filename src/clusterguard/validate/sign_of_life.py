"""A sign of life from a kube-controller-manager that has no Lease, as without leader election (k3s on SQLite)."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from clusterguard.errors import ClusterError, ClusterUnreachableError, ResourceNotFoundError

if TYPE_CHECKING:
    from clusterguard.clusters.kube import Json, KubeClient

__all__ = ["SignOfLife"]

_NAMESPACE = "kube-system"  # where its Lease would be


@dataclass(slots=True)
class SignOfLife:
    """A ReplicaSet without pods: its controller notes that it has looked at it, and does nothing else.

    Attributes:
        given: Whether the controller has looked at it.
    """

    given: bool = False
    _name: str = field(default_factory=lambda: f"clusterguard-sign-of-life-{secrets.token_hex(4)}")
    _made: bool = False

    def lacking(self, api: KubeClient) -> str:
        """Ask for the sign, or look whether it is there; return what is lacking, or ``""``.

        Raises:
            ClusterUnreachableError: The API server does not answer.
        """
        if self.given:
            return ""
        try:
            resource = api.resource("ReplicaSet.apps")
            if not self._made:
                api.create(self._manifest(), namespace=_NAMESPACE)
                self._made = True
            seen = api.get(resource, self._name, _NAMESPACE)
        except ClusterUnreachableError:
            raise
        except ResourceNotFoundError as error:  # an etcd restore in between, or no such kind
            self._made = False
            return error.message
        except ClusterError as error:
            return f"asking kube-controller-manager for a sign of life is refused: {error.message}"
        if not (seen.get("status") or {}).get("observedGeneration"):
            return f"kube-controller-manager has not looked at ReplicaSet {_NAMESPACE}/{self._name}"
        self.given = True
        self.remove(api)
        return ""

    def remove(self, api: KubeClient) -> None:
        """Delete the ReplicaSet.

        Raises:
            ClusterError: It could not be deleted.
        """
        if self._made:
            api.delete(api.resource("ReplicaSet.apps"), self._name, _NAMESPACE)
            self._made = False

    def _manifest(self) -> Json:
        labels = {"clusterguard.dev/sign-of-life": self._name}
        container = {"name": "none", "image": "none"}
        return {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {"name": self._name, "labels": labels},
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            },
        }

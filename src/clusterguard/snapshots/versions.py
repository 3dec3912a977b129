"""Which versions the cluster of a backup ran, as far as its objects say."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

from clusterguard.model.support import parse_version

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["VersionSurvey"]

_KUBEADM: Final = ("kube-system", "kubeadm-config")
_WRITTEN: Final = re.compile(r"^kubernetesVersion:\s*[\"']?(v?[0-9][^\s\"']*)", re.MULTILINE)
_CONTROL_PLANE: Final = frozenset({"node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"})


@dataclass(slots=True)
class VersionSurvey:
    """Sees every object once; afterwards `kubernetes` tells.

    kubeadm writes the version down, and upgrades it. Elsewhere the kubelets tell theirs, and that of a control-plane
    node is the API server's in all usual distributions; any other kubelet may be older, never newer.
    """

    WRITTEN_IN: ClassVar[str] = _KUBEADM[1]
    """The ConfigMap of the namespace kube-system in which kubeadm writes the version down."""

    _written: str = ""
    _control_planes: list[str] = field(default_factory=list)
    _nodes: list[str] = field(default_factory=list)

    def see(self, item: Mapping[str, Any]) -> None:
        """Take the next object."""
        if item["kind"] == "Node":
            version = ((item.get("status") or {}).get("nodeInfo") or {}).get("kubeletVersion", "")
            is_control_plane = _CONTROL_PLANE & set(item["metadata"].get("labels") or {})
            (self._control_planes if is_control_plane else self._nodes).append(version)
        elif item["kind"] == "ConfigMap":
            metadata = item["metadata"]
            if (metadata.get("namespace"), metadata["name"]) == _KUBEADM:
                found = _WRITTEN.search((item.get("data") or {}).get("ClusterConfiguration", ""))
                self._written = found[1] if found else ""

    @property
    def kubernetes(self) -> str:
        """The version of the API server, such as ``v1.34.2``, or ``""`` where nothing tells."""
        for versions in ([self._written], self._control_planes, self._nodes):
            known = [version for version in versions if parse_version(version)]
            if known:
                return max(known, key=lambda version: parse_version(version) or ())
        return ""

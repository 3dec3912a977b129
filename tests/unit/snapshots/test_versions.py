from __future__ import annotations

from typing import Any

import pytest

from clusterguard.snapshots.versions import VersionSurvey

LABEL = "node-role.kubernetes.io/control-plane"


def node(version: str, **labels: str) -> dict[str, Any]:
    return {
        "kind": "Node",
        "metadata": {"name": "n", "labels": labels},
        "status": {"nodeInfo": {"kubeletVersion": version}},
    }


def kubeadm(version: str) -> dict[str, Any]:
    text = f"apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: {version}\n"
    return {
        "kind": "ConfigMap",
        "metadata": {"name": "kubeadm-config", "namespace": "kube-system"},
        "data": {"ClusterConfiguration": text},
    }


@pytest.mark.parametrize(
    ("items", "version"),
    [
        ([], ""),
        ([node("v1.33.1"), node("v1.34.2")], "v1.34.2"),
        ([node("v1.33.1", **{LABEL: ""}), node("v1.34.2")], "v1.33.1"),  # the API server's, not a kubelet's
        ([node("v1.30.4+k3s1", **{LABEL: "true"})], "v1.30.4+k3s1"),
        ([node("v1.9.0"), node("v1.10.0")], "v1.10.0"),
        ([node("v1.33.1", **{LABEL: ""}), kubeadm("v1.34.0")], "v1.34.0"),
        ([kubeadm('"v1.34.0"')], "v1.34.0"),
        ([kubeadm("latest"), node("v1.33.1")], "v1.33.1"),
        ([{"kind": "ConfigMap", "metadata": {"name": "kubeadm-config", "namespace": "shop"}}], ""),
        ([{"kind": "Node", "metadata": {"name": "n"}}, node("fake")], ""),
    ],
)
def test_the_version_is_that_of_the_api_server(items: list[dict[str, Any]], version: str) -> None:
    survey = VersionSurvey()
    for item in items:
        survey.see(item)
    assert survey.kubernetes == version

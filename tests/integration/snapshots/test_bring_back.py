"""One deleted namespace, brought back from a snapshot without restoring the cluster; and what differs, shown."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from clusterguard.clusters import EmbeddedCluster
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.model.inventory import Scope
from clusterguard.stores import open_store
from clusterguard.validate import RestoreValidator

if TYPE_CHECKING:
    from pathlib import Path

    from clusterguard.toolchain import Toolchain

pytestmark = pytest.mark.programs


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "clusterguard", "snapshot", *map(str, words)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def manifests() -> list[dict[str, Any]]:
    def meta(name: str) -> dict[str, str]:
        return {"name": name, "namespace": "shop"}

    pod = {"containers": [{"name": "c", "image": "busybox"}], "terminationGracePeriodSeconds": 0}
    template = {"metadata": {"labels": {"app": "web"}}, "spec": pod}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"team": "a"}}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("settings"), "data": {"greeting": "hello"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": meta("db"), "stringData": {"password": "hidden-word"}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta("worker")},
        {"apiVersion": "v1", "kind": "Service", "metadata": meta("web"),
         "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta("web"),
         "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template}},
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta("once"),
         "spec": {"suspend": True, "template": {**template, "spec": {**template["spec"], "restartPolicy": "Never"}}}},
        {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": meta("web"),
         "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": meta("reader"),
         "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]},
    ]  # fmt: skip


def test_a_deleted_namespace_is_brought_back(tmp_path: Path, toolchain: Toolchain) -> None:
    kubectl = toolchain.ensure("kubectl")["kubectl"]
    with EmbeddedCluster() as cluster:
        api = cluster.api
        for each in manifests():
            api.create(each)
        api.wait_for(
            api.resource("Deployment"), "web", "shop", what="two pods", timeout_seconds=60,
            until=lambda seen: bool(seen) and seen["status"].get("readyReplicas") == 2,
        )  # fmt: skip
        validator = RestoreValidator(api=api)
        scope = Scope(namespaces=("shop",))
        before = validator.capture(scope)
        snapshotter = EtcdSnapshotter(store=open_store(tmp_path), access=cluster.etcd)
        snapshot = tmp_path / snapshotter.save("before").key
        kubeconfig = ["--kubeconfig", str(cluster.kubeconfig)]
        subprocess.run([kubectl, *kubeconfig, "delete", "namespace", "shop", "--wait"], check=True, capture_output=True)
        later = tmp_path / snapshotter.save("later").key

        differs = run("diff", snapshot, later, "-n", "shop", "--json")
        lost = {finding["kind"] for finding in json.loads(differs.stdout)["findings"]}
        assert (differs.returncode, lost) == (1, {"missing"}), differs.stdout
        assert run("diff", snapshot, snapshot).returncode == 0
        assert run("diff", later, snapshot, "-n", "shop").returncode == 1  # what only the newer one has counts, too
        named = ["--cluster", f"kubeconfig:{cluster.kubeconfig}", "-n", "shop"]
        assert run("diff", snapshot, *named).returncode == 1

        exported = run("export", snapshot, tmp_path / "back", "-n", "shop", "--show-secrets")
        assert exported.returncode == 0, exported.stderr
        subprocess.run([kubectl, *kubeconfig, "apply", "-f", tmp_path / "back"], check=True, capture_output=True)
        api.wait_for(
            api.resource("Deployment"), "web", "shop", what="two pods", timeout_seconds=60,
            until=lambda seen: bool(seen) and seen["status"].get("readyReplicas") == 2,
        )  # fmt: skip
        report = validator.validate(before, profile="velero-restore", ignore=[
            "metadata.annotations[kubectl.kubernetes.io/last-applied-configuration]"])  # fmt: skip
        assert report.ok, report.to_text()

    kept_back = run("export", snapshot, tmp_path / "without", "-n", "shop")
    written = "".join(path.read_text() for path in (tmp_path / "without").iterdir())
    assert (kept_back.returncode, "hidden-word" in written, "kind: Secret" in written) == (0, False, False)
    assert run("export", snapshot, tmp_path / "one", "configmap", "settings", "-n", "shop").returncode == 0
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["1-configmap-shop-settings.yaml"]
    assert run("export", snapshot, tmp_path / "none", "configmap", "nothing", "-n", "shop").returncode == 2

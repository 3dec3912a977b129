"""A snapshot is served as it is, and whatever in it calls out calls nobody."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from clusterguard.clusters import EmbeddedCluster
from clusterguard.clusters.embedded.snapshot_server import SnapshotServer
from clusterguard.errors import ClusterError, SnapshotError
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.programs

THING = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a", "namespace": "default"}}


class Listener:
    """Counts who connects; everybody is hung up on."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.heard = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.heard += 1
                connection.close()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    listening = Listener()
    yield listening
    listening.close()


def webhook(url: str) -> dict[str, Any]:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "calls-out"},
        "webhooks": [
            {
                "name": "calls-out.example.com",
                "clientConfig": {"url": f"{url}/validate"},
                "rules": [rule],
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
                "timeoutSeconds": 1,
            }
        ],
    }


def definition(url: str) -> dict[str, Any]:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    client = {"url": f"{url}/convert"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing"},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": schema},
                {"name": "v2", "served": True, "storage": False, "schema": schema},
            ],
            "conversion": {
                "strategy": "Webhook",
                "webhook": {"clientConfig": client, "conversionReviewVersions": ["v1"]},
            },
        },
    }


def aggregated(port: int) -> list[dict[str, Any]]:
    """An API that somebody else serves: a Service whose endpoint is the listener."""
    meta = {"name": "far", "namespace": "default"}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": meta,
         "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]}},
        {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.far.example.com"},
         "spec": {"group": "far.example.com", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10,
                  "insecureSkipTLSVerify": True, "service": {**meta, "port": port}}},
    ]  # fmt: skip


@pytest.fixture(scope="module")
def snapshot(listener: Listener, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A snapshot whose webhooks, conversion and aggregated API call the listener, and its revision."""
    folder = tmp_path_factory.mktemp("store")
    url = f"https://127.0.0.1:{listener.port}"
    with EmbeddedCluster() as cluster:
        cluster.api.create(definition(url))
        cluster.api.await_kind(THING)
        cluster.api.create(THING)
        for manifest in (*aggregated(listener.port), webhook(url)):
            cluster.api.create(manifest)
        saved = EtcdSnapshotter(store=open_store(folder), access=cluster.etcd).save("calls")
        # The same objects do call out where nothing keeps them from it, or the silence below would prove nothing.
        with contextlib.suppress(ClusterError):
            cluster.api.request("GET", "/apis/example.com/v2/things")
        assert listener.heard > 0
    return folder / saved.key, saved.revision


def test_nobody_is_called(listener: Listener, snapshot: tuple[Path, int]) -> None:
    path, revision = snapshot
    time.sleep(0.5)  # the cluster that made it is gone; so are its last connections
    before = listener.heard
    phases: list[str] = []
    with SnapshotServer(path, on_phase=phases.append) as server:
        api = server.api
        things = api.await_kind(THING)
        assert [each["metadata"]["name"] for each in api.list(things, resource_version=str(revision))] == ["a"]
        for refused in ("/apis/example.com/v2/things", "/apis/far.example.com/v1"):
            with pytest.raises(ClusterError):
                api.request("GET", refused)
        made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "new", "namespace": "default"}}
        api.create(made)
        listed = api.list(api.resource("ConfigMap"), resource_version=str(revision))
        assert "new" not in {each["metadata"]["name"] for each in listed}
        time.sleep(3)  # the API server looks after its aggregated APIs every few seconds
    assert phases == ["restore", "start etcd", "start the API server"]
    assert listener.heard == before


def test_a_file_that_etcdutl_refuses(snapshot: tuple[Path, int], tmp_path: Path) -> None:
    (tmp_path / "cut.db").write_bytes(snapshot[0].read_bytes()[:-4096])
    with pytest.raises(SnapshotError) as raised, SnapshotServer(tmp_path / "cut.db", home=tmp_path / "home"):
        pass
    assert raised.value.code == "restore-refused"
    assert list((tmp_path / "home").iterdir()) == []

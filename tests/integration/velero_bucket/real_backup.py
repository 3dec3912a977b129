"""Real backups: Velero's own server on an embedded cluster writes them to a real S3 server."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from filelock import FileLock

from clusterguard.errors import ResourceNotFoundError
from clusterguard.process import run, spawn, tail
from clusterguard.stores.s3 import S3Credentials, S3Store

if TYPE_CHECKING:
    from clusterguard.clusters import KubeClient

BUCKET, PREFIX = "velero", "cluster-a"
NAMESPACE = "shop"
CREDENTIALS = S3Credentials(access_key="test-access", secret_key="test-secret")
PROGRAMS = ("velero", "velero-plugin-for-aws", "versitygw")
# The server binds *:8080 whatever it is told, so one at a time on this machine: no other test's, and none of the
# embedded clusters of this user.
SERVER_LOCKS = [
    Path(tempfile.gettempdir()) / name
    for name in ("clusterguard-test-velero.lock", f"clusterguard-velero-{os.getuid()}.lock")
]


def meta(name, **fields):
    return {"metadata": {"name": name, **fields}}


def workloads():
    """Return the objects of the namespace and its surroundings, in the order they can be applied."""
    labels = {"app": "web"}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "busybox:1.37"}]}}
    account = {"kind": "ServiceAccount", "name": "clerk", "namespace": NAMESPACE}
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
    rbac = "rbac.authorization.k8s.io"
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": ""}
    core = [
        *({"kind": "ConfigMap", **meta(f"settings-{number:02}"), "data": {"n": str(number)}} for number in range(16)),
        *({"kind": "Secret", **meta(f"login-{number:02}"), "stringData": {"p": str(number)}} for number in range(8)),
        {"kind": "ConfigMap", **meta("a-" + "very-" * 40 + "long-name"), "data": {"n": "long"}},
        {"kind": "ConfigMap", **meta("unicode"), "data": {"text": "schön, 日本語 <&>"}},
        {"kind": "ConfigMap", **meta("left-out", labels={"velero.io/exclude-from-backup": "true"})},
        {"kind": "ServiceAccount", **meta("clerk")},
        {"kind": "Service", **meta("web"), "spec": {"selector": labels, "ports": [{"port": 80}]}},
        {"kind": "PersistentVolumeClaim", **meta("orders"), "spec": {**claim, "volumeName": "orders"}},
        {"kind": "PersistentVolumeClaim", **meta("waiting"), "spec": {**claim, "storageClassName": "none"}},
        {"kind": "ResourceQuota", **meta("quota"), "spec": {"hard": {"configmaps": "100"}}},
    ]
    return [
        {"apiVersion": "v1", "kind": "Namespace", **meta(NAMESPACE)},
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            **meta("orders"),
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "hostPath": {"path": "/nowhere"},
                "claimRef": {"namespace": NAMESPACE, "name": "orders"},
            },
        },
        *({"apiVersion": "v1", **each} for each in core),
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            **meta("web"),
            "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": pod},
        },
        {"apiVersion": f"{rbac}/v1", "kind": "Role", **meta("clerk"), "rules": rules},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            **meta("clerk"),
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "clerk"},
            "subjects": [account],
        },
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", **meta("shop:reader"), "rules": rules},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            **meta("shop:reader"),
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "shop:reader"},
            "subjects": [account],
        },
        {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", **meta("shop-first"), "value": 1000},
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            **meta("web"),
            "spec": {"minAvailable": 1, "selector": {"matchLabels": labels}},
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            **meta("web"),
            "spec": {"podSelector": {"matchLabels": labels}},
        },
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            **meta("web"),
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                "minReplicas": 2,
                "maxReplicas": 2,
            },
        },
        *({"apiVersion": "example.com/v1", "kind": "Mouse", **meta(f"mouse-{n}"), "spec": {"n": n}} for n in range(3)),
    ]


def mouse_definition():
    """Return a definition whose plural no rule could guess."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "mice", "singular": "mouse", "kind": "Mouse", "listKind": "MouseList"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        **meta("mice.example.com"),
        "spec": {"group": "example.com", "names": names, "scope": "Namespaced", "versions": [version]},
    }


def apply_workloads(api):
    """Apply all of the above, and wait until its pods are there."""
    api.apply(mouse_definition())
    for item in workloads():
        if item["kind"] == "Mouse":
            _apply_patiently(api, item, namespace=NAMESPACE)
        else:
            api.apply(item, namespace=NAMESPACE)
    api.wait_for(
        api.resource("Deployment"),
        "web",
        NAMESPACE,
        until=lambda found: found is not None and found.get("status", {}).get("availableReplicas") == 2,
        what="the pods run",
        timeout_seconds=60,
    )


@dataclass(frozen=True)
class VeleroLab:
    """A cluster whose Velero server runs."""

    api: KubeClient
    store: S3Store
    directory: Path

    def back_up(self, name, **spec):
        backup = {"apiVersion": "velero.io/v1", "kind": "Backup", **meta(name), "spec": spec}
        self.api.create(backup, namespace="velero")

        def done(found):
            return found is not None and found.get("status", {}).get("phase") in {
                "Completed",
                "PartiallyFailed",
                "Failed",
                "FailedValidation",
            }

        kind = self.api.resource("Backup.velero.io")
        self.api.wait_for(kind, name, "velero", until=done, what=f"backup {name} ends", timeout_seconds=120)
        return self.api.get(kind, name, "velero")


@contextmanager
def velero_lab(cluster, programs, folder):
    """Run an S3 server and Velero's server beside a cluster until the block ends."""
    with contextlib.ExitStack() as stack:
        for lock in SERVER_LOCKS:
            stack.enter_context(FileLock(lock, timeout=1200))
        endpoint, directory = stack.enter_context(_s3_server(programs["versitygw"], folder))
        credentials = folder / "credentials"
        keys = (CREDENTIALS.access_key, CREDENTIALS.secret_key)
        credentials.write_text("[default]\naws_access_key_id={}\naws_secret_access_key={}\n".format(*keys))
        _install(cluster, programs["velero"], endpoint, credentials)
        stack.enter_context(_velero_server(cluster, programs, credentials, folder))
        settings = {"endpoint": endpoint, "region": "us-east-1", "path_style": True, "credentials": CREDENTIALS}
        store = S3Store(bucket=BUCKET, prefix=PREFIX, **settings)
        yield VeleroLab(api=cluster.api, store=store, directory=directory / PREFIX)


@contextmanager
def _s3_server(program, folder):
    data = folder / "s3"
    (data / BUCKET).mkdir(parents=True)
    port = _free_port()
    env = {"ROOT_ACCESS_KEY": CREDENTIALS.access_key, "ROOT_SECRET_KEY": CREDENTIALS.secret_key}
    log = folder / "versitygw.log"
    server = spawn([program, "--port", f"127.0.0.1:{port}", "--quiet", "posix", data], log=log, env=env)
    try:
        for _ in range(600):
            assert server.alive(), tail(log)
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}", data / BUCKET
    finally:
        server.stop(grace_seconds=10)


def _install(cluster, program, endpoint, credentials):
    config = f"region=us-east-1,s3ForcePathStyle=true,s3Url={endpoint}"
    argv = [program, "--kubeconfig", cluster.kubeconfig, "install", "--dry-run", "-o", "yaml", "--provider", "aws"]
    argv += ["--plugins", "not-used:here", "--bucket", BUCKET, "--prefix", PREFIX, "--use-volume-snapshots=false"]
    argv += ["--backup-location-config", config, "--secret-file", credentials]
    rendered = yaml.safe_load(run(argv, timeout_seconds=60).stdout)
    custom = []
    for item in rendered["items"]:
        if item["kind"] == "Deployment":
            item["spec"]["replicas"] = 0  # the server runs out of cluster; Velero wants its Deployment to exist
        if item["apiVersion"].startswith("velero.io/"):
            custom.append(item)
            continue
        cluster.api.apply(item)
    for item in custom:
        _apply_patiently(cluster.api, item)


def _apply_patiently(api, item, **where):
    """Apply an object of a kind that was defined a moment ago."""
    for left in reversed(range(100)):
        try:
            api.resources(refresh=True)
            return api.apply(item, **where)
        except ResourceNotFoundError:
            if not left:
                raise
            time.sleep(0.1)
    raise AssertionError


@contextmanager
def _velero_server(cluster, programs, credentials, folder):
    plugins, temporary = folder / "plugins", folder / "tmp"
    plugins.mkdir()
    temporary.mkdir()
    (plugins / "velero-plugin-for-aws").symlink_to(programs["velero-plugin-for-aws"])
    argv = [programs["velero"], "server", "--kubeconfig", cluster.kubeconfig, "--namespace", "velero"]
    argv += ["--plugin-dir", plugins, "--metrics-address", f"127.0.0.1:{_free_port()}", "--profiler-address", ""]
    argv += ["--store-validation-frequency", "1s", "--backup-sync-period", "1s"]
    env = {"AWS_SHARED_CREDENTIALS_FILE": str(credentials), "TMPDIR": str(temporary), "VELERO_NAMESPACE": "velero"}
    log = folder / "velero.log"
    for attempt in reversed(range(60)):
        server = spawn(argv, log=log, env=env, cwd=temporary)
        try:
            if _available(cluster.api, server):
                yield
                return
        finally:
            server.stop(grace_seconds=15)
        # Somebody else's server, who does not know of the lock, has the port.
        assert "address already in use" in tail(log), tail(log)
        assert attempt, tail(log)
        time.sleep(5)


def _available(api, server):
    """Return whether the server finds its location available, or False once the server has ended."""
    location = api.resource("BackupStorageLocation.velero.io")
    for _ in range(900):
        if api.get(location, "default", "velero").get("status", {}).get("phase") == "Available":
            return True
        if not server.alive():
            return False
        time.sleep(0.1)
    raise AssertionError("the backup location did not become available")


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]

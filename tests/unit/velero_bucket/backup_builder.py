"""Builds what Velero writes for one backup, and breaks it on request; the standard library writes the tarball."""

from __future__ import annotations

import copy
import gzip
import io
import json
import tarfile
from datetime import UTC, datetime

from clusterguard.stores.memory import MemoryStore

NOW = datetime(2030, 1, 2, tzinfo=UTC)
NAME = "nightly"
FOLDER = f"backups/{NAME}"
CONTENTS = f"{FOLDER}/{NAME}.tar.gz"
METADATA = f"{FOLDER}/velero-backup.json"
RESULTS, LIST, VOLUMES, POD_VOLUMES, SNAPSHOTS, OPERATIONS, LOG = (
    f"{FOLDER}/{NAME}-{ending}"
    for ending in (
        "results.gz",
        "resource-list.json.gz",
        "volumeinfo.json.gz",
        "podvolumebackups.json.gz",
        "volumesnapshots.json.gz",
        "itemoperations.json.gz",
        "logs.gz",
    )
)


def thing(kind, name, namespace="shop", api_version="v1", **fields):
    metadata = {"name": name, "uid": f"uid-of-{name}", "managedFields": [{"manager": "test"}]}
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **fields}


def usual_objects():
    definition = thing(
        "CustomResourceDefinition",
        "mice.example.com",
        "",
        "apiextensions.k8s.io/v1",
        spec={"group": "example.com", "names": {"plural": "mice", "kind": "Mouse"}},
    )
    return [
        ("namespaces", thing("Namespace", "shop", "")),
        ("configmaps", thing("ConfigMap", "settings", data={"color": "blue"})),
        ("secrets", thing("Secret", "login", data={"password": "aHVudGVyMg=="})),
        ("deployments.apps", thing("Deployment", "web", api_version="apps/v1", spec={"replicas": 2})),
        ("clusterroles.rbac.authorization.k8s.io", thing("ClusterRole", "a:b", "", "rbac.authorization.k8s.io/v1")),
        ("mice.example.com", thing("Mouse", "jerry", api_version="example.com/v1")),
        ("customresourcedefinitions.apiextensions.k8s.io", definition),
    ]


def paths(resource, item):
    """Return both paths of an object."""
    metadata = item["metadata"]
    namespace = metadata.get("namespace")
    where = f"namespaces/{namespace}" if namespace else "cluster"
    version = item["apiVersion"].rpartition("/")[2]
    name = metadata["name"]
    return (
        f"resources/{resource}/{where}/{name}.json",
        f"resources/{resource}/{version}-preferredversion/{where}/{name}.json",
    )


class BackupBuilder:
    """One backup, whole and intact until somebody changes it.

    Attributes:
        members: Path and bytes of what will be in the tarball; or a `tarfile.TarInfo` in place of the path.
        documents: The other packed files, by key.
        metadata: The Backup object.
    """

    def __init__(self, objects=None):
        self.objects = usual_objects() if objects is None else objects
        self.members = [("metadata/version", b"1.1.0\n")]
        for resource, item in self.objects:
            data = json.dumps(item).encode()
            self.members += [(path, data) for path in paths(resource, item)]
        listed = {}
        for _, item in self.objects:
            metadata = item["metadata"]
            name = "/".join(part for part in (metadata.get("namespace"), metadata["name"]) if part)
            listed.setdefault(f"{item['apiVersion']}/{item['kind']}", []).append(name)
        self.documents = {
            RESULTS: {"errors": {}, "warnings": {}},
            LIST: listed,
            VOLUMES: [],
            POD_VOLUMES: None,
            SNAPSHOTS: None,
            OPERATIONS: [],
        }
        count = len(self.objects)
        self.metadata = {
            "apiVersion": "velero.io/v1",
            "kind": "Backup",
            "metadata": {
                "name": NAME,
                "namespace": "velero",
                "uid": "uid-of-backup",
                "annotations": {"velero.io/source-cluster-k8s-gitversion": "v1.36.3"},
            },
            "status": {
                "phase": "Completed",
                "formatVersion": "1.1.0",
                "startTimestamp": "2030-01-01T00:00:00Z",
                "completionTimestamp": "2030-01-01T00:00:10Z",
                "expiration": "2030-01-31T00:00:00Z",
                "progress": {"totalItems": count, "itemsBackedUp": count},
            },
        }
        self.status = self.metadata["status"]
        self.raw = {}  # bytes of whole files, in place of the built ones; None leaves a file out

    def replace(self, path, data):
        """Give a member of the tarball another content."""
        assert path in [found for found, _ in self.members]
        self.members = [(found, data if found == path else old) for found, old in self.members]

    def tarball(self, **options):
        return gzip.compress(tar(self.members, **options), mtime=0)

    def files(self):
        files = {METADATA: json.dumps(self.metadata).encode(), CONTENTS: self.tarball(), LOG: gzip.compress(b"told\n")}
        files |= {key: gzip.compress(json.dumps(document).encode()) for key, document in self.documents.items()}
        files |= self.raw
        return {key: data for key, data in files.items() if data is not None}

    def store(self, **more):
        store = MemoryStore()
        for key, data in {**self.files(), **more}.items():
            put(store, key, data)
        return store


def tar(members, form=tarfile.PAX_FORMAT):
    """Return a tarball; members have a path and bytes, or a `tarfile.TarInfo` and bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for path, data in members:
            info = copy.copy(path) if isinstance(path, tarfile.TarInfo) else tarfile.TarInfo(path)
            if info.isreg():
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def put(store, key, data):
    with store.put(key, overwrite=True) as writer:
        writer.write(data)


def get(store, key):
    with store.get(key) as stream:
        return stream.read()

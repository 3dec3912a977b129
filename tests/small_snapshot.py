"""A snapshot of a few objects, made by hand."""

from __future__ import annotations

import orjson

from bolt_pages import History, etcd_image, with_trailer
from clusterguard.etcd.protobuf import length_delimited as text


def stored(kind, name, namespace="", *, version="v1", labels=(), rest=b""):
    metadata = text(1, name.encode()) + text(3, namespace.encode())
    metadata += b"".join(text(11, text(1, key) + text(2, value)) for key, value in labels)
    return b"k8s\0" + text(1, text(1, version.encode()) + text(2, kind.encode())) + text(2, text(1, metadata) + rest)


def widget(name, **spec):
    item = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name, "namespace": "shop"}}
    return orjson.dumps({**item, "spec": spec})


SECRET = stored("Secret", "db", "shop", rest=text(2, text(1, b"password") + text(2, b"s3cret")))
OBJECTS = {
    "/registry/pods/shop/web-1": stored("Pod", "web-1", "shop", labels=[(b"app", b"web")]),
    "/registry/pods/shop/db-1": stored("Pod", "db-1", "shop", labels=[(b"app", b"db")]),
    "/registry/pods/other/web-9": stored("Pod", "web-9", "other", labels=[(b"app", b"web")]),
    "/registry/minions/node-1": stored("Node", "node-1"),
    "/registry/services/specs/shop/web": stored("Service", "web", "shop"),
    "/registry/services/endpoints/shop/web": stored("Endpoints", "web", "shop"),
    "/registry/secrets/shop/db": SECRET,
    "/registry/secrets/shop/sealed": b"k8s:enc:kms:v2:vault:\x00",
    "/registry/example.com/widgets/shop/a": widget("a", note="a <b> & c"),
    "/registry/masterleases/192.0.2.1": stored("Endpoints", ""),
    "/registry/ranges/serviceips": stored("RangeAllocation", ""),
    "compact_rev_key": b"1",
    "/kubernetes.io/pods/shop/web-1": stored("Pod", "web-1", "shop"),
}


def file_of(folder, history):
    path = folder / "snapshot.db"
    path.write_bytes(with_trailer(etcd_image([change.row for change in history.changes])))
    return path


def history_of(objects):
    history = History()
    for key, value in objects.items():
        history.transaction([key.encode()], value=value)
    return history

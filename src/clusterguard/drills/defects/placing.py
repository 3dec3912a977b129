"""How a defect gets into a cluster, and out of it again: through etcd where it can be had, else through the API.

In etcd the bytes under the object's key are replaced, and put back as they were: its UID stays, nothing validates, and
what was undone is the same to the last byte. An API server reads JSON there as well as protobuf (1.36.3, run).
Through the API only what it accepts can be changed, an object that was deleted comes back under another UID, and
controllers see both.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson

from clusterguard.errors import ClusterError, EtcdError, ResourceNotFoundError, WaitTimeoutError
from clusterguard.retrying import poll_until
from clusterguard.snapshots.resources import BUILT_IN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from clusterguard.clusters.kube import ApiResource, KubeClient
    from clusterguard.drills.defects.catalogue import Object, ObjectDefect
    from clusterguard.etcd.member import StoredValue
    from clusterguard.model.inventory import ObjectRef

__all__ = ["ApiPlace", "EtcdPlace", "NotAppliedError", "NotUndoneError", "ObjectPlace", "key_of"]

_PREFIX: Final = "registry"
_DIRECTORIES: Final = {(each.plural, each.group): each.directory for each in BUILT_IN}
_GONE_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.1
# What the API server gives an object by itself; it is another one each time.
_GIVEN: Final = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "selfLink")


class NotAppliedError(Exception):
    """A defect that cannot be put into this object, or not in this cluster; nothing is left of the attempt."""


class NotUndoneError(Exception):
    """A defect that may still be in the cluster."""


class ObjectPlace(Protocol):
    """Puts defects into the objects of one cluster."""

    def put(self, defect: ObjectDefect, ref: ObjectRef, *, version: str) -> AbstractContextManager[None]:
        """Put a defect into an object while the ``with`` block runs; when it ends the object is proven to be as it was.

        Raises:
            NotAppliedError: It cannot be put there.
            NotUndoneError: The object is not what it was.
        """


class KeyValues(Protocol):
    """What is needed of etcd: `EtcdMember` has it."""

    def stored(self, key: bytes) -> StoredValue | None:
        """Return what lies under a key."""

    def replace(self, key: bytes, value: bytes | None, *, revision: int) -> bool:
        """Replace it if its newest change is that of a revision."""


def key_of(resource: ApiResource, ref: ObjectRef) -> bytes:
    """Return the key of etcd under which an API server keeps an object."""
    directory = _DIRECTORIES.get((resource.plural, resource.group)) or f"{resource.group}/{resource.plural}"
    return "/".join(["", _PREFIX, directory, *filter(None, [ref.namespace]), ref.name]).encode()


class EtcdPlace:
    """Puts defects where the API server keeps its objects; its controllers should not run meanwhile."""

    def __init__(self, api: KubeClient, etcd: KeyValues) -> None:
        self._api = api
        self._etcd = etcd

    @contextmanager
    def put(self, defect: ObjectDefect, ref: ObjectRef, *, version: str) -> Iterator[None]:
        """Replace what lies under the object's key, and put the same bytes back."""
        resource = self._api.resource(ref.kind, api_version=version)
        item, key = _current(self._api, resource, ref), key_of(resource, ref)
        before = self._etcd.stored(key)
        if before is None or item["metadata"]["uid"].encode() not in before.value:
            # A prefix of another name, encryption at rest, an aggregated API.
            raise NotAppliedError(f"etcd does not have it in clear under {key.decode()}")
        item["metadata"].pop("resourceVersion", None)
        changed = None if defect.removes else orjson.dumps(defect.put_into(item))
        try:
            placed = self._etcd.replace(key, changed, revision=before.revision)
        except BaseException as error:
            self._put_back(key, before, changed)  # nobody knows whether it was done
            if isinstance(error, EtcdError):
                raise NotAppliedError(error.message) from error
            raise
        if not placed:
            raise NotAppliedError("somebody changed it at the same time")
        try:
            yield
        finally:
            self._put_back(key, before, changed)

    def _put_back(self, key: bytes, before: StoredValue, changed: bytes | None) -> None:
        try:
            now = self._etcd.stored(key)
            if now is None or now.value != before.value:
                if (now.value if now else None) != changed:
                    raise NotUndoneError(f"somebody changed {key.decode()} meanwhile")
                self._etcd.replace(key, before.value, revision=now.revision if now else 0)
                now = self._etcd.stored(key)
        except EtcdError as error:
            raise NotUndoneError(error.message) from error
        if now is None or now.value != before.value:
            raise NotUndoneError(f"{key.decode()} does not have the bytes that it had")


class ApiPlace:
    """Puts defects where there is no etcd to be had, in a cluster whose controllers go on.

    Args:
        api: The cluster.
        same_uids: Whether the drill's checks want the very same objects, so that none can be deleted and made again.
        owners: UIDs of objects that others belong to: the garbage collector would take those along.
    """

    def __init__(self, api: KubeClient, *, same_uids: bool, owners: frozenset[str] = frozenset()) -> None:
        self._api = api
        self._same_uids = same_uids
        self._owners = owners

    @contextmanager
    def put(self, defect: ObjectDefect, ref: ObjectRef, *, version: str) -> Iterator[None]:
        """Change or delete the object, and bring it back as it was."""
        resource = self._api.resource(ref.kind, api_version=version)
        item = _current(self._api, resource, ref)
        if defect.removes:
            self._refuse_to_delete(item)
        if defect.replaces_pods and self._same_uids:
            raise NotAppliedError("its controller would make other Pods, and the checks want the same ones")
        try:
            try:
                if defect.removes:
                    self._delete(resource, item)
                else:
                    self._api.replace(defect.put_into(item) or item)
            except (ClusterError, WaitTimeoutError) as error:
                raise NotAppliedError(error.message) from error
            yield
        finally:
            self._put_back(resource, item)

    def _refuse_to_delete(self, item: Object) -> None:
        metadata = item["metadata"]
        reasons = {
            "it would come back under another UID, and the checks want the same one": self._same_uids,
            "what is in it would go, too": item["kind"] == "Namespace",
            "other objects belong to it, and would go, too": metadata["uid"] in self._owners,
            "it has finalizers": bool(metadata.get("finalizers")),
        }
        for reason, holds in reasons.items():
            if holds:
                raise NotAppliedError(reason)

    def _delete(self, resource: ApiResource, item: Object) -> None:
        metadata = item["metadata"]
        name, namespace = metadata["name"], metadata.get("namespace")
        self._api.delete(resource, name, namespace, uid=metadata["uid"])

        def ask() -> str | None:
            with suppress(ResourceNotFoundError):
                self._api.get(resource, name, namespace)
                return "it is still there"
            return None

        poll_until(ask, what=f"{resource.kind} {name} goes", seconds=_GONE_SECONDS, every=_POLL_SECONDS)

    def _put_back(self, resource: ApiResource, item: Object) -> None:
        metadata = item["metadata"]
        where = (resource, metadata["name"], metadata.get("namespace"))
        try:
            try:
                now = self._api.get(*where)
            except ResourceNotFoundError:
                now = self._api.create(_without_given(item))
            if _without_given(now) != _without_given(item):
                version = {"resourceVersion": now["metadata"]["resourceVersion"]}
                self._api.replace({**item, "metadata": {**metadata, **version, "uid": now["metadata"]["uid"]}})
                now = self._api.get(*where)
        except ClusterError as error:
            raise NotUndoneError(error.message) from error
        if _without_given(now) != _without_given(item):
            raise NotUndoneError(f"{resource.kind} {metadata['name']} is not what it was")


def _current(api: KubeClient, resource: ApiResource, ref: ObjectRef) -> Any:  # noqa: ANN401 - an object of any kind
    try:
        return api.get(resource, ref.name, ref.namespace or None)
    except ResourceNotFoundError as error:
        raise NotAppliedError("it is not there any more") from error


def _without_given(item: Object) -> Object:
    metadata = {key: value for key, value in item["metadata"].items() if key not in _GIVEN}
    return {key: value for key, value in item.items() if key != "status"} | {"metadata": metadata}

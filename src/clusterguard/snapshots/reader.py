"""`SnapshotReader`: what an etcd snapshot of Kubernetes holds, read from the file alone."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import orjson

from clusterguard.errors import ConfigError, ResourceNotFoundError, StoredObjectError
from clusterguard.etcd.keyspace import Keyspace, size_at
from clusterguard.etcd.verification import open_database
from clusterguard.model.support import parse_version
from clusterguard.snapshots.encryption import EncryptionKeys
from clusterguard.snapshots.fields import NEWEST_MINOR, field_table
from clusterguard.snapshots.resources import BUILT_IN, Place, Resource, find_resource, is_bookkeeping, place_of
from clusterguard.snapshots.schemas import as_defined
from clusterguard.snapshots.values import ValueDecoder, whole
from clusterguard.snapshots.versions import VersionSurvey

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    from clusterguard.etcd.keyspace import Record
    from clusterguard.snapshots.fields import FieldTable

__all__ = ["SnapshotContents", "SnapshotKey", "SnapshotKind", "SnapshotObject", "SnapshotReader"]


_BUILT_IN_NAMES = frozenset(map(str, BUILT_IN))
_DEFINITIONS = next(each for each in BUILT_IN if each.plural == "customresourcedefinitions")


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotKey:
    """One object by its key, not decoded.

    Attributes:
        resource: Its kind, as kubectl names it: ``deployments.apps``.
        namespace: Its namespace, or ``""``.
        name: Its name.
        revision: Of etcd, of its last change; what clients see as ``resourceVersion``.
        size: Bytes stored under the key, etcd's own record of it included; 0 where it says that the key was removed.
        etcd_key: The key itself.
        record: Where it lies in the file.
    """

    resource: str
    namespace: str
    name: str
    revision: int
    size: int
    etcd_key: bytes = field(repr=False)
    record: Record = field(repr=False)

    def __str__(self) -> str:
        return f"{self.resource} {self.namespace}/{self.name}" if self.namespace else f"{self.resource} {self.name}"

    @property
    def is_deletion(self) -> bool:
        """Whether this is not the object but its removal."""
        return self.record.is_deletion


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotObject:
    """One object, or why it cannot be read: nothing is left out.

    Attributes:
        key: Where it lies.
        data: The object as the API server serves it, or None.
        error: Why there is none, or None.
    """

    key: SnapshotKey
    data: dict[str, Any] | None = field(repr=False)
    error: StoredObjectError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotKind:
    """How much there is of one kind.

    Attributes:
        resource: As kubectl names it: ``deployments.apps``.
        objects: How many.
        size: Bytes stored.
        namespaces: How many namespaces they are in; 0 for a kind without.
    """

    resource: str
    objects: int
    size: int
    namespaces: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotContents:
    """What a snapshot holds, in numbers.

    Attributes:
        revision: Of the newest change.
        kinds: By name.
        bookkeeping: Keys under the prefix that are the API servers' own, such as their addresses.
        unknown: Keys under the prefix in a form that no API server of Kubernetes gives them, by where they lie.
        elsewhere: Keys under other prefixes, by what they begin with.
    """

    revision: int
    kinds: tuple[SnapshotKind, ...]
    bookkeeping: int
    unknown: Mapping[str, int]
    elsewhere: Mapping[str, int]


class SnapshotReader:
    """Reads the objects of an etcd snapshot, or of a copied ``member/snap/db``; nothing is started, nothing written.

    Listing reads keys only; values are decoded when they are asked for. Several
    threads may use a reader. Close it, or use it as a context manager.

    Args:
        path: The file.
        prefix: Of all keys: the API server's ``--etcd-prefix``. OpenShift has ``/kubernetes.io``.
        encryption: Keys of values that are encrypted at rest.
        kubernetes: The version whose API server's JSON is wanted, such as ``1.33``: it decides how some empty fields
            are written. By default what kubeadm or the nodes in the snapshot say, else the newest that is known.

    Raises:
        SnapshotCorruptError: The file is no etcd database, or it is damaged.
        StoreError: It cannot be read.
        ConfigError: The version is not one.
    """

    def __init__(
        self,
        *,
        path: Path,
        prefix: str = "/registry",
        encryption: EncryptionKeys | None = None,
        kubernetes: str = "",
    ) -> None:
        self._prefix = f"/{prefix.strip('/')}/".replace("//", "/").encode()
        self.unknown_fields: Counter[str] = Counter()
        """Fields of built-in kinds that were met but are not known, by message and number: a newer API server's."""
        self.encrypted: Counter[str] = Counter()
        """Values that were read and are encrypted at rest, whether they could be opened or not, by provider."""
        self._decoder = ValueDecoder(
            table=field_table(),
            versioned=self._table,
            keys=encryption or EncryptionKeys.none(),
            unknown=self.unknown_fields,
            encrypted=self.encrypted,
        )
        self._live: dict[bytes, int] | None = None
        self._definitions: dict[str, dict[str, Any] | None] = {}
        self.write_as(kubernetes)
        with ExitStack() as stack:
            self._keyspace = Keyspace(stack.enter_context(open_database(path)))
            self._open = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._open.close()

    @property
    def revision(self) -> int:
        """The revision of the newest change."""
        return self._keyspace.revision

    @cached_property
    def cluster_kubernetes(self) -> str:
        """The version of Kubernetes that the cluster ran, such as ``v1.34.2``; ``""`` where nothing tells."""
        survey = VersionSurvey()  # of objects that all versions write alike
        for kind, namespace in (("configmaps", "kube-system"), ("nodes", "")):
            for each in self.keys(kind, namespace=namespace):
                if kind == "nodes" or each.name == VersionSurvey.WRITTEN_IN:
                    found = self._object(each)
                    if found.data is not None:
                        survey.see(found.data)
        return survey.kubernetes

    def write_as(self, kubernetes: str) -> None:
        """Write objects as another version's API server does, from now on.

        Args:
            kubernetes: As for the class; ``""`` for the version of the snapshot's cluster.

        Raises:
            ConfigError: The version is not one.
        """
        self._minor = _minor(kubernetes) if kubernetes else None

    def contents(self) -> SnapshotContents:
        """Return how many objects of which kinds there are.

        Raises:
            SnapshotCorruptError: A page is broken.
        """
        groups: dict[bytes, list[int]] = {}  # by all of the key but the name: few, however many objects there are
        for key, place in self._places().items():
            begins = key[: key.rfind(b"/") + 1] or key
            if (group := groups.get(begins)) is None:
                group = groups[begins] = [0, 0]
            group[0] += 1
            group[1] += size_at(place)
        kinds: dict[Resource, SnapshotKind] = {}
        bookkeeping, unknown, elsewhere = 0, Counter[str](), Counter[str]()
        for begins, (count, size) in groups.items():
            if not begins.startswith(self._prefix):
                if begins:  # the record of a revision bump has no key
                    elsewhere[_first_part(begins)] += count
            elif named := self._named(begins + b"_"):
                known = kinds.get(named.resource) or SnapshotKind(
                    resource=str(named.resource), objects=0, size=0, namespaces=0
                )
                kinds[named.resource] = replace(
                    known,
                    objects=known.objects + count,
                    size=known.size + size,
                    namespaces=known.namespaces + bool(named.namespace),
                )
            elif is_bookkeeping(path := self._path(begins)):
                bookkeeping += count
            else:
                unknown[self._prefix.decode("utf-8", "replace") + _directory(path)] += count
        return SnapshotContents(
            revision=self.revision,
            kinds=tuple(sorted(kinds.values(), key=lambda kind: kind.resource)),
            bookkeeping=bookkeeping,
            unknown=dict(sorted(unknown.items())),
            elsewhere=dict(sorted(elsewhere.items())),
        )

    def keys(self, kind: str = "", *, namespace: str = "") -> list[SnapshotKey]:
        """Return the keys of objects, in the order of etcd's keys.

        Args:
            kind: As kubectl takes it: ``po``, ``Deployment``, ``deployments.apps``; empty for all.
            namespace: Empty for all.

        Raises:
            ResourceNotFoundError: There is no such kind.
            SnapshotCorruptError: A page is broken.
        """
        return list(self._listing(kind, namespace, None))

    def _listing(self, kind: str, namespace: str, only: Collection[bytes] | None) -> Iterator[SnapshotKey]:
        begins = self._prefix
        if kind:
            begins += f"{self._resource(kind).directory}/".encode()
        places = self._places()
        wanted = places if only is None else places.keys() & only
        for key in sorted(key for key in wanted if key.startswith(begins)):
            named = self._named(key)
            if named and (not namespace or named.namespace == namespace):
                yield self._listed(key, named, self._keyspace.record(places[key]))

    def objects(
        self,
        kind: str = "",
        *,
        namespace: str = "",
        selector: str = "",
        only: Collection[bytes] | None = None,
    ) -> Iterator[SnapshotObject]:
        """Yield objects, in the order of etcd's keys; those that cannot be read are among them, with the reason.

        Args:
            kind: As kubectl takes it; empty for all.
            namespace: Empty for all.
            selector: A label selector as kubectl's ``-l`` takes it. What cannot be read is yielded with any.
            only: Keys of etcd; no other one is decoded.

        Raises:
            ConfigError: The selector is not valid.
            ResourceNotFoundError: There is no such kind.
            SnapshotCorruptError: A page is broken.
        """
        from clusterguard.velero.selectors import LabelSelector  # slow to load, and rarely asked for

        wanted = LabelSelector.parse(selector) if selector else None
        for key in self._listing(kind, namespace, only):
            found = self._object(key)
            if wanted is None or found.data is None or wanted.matches(_labels(found.data)):
                yield found

    def differing_keys(self, other: SnapshotReader) -> set[bytes]:
        """Return the keys of etcd that only one of two snapshots has, or that are not stored alike; nothing is decoded.

        Raises:
            SnapshotCorruptError: A page of one is broken.
        """
        ours, theirs = self._places(), other._places()
        differing = self._keyspace.differing(ours, theirs, other._keyspace)
        return {key for key in differing if key.startswith(self._prefix)}

    def get(self, kind: str, name: str, *, namespace: str = "", revision: int | None = None) -> dict[str, Any]:
        """Return one object as the API server serves it.

        Args:
            kind: As kubectl takes it.
            name: Its name.
            namespace: Its namespace, for kinds that have them.
            revision: As it was then; by default as it was when the snapshot was taken.

        Raises:
            ResourceNotFoundError: There is no such kind, or no such object in the file at that revision.
            StoredObjectError: It cannot be read; the code says why.
            SnapshotCorruptError: A page is broken.
        """
        if revision is None and self._live is not None:  # everything was listed, so nothing has to be looked for
            newest = self._newest(Place(_guessed(kind) or self._resource(kind), namespace, name))
            if newest is not None:
                return self.read(newest)
        history = [each for each in self.history(kind, name, namespace=namespace)
                   if revision is None or each.revision <= revision]  # fmt: skip
        if not history or history[-1].is_deletion:
            when = f" at revision {revision}" if revision is not None else ""
            raise ResourceNotFoundError(
                f"the snapshot has no {kind} {f'{namespace}/{name}' if namespace else name}{when}",
                hint="`clusterguard snapshot history` shows what the file still holds of it"
                if history
                else "is the namespace right? `clusterguard snapshot ls FILE KIND` lists what is there",
            )
        return self.read(history[-1])

    def history(self, kind: str, name: str, *, namespace: str = "") -> list[SnapshotKey]:
        """Return every change of one object that the file still holds, oldest first; a compaction leaves the newest.

        Raises:
            ResourceNotFoundError: There is no such kind.
            ConfigError: The kind has namespaces, and none is given, or the other way round.
            SnapshotCorruptError: A page is broken.
        """
        if (guessed := _guessed(kind)) and (found := self._changes(Place(guessed, namespace, name))):
            return found
        resource = self._resource(kind)
        if resource.namespaced is not None and resource.namespaced != bool(namespace):
            raise ConfigError(
                f"{resource} {'need' if resource.namespaced else 'have no'} namespace",
                hint="name it: -n NAMESPACE" if resource.namespaced else "leave -n out",
            )
        return self._changes(Place(resource, namespace, name))

    def is_namespaced(self, kind: str) -> bool:
        """Return whether objects of a kind live in namespaces.

        Args:
            kind: As kubectl takes it.

        Raises:
            ResourceNotFoundError: There is no such kind.
            SnapshotCorruptError: A page is broken.
        """
        resource = self._resource(kind)
        if resource.namespaced is not None:
            return resource.namespaced
        begins = self._prefix + f"{resource.directory}/".encode()
        return any(key.startswith(begins) and b"/" in key[len(begins) :] for key in self._places())

    def read(self, key: SnapshotKey) -> dict[str, Any]:
        """Return the object under a key as the API server serves it.

        Raises:
            ConfigError: The key was removed then.
            StoredObjectError: It cannot be read; the code says why.
            SnapshotCorruptError: A page is broken.
        """
        if key.is_deletion:
            raise ConfigError(f"{key} was removed at revision {key.revision}", hint="read an earlier change of it")
        definition = None if key.resource in _BUILT_IN_NAMES else self._definition(key.resource)
        try:
            item = self._decoder.decode(self._keyspace.value(key.record), key=key.etcd_key, revision=key.revision)
            with whole():
                return as_defined(item, definition) if definition else item
        except StoredObjectError as error:
            raise StoredObjectError(
                f"{key}: {error.message}", code=error.code, fields=error.fields, hint=error.hint
            ) from error

    def search(self, text: str, *, kind: str = "", namespace: str = "") -> Iterator[SnapshotObject]:
        """Yield the objects that have a text in a value, in their name, or in the name of a field.

        Encrypted ones are decrypted first; those that cannot be are yielded, too, with the reason. Texts in Secrets are
        looked for in what they hold, not in base64.

        Args:
            text: Exactly as it is written.
            kind: As kubectl takes it; empty for all.
            namespace: Empty for all.

        Raises:
            ResourceNotFoundError: There is no such kind.
            SnapshotCorruptError: A page is broken.
        """
        wanted = _spellings(text)
        for key in self.keys(kind, namespace=namespace):
            value = self._keyspace.value(key.record)
            try:
                plain = self._decoder.plain(value, key=key.etcd_key)
            except StoredObjectError:
                yield self._object(key)
                continue
            if text in key.name or any(spelling in plain for spelling in wanted):
                yield self._object(key)

    def _object(self, key: SnapshotKey) -> SnapshotObject:
        try:
            return SnapshotObject(key=key, data=self.read(key))
        except StoredObjectError as error:
            return SnapshotObject(key=key, data=None, error=error)

    def _definition(self, resource: str) -> dict[str, Any] | None:
        """Return the definition of a custom resource, or None where there is none that can be read."""
        if resource not in self._definitions:
            found = self._newest(Place(_DEFINITIONS, "", resource))
            self._definitions[resource] = self._object(found).data if found else None
        return self._definitions[resource]

    def _newest(self, named: Place) -> SnapshotKey | None:
        """Return an object as the snapshot has it, by the shorter way."""
        if self._live is None:
            changes = self._changes(named)
            return changes[-1] if changes and not changes[-1].is_deletion else None
        key = self._key(named)
        place = self._live.get(key)
        return None if place is None else self._listed(key, named, self._keyspace.record(place))

    def _table(self) -> FieldTable:
        if self._minor is None:
            ran = parse_version(self.cluster_kubernetes)
            self._minor = ran[1] if ran else NEWEST_MINOR
        return field_table(self._minor)

    def _places(self) -> dict[bytes, int]:
        """Return where the newest record of each live key lies; one walk over the file, at first use."""
        if self._live is None:
            self._live = self._keyspace.live()
        return self._live

    def _changes(self, named: Place) -> list[SnapshotKey]:
        key = self._key(named)
        return [self._listed(key, named, record) for record in self._keyspace.history(key)]

    def _key(self, named: Place) -> bytes:
        path = "/".join(part for part in (named.resource.directory, named.namespace, named.name) if part)
        return self._prefix + path.encode()

    def _named(self, key: bytes) -> Place | None:
        return place_of(self._path(key))

    def _path(self, key: bytes) -> str:
        """Return what follows the prefix and its slash."""
        return key[len(self._prefix) :].decode("utf-8", "replace")

    def _listed(self, key: bytes, named: Place, record: Record) -> SnapshotKey:
        return SnapshotKey(
            resource=str(named.resource),
            namespace=named.namespace,
            name=named.name,
            revision=record.revision,
            size=record.size,
            etcd_key=key,
            record=record,
        )

    def resource_named(self, kind: str) -> str:
        """Return what kubectl calls a kind, such as ``deployments.apps`` of ``deploy``.

        Raises:
            ResourceNotFoundError: There is no such kind.
        """
        return str(self._resource(kind))

    def _resource(self, text: str) -> Resource:
        try:
            return find_resource(text, ())
        except ResourceNotFoundError:
            return find_resource(text, self._present())

    def _present(self) -> Iterable[Resource]:
        directories = {key[: key.rfind(b"/") + 1] for key in self._places() if key.startswith(self._prefix)}
        places = (self._named(directory + b"_") for directory in directories)
        return dict.fromkeys(place.resource for place in places if place)


def _guessed(kind: str) -> Resource | None:
    """Return the custom resource that ``PLURAL.GROUP`` would be; a look for its key is shorter than one at all keys."""
    plural, _, group = kind.lower().partition(".")
    if "." not in group or any(group == each.group for each in BUILT_IN):
        return None
    return Resource(plural, group, "", None, f"{group}/{plural}")


def _directory(path: str) -> str:
    """Return where the keys of one kind lie, however deep the rest goes: below a group, or without one."""
    parts = path.split("/")
    return "/".join(parts[: 2 if "." in parts[0] else 1])


def _first_part(key: bytes) -> str:
    return b"/".join(key.split(b"/", 2)[:2]).decode("utf-8", "replace")


def _labels(item: Mapping[str, Any]) -> Mapping[str, str]:
    labels = item["metadata"].get("labels")
    return labels if isinstance(labels, dict) else {}


def _spellings(text: str) -> set[bytes]:
    """Return how a text may stand in protobuf and CBOR, and in JSON, where Go escapes what HTML would."""
    quoted = orjson.dumps(text)[1:-1]
    escaped = quoted
    for character in b"<>&":
        escaped = escaped.replace(bytes([character]), b"\\u%04x" % character)
    return {text.encode(), quoted, escaped}


def _minor(version: str) -> int:
    major, _, rest = version.removeprefix("v").partition(".")
    minor = rest.partition(".")[0]
    if major != "1" or not minor.isdigit():
        raise ConfigError(f"{version!r} is no version of Kubernetes", hint="write it like 1.33")
    return int(minor)

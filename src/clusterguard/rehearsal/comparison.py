"""Every object that a file holds, beside what a real API server serves of it, field by field."""

from __future__ import annotations

import hashlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

from clusterguard.errors import ClusterError, ResourceNotFoundError
from clusterguard.rehearsal.report import Examples, KindCount, Level, RehearsalFinding
from clusterguard.snapshots.findings import changed_paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from clusterguard.clusters.kube import KubeClient
    from clusterguard.clusters.kube_discovery import ApiResource

__all__ = ["Comparison", "StoredObjects"]

_PAGE: Final = 500
# The API server works on several lists at once; reading what it answers takes less than one core.
_LISTS_AT_ONCE: Final = 3
# Served, and made up at each request rather than stored.
_NOT_STORED: Final = frozenset({"componentstatuses"})
# Stored once and served under two groups.
_TWINS: Final = {"events": "events.k8s.io", "events.events.k8s.io": ""}


def only_adds(stored: Any, served: Any) -> bool:  # noqa: ANN401 - any JSON
    """Return whether all that is stored is served, and beside it at most fields of maps; null is nothing."""
    if isinstance(stored, dict) and isinstance(served, dict):
        return all(only_adds(value, served.get(key)) for key, value in stored.items())
    if isinstance(stored, list) and isinstance(served, list):
        return len(stored) == len(served) and all(map(only_adds, stored, served))
    return type(stored) is type(served) and bool(stored == served)


def digest(item: Mapping[str, Any]) -> bytes:
    """Return a digest of an object that is the same for equal objects, whatever the order of their fields."""
    try:
        text = orjson.dumps(item, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # nested deeper than orjson writes, though it reads that
        text = json.dumps(item, sort_keys=True).encode()
    return hashlib.blake2b(text, digest_size=16).digest()


@dataclass(slots=True)
class StoredObjects:
    """What a file holds, by digest: 200,000 objects take about 50 MB.

    Attributes:
        kinds: Counts by ``PLURAL.GROUP``.
        digests: By that and the API version it is stored in, then by ``NAMESPACE/NAME``.
        kind_names: The kind of each of these, such as ``Deployment``.
        custom: Those whose objects define themselves: custom resources.
        unreadable: By the same, then by ``NAMESPACE/NAME``, with the code of the error.
    """

    kinds: dict[str, KindCount] = field(default_factory=dict)
    digests: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    kind_names: dict[str, str] = field(default_factory=dict)
    custom: set[str] = field(default_factory=set)
    unreadable: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, plural: str, name: str, item: Mapping[str, Any], *, custom: bool) -> None:
        """Note an object by the name in its key, which is not always the one that it says itself."""
        self.count(plural).backed_up += 1
        self.kind_names[plural] = item["kind"]
        self.digests.setdefault((plural, item["apiVersion"]), {})[name] = digest(item)
        if custom:
            self.custom.add(plural)

    def add_unreadable(self, plural: str, name: str, code: str) -> None:
        """Note an object that is there and could not be read."""
        count = self.count(plural)
        count.backed_up += 1
        count.unreadable += 1
        self.unreadable.setdefault(plural, {})[name] = code

    def count(self, plural: str) -> KindCount:
        """Return the row of a kind."""
        return self.kinds.setdefault(plural, KindCount(kind=plural))


_WORDS: Final = {
    "differs-when-served": (
        "objects that are served otherwise than they are stored: {n}",
        "compare the fields named; an older API server than the cluster's drops what it does not know",
    ),
    "filled-in-when-served": (
        "objects with fields that are not stored and that this API server fills in: {n}",
        "nothing is lost; after an upgrade kube-storage-version-migrator writes them as they are served",
    ),
    "lost-when-served": (
        "objects that are in the file and not served: {n}",
        "look at the API server's log; the cluster would come back without them",
    ),
    "not-in-the-file": (
        "objects that are served and were not read from the file: {n}",
        "report it: the reader missed them",
    ),
    "no-longer-served": (
        "objects of kinds that this version of Kubernetes does not serve: {n}",
        "restore to the version that the cluster ran, or move them to a newer API version before the next upgrade",
    ),
    "definition-missing": (
        "custom resources without a CustomResourceDefinition in the backup: {n}",
        "they cannot be reached until their definition is applied again; have it backed up, too",
    ),
    "not-comparable": (
        "objects that could not be read from the API server: {n}",
        "look at the message of each; the cluster that is restored will have the same trouble",
    ),
    "cannot-be-listed": (
        "kinds that the API server cannot list, so that each object was asked for alone: {n}",
        "an object keeps it from that, or a conversion webhook, which nobody answers here; whoever lists them fails",
    ),
    "stored-in-another-version": (
        "objects stored in an API version that is not served, compared by name alone: {n}",
        "write them again in the current version (kube-storage-version-migrator) before the next upgrade",
    ),
}
_LEVELS: Final = {
    "stored-in-another-version": Level.WARNING,
    "cannot-be-listed": Level.WARNING,
    "filled-in-when-served": Level.NOTE,
}
_ALIVE_SECONDS: Final = 10.0


class Comparison:
    """Compares what is served with what is stored, and counts.

    Args:
        api: Of the API server that serves the file.
        revision: The file's own; later writes are the API server's.
        stored: What the file holds. Its rows are counted up, and its digests used up.
        read: Reads one object again: plural, namespace, name.
    """

    def __init__(
        self,
        api: KubeClient,
        *,
        revision: int,
        stored: StoredObjects,
        read: Callable[[str, str, str], Mapping[str, Any] | None],
    ) -> None:
        self._api = api
        self._revision = revision
        self._stored = stored
        self._read = read
        self._found: dict[str, Examples] = {}
        self._stopped = False
        self._lock = threading.Lock()  # for what is found

    def run(self) -> list[RehearsalFinding]:
        """Compare everything and return the findings."""
        served = self._served()
        names: dict[str, set[str]] = {}
        for (plural, _), digests in self._stored.digests.items():
            names.setdefault(plural, set()).update(digests)
        for plural, unreadable in self._stored.unreadable.items():
            names.setdefault(plural, set()).update(unreadable)
        versions: dict[str, list[str]] = {}
        for plural, version in sorted(self._stored.digests):
            versions.setdefault(plural, []).append(version)
        absent = [plural for plural in served if plural not in names and _twin(plural) not in names]

        def compare_versions(plural: str) -> None:
            for version in versions[plural]:
                self._compare_kind(plural, version, served.get(plural, {}), names[plural])

        def require_none(plural: str) -> None:
            self._require_none(plural, next(iter(served[plural].values())))

        # The largest kinds first, so that none of them is left alone at the end.
        largest = sorted(versions, key=lambda plural: -self._stored.count(plural).backed_up)
        with ThreadPoolExecutor(max_workers=_LISTS_AT_ONCE) as pool:
            begun = [pool.submit(compare_versions, plural) for plural in largest]
            begun += [pool.submit(require_none, plural) for plural in absent]
            try:
                for each in begun:
                    each.result()
            except BaseException:  # Ctrl-C, for one: the others must not list to their ends first
                self._stopped = True
                pool.shutdown(cancel_futures=True)
                raise
        return sorted(self._findings(), key=lambda finding: finding.code)

    def _served(self) -> dict[str, dict[str, ApiResource]]:
        """Return what can be listed, by plural with group, then by API version; the preferred one first."""
        served: dict[str, dict[str, ApiResource]] = {}
        for resource in (*self._api.resources(), *self._api.all_versions()):
            if "list" in resource.verbs and resource.plural not in _NOT_STORED:
                plural = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
                served.setdefault(plural, {}).setdefault(resource.api_version, resource)
        return served

    def _compare_kind(self, plural: str, version: str, served: Mapping[str, ApiResource], all_names: set[str]) -> None:
        digests = self._stored.digests[plural, version]
        count = self._stored.count(plural)
        if not served:
            code = "definition-missing" if plural in self._stored.custom else "no-longer-served"
            count.missing += len(digests)
            self._note_all(code, plural, digests)
            return
        if version not in served:
            self._compare_names(plural, digests, next(iter(served.values())), all_names)
            return
        resource = served[version]
        try:
            for item in self._listed(resource):
                self._compare_object(plural, item, digests, all_names)
        except ClusterError as error:
            self._require_alive(error)
            self._one_by_one(plural, resource, digests, all_names, error)
            return
        count.missing += len(digests)
        self._note_all("lost-when-served", plural, digests)

    def _compare_object(
        self, plural: str, item: Mapping[str, Any], digests: dict[str, bytes], all_names: set[str]
    ) -> None:
        name = _name_of(item)
        expected = digests.pop(name, None)
        count = self._stored.count(plural)
        if expected is None:
            if name not in all_names:
                count.extra += 1
                self._note("not-in-the-file", plural, name)
        elif expected == digest(item):
            count.equal += 1
        else:
            self._judge_difference(plural, name, item, count)

    def _judge_difference(self, plural: str, name: str, item: Mapping[str, Any], count: KindCount) -> None:
        """Tell what is lost or changed from what the API server's defaults add to objects that an older one wrote."""
        metadata = item["metadata"]
        with self._lock:
            stored = self._read(plural, metadata.get("namespace") or "", metadata["name"])
        # Custom resources were read with the defaults of their own definitions.
        filled_in = stored is not None and plural not in self._stored.custom and _is_filled_in(stored, item)
        paths = changed_paths(stored, item)[:3] if stored is not None else []
        if filled_in:
            count.equal += 1
            self._note("filled-in-when-served", plural, name, ", ".join(paths))
        else:
            count.different += 1
            told = ", ".join(paths) or ("metadata.managedFields" if stored is not None else "")
            self._note("differs-when-served", plural, name, told)

    def _require_alive(self, error: ClusterError) -> None:
        """Raise the error if the server is to blame for it, and not an object: then nobody can tell."""
        if self._stopped:
            raise error
        try:
            self._api.request("GET", "/livez/ping", timeout_seconds=_ALIVE_SECONDS)
        except ClusterError:
            raise error from None

    def _one_by_one(
        self,
        plural: str,
        resource: ApiResource,
        digests: dict[str, bytes],
        all_names: set[str],
        reason: ClusterError,
    ) -> None:
        """Get each object where one of them, or a conversion, keeps the server from listing all."""
        count = self._stored.count(plural)
        self._note("cannot-be-listed", plural, "", reason.message)
        for name in sorted(digests):
            if self._stopped:
                return
            namespace, _, own = name.partition("/")
            try:
                item = self._api.get(resource, own, namespace or None)
            except ResourceNotFoundError:
                count.missing += 1
                self._note("lost-when-served", plural, name)
            except ClusterError as error:
                self._require_alive(error)
                count.unreadable += 1
                self._note("not-comparable", plural, name, error.message)
            else:
                if int(item["metadata"]["resourceVersion"]) > self._revision:
                    count.unreadable += 1
                    self._note("not-comparable", plural, name, "the API server has written it since")
                else:
                    self._compare_object(plural, item, digests, all_names)

    def _compare_names(
        self, plural: str, digests: dict[str, bytes], resource: ApiResource, all_names: set[str]
    ) -> None:
        count = self._stored.count(plural)
        try:
            for item in self._listed(resource):
                name = _name_of(item)
                if digests.pop(name, None) is not None:
                    count.converted += 1
                    self._note("stored-in-another-version", plural, name)
                elif name not in all_names:
                    count.extra += 1
                    self._note("not-in-the-file", plural, name)
        except ClusterError as error:
            self._require_alive(error)
            self._note("cannot-be-listed", plural, "", error.message)
            count.unreadable += len(digests)
            self._note_all("not-comparable", plural, digests)
            return
        count.missing += len(digests)
        self._note_all("lost-when-served", plural, digests)

    def _require_none(self, plural: str, resource: ApiResource) -> None:
        try:
            for item in self._listed(resource):
                self._stored.count(plural).extra += 1
                self._note("not-in-the-file", plural, _name_of(item))
        except ClusterError as error:
            self._require_alive(error)
            self._note("not-comparable", plural, "", error.message)

    def _listed(self, resource: ApiResource) -> Iterator[dict[str, Any]]:
        for page in self._api.list_pages(resource, page_size=_PAGE, resource_version=str(self._revision)):
            if self._stopped:
                return
            yield from page.items

    def _note_all(self, code: str, plural: str, names: Mapping[str, object]) -> None:
        for name in sorted(names):
            self._note(code, plural, name)

    def _note(self, code: str, plural: str, name: str, detail: str = "") -> None:
        example = f"{plural} {name.lstrip('/')}".rstrip()
        with self._lock:
            self._found.setdefault(code, Examples()).add(f"{example}: {detail}" if detail else example)

    def _findings(self) -> Iterator[RehearsalFinding]:
        for code, found in self._found.items():
            yield from found.finding(code, _LEVELS.get(code, Level.ERROR), *_WORDS[code])


def _is_filled_in(stored: Mapping[str, Any], served: Mapping[str, Any]) -> bool:
    return digest(stored["metadata"]) == digest(served["metadata"]) and only_adds(stored, served)


def _name_of(item: Mapping[str, Any]) -> str:
    return f"{item['metadata'].get('namespace') or ''}/{item['metadata']['name']}"


def _twin(plural: str) -> str | None:
    group = _TWINS.get(plural)
    return None if group is None else f"events.{group}".rstrip(".")

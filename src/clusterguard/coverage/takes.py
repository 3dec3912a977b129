"""What a backup takes of a cluster, object by object, by what it was asked for and by Velero's own rules. Pure.

Source of the facts: Velero 1.18.3, run (docs/reference/what-comes-back.md), and its pages on resource filtering.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Final

from clusterguard.coverage.found import Kind, stamp

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clusterguard.coverage.found import Found, Thing
    from clusterguard.coverage.sources import Source
    from clusterguard.velero.options import BackupOptions

__all__ = ["NEVER_RESTORED", "Reason", "Taking"]


class Reason(StrEnum):
    """Why an object is in no backup, the most telling first: of several sources the first of these is told."""

    EXCLUDED_BY_LABEL = "excluded-by-label"
    OTHER_LABELS = "other-labels"
    KIND_LEFT_OUT = "kind-left-out"
    CLUSTER_SCOPED = "cluster-scoped"
    NEVER_RESTORED = "never-restored"
    OTHER_SERVER = "other-server"
    NEWER = "newer-than-backup"
    NAMESPACE_LEFT_OUT = "namespace-left-out"
    NO_BACKUP = "no-backup"

    @property
    def words(self) -> str:
        """What it means."""
        return _WORDS[self]


_WORDS: Final[Mapping[Reason, str]] = {
    Reason.EXCLUDED_BY_LABEL: "it, or its namespace, has the label velero.io/exclude-from-backup=true",
    Reason.OTHER_LABELS: "the label selector of the backup does not match it",
    Reason.KIND_LEFT_OUT: "the backup's filters leave its kind out",
    Reason.CLUSTER_SCOPED: "the backup takes cluster-scoped objects only where an object of a namespace refers to them",
    Reason.NEVER_RESTORED: "Velero never restores its kind",
    Reason.OTHER_SERVER: "another server than the API server keeps it, so that it is not in etcd",
    Reason.NEWER: "its namespace, or the definition of its kind, is newer than the backup",
    Reason.NAMESPACE_LEFT_OUT: "the backup does not take its namespace",
    Reason.NO_BACKUP: "no backup counts at the moment",
}

EXCLUDED: Final = "velero.io/exclude-from-backup"
NEVER_RESTORED: Final = frozenset(
    {
        *("Node", "Event", "Event.events.k8s.io", "CSINode.storage.k8s.io", "VolumeAttachment.storage.k8s.io"),
        *("Backup.velero.io", "Restore.velero.io", "BackupRepository.velero.io"),
    }
)
"""Kinds that Velero backs up, and never restores."""

_DEFINITION: Final = "CustomResourceDefinition.apiextensions.k8s.io"
_NAMESPACE: Final = "Namespace"
_VOLUME: Final = "PersistentVolume"
_BINDING: Final = "ClusterRoleBinding.rbac.authorization.k8s.io"
_ROLE: Final = "ClusterRole.rbac.authorization.k8s.io"
_BETWEEN_LOOKS: Final = timedelta(minutes=5, seconds=30)  # Velero looks for new kinds every five minutes


class Taking:
    """Decides what one backup takes; what refers to cluster-scoped objects is looked up once.

    Args:
        source: The backup.
        found: The cluster.
    """

    def __init__(self, source: Source, found: Found) -> None:
        self.source = source
        self._found = found
        self.taken_at = stamp(source.taken)
        self._known_at = stamp(source.taken - (_BETWEEN_LOOKS if source.options else timedelta()))

    @property
    def selects_by_labels(self) -> bool:
        """Whether labels other than the excluding one matter."""
        options = self.source.options
        return options is not None and bool(options.label_selector or options.or_label_selectors)

    def left_out(self, kind: Kind, thing: Thing) -> Reason | None:
        """Return why an object is not in the backup; None where it is, or will be in the next one like it.

        An object that is newer than the backup, of a namespace and a kind that are not, counts as taken.
        """
        if self._is_too_new(kind, thing):
            return Reason.NEWER
        if self.source.options is None:
            return Reason.OTHER_SERVER if kind.group in self._found.aggregated else None
        return self._left_out_by(self.source.options, kind, thing)

    def _left_out_by(self, options: BackupOptions, kind: Kind, thing: Thing) -> Reason | None:
        if kind.name in NEVER_RESTORED:
            return Reason.NEVER_RESTORED
        if thing.labels.get(EXCLUDED) == "true" or self._namespace_of(kind, thing) in self._excluded_namespaces:
            return Reason.EXCLUDED_BY_LABEL
        if kind.name == _NAMESPACE:
            return _namespace_left_out(options, thing.name)
        if kind.namespaced:
            return _namespaced_left_out(options, kind, thing)
        return self._cluster_scoped_left_out(options, kind, thing)

    def _is_too_new(self, kind: Kind, thing: Thing) -> bool:
        where = self._namespace_of(kind, thing)
        if where and self._namespaces.get(where, "") > self.taken_at:
            return True
        definition = thing.name if kind.name == _DEFINITION else kind.resource
        # Velero's server does not start before its own kinds are defined, so it knows them.
        known_at = self.taken_at if definition.endswith(".velero.io") else self._known_at
        return self._definitions.get(definition, "") > known_at

    @staticmethod
    def _namespace_of(kind: Kind, thing: Thing) -> str:
        return thing.name if kind.name == _NAMESPACE else thing.namespace

    @cached_property
    def _namespaces(self) -> Mapping[str, str]:
        return {each.name: each.created for each in self._found.of_kind(_NAMESPACE)}

    @cached_property
    def _definitions(self) -> Mapping[str, str]:
        return {each.name: each.created for each in self._found.of_kind(_DEFINITION)}

    @cached_property
    def _excluded_namespaces(self) -> frozenset[str]:
        every = self._found.of_kind(_NAMESPACE)
        return frozenset(each.name for each in every if each.labels.get(EXCLUDED) == "true")

    # ---- cluster-scoped objects ------------------------------------------------------------------------------

    def _cluster_scoped_left_out(self, options: BackupOptions, kind: Kind, thing: Thing) -> Reason | None:
        if options.leaves_kind_out(kind.resource):
            return Reason.KIND_LEFT_OUT
        if options.wants_kind(kind.resource, namespaced=False) and _old_filter_takes(options, kind):
            return None if _labels_match(options, thing) or self._is_referred_to(kind, thing) else Reason.OTHER_LABELS
        if not _old_filter_takes(options, kind):
            return Reason.KIND_LEFT_OUT
        return None if self._is_referred_to(kind, thing) else Reason.CLUSTER_SCOPED

    def _is_referred_to(self, kind: Kind, thing: Thing) -> bool:
        match kind.name:
            case "CustomResourceDefinition.apiextensions.k8s.io":
                return thing.name in self._kinds_taken
            case "PersistentVolume":
                return thing.name in self._volumes_taken
            case "ClusterRoleBinding.rbac.authorization.k8s.io":
                return thing.name in self._bindings_taken
            case "ClusterRole.rbac.authorization.k8s.io":
                return thing.name in self._roles_taken
        return False

    @cached_property
    def _kinds_taken(self) -> frozenset[str]:
        """The custom resources of which something is taken; each brings its definition."""
        custom = {each.name for each in self._found.of_kind(_DEFINITION)}
        return frozenset(
            kind.resource
            for kind, things in self._found.things.items()
            if kind.resource in custom and any(self.left_out(kind, each) is None for each in things)
        )

    @cached_property
    def _volumes_taken(self) -> frozenset[str]:
        kind = Kind("PersistentVolumeClaim", "persistentvolumeclaims", namespaced=True)
        things = {(each.namespace, each.name): each for each in self._found.of_kind(kind.name)}
        return frozenset(
            claim.volume
            for claim in self._found.claims
            if claim.volume
            and (thing := things.get((claim.namespace, claim.name))) is not None
            and self.left_out(kind, thing) is None
        )

    @cached_property
    def _accounts_taken(self) -> frozenset[str]:
        """The namespaces whose service accounts are all taken; each account brings its bindings and their roles."""
        kind = Kind("ServiceAccount", "serviceaccounts", namespaced=True)
        accounts = self._found.of_kind(kind.name)
        left = {each.namespace for each in accounts if self.left_out(kind, each) is not None}
        return frozenset(each.namespace for each in accounts) - left

    @cached_property
    def _bindings_taken(self) -> frozenset[str]:
        return frozenset(each.name for each in self._found.bindings if each.namespaces & self._accounts_taken)

    @cached_property
    def _roles_taken(self) -> frozenset[str]:
        return frozenset(each.role for each in self._found.bindings if each.name in self._bindings_taken)


def _namespaced_left_out(options: BackupOptions, kind: Kind, thing: Thing) -> Reason | None:
    if not options.wants_namespace(thing.namespace):
        return Reason.NAMESPACE_LEFT_OUT
    if not options.wants_kind(kind.resource, namespaced=True):
        return Reason.KIND_LEFT_OUT
    return None if _labels_match(options, thing) else Reason.OTHER_LABELS


def _namespace_left_out(options: BackupOptions, name: str) -> Reason | None:
    if not options.wants_namespace(name):
        return Reason.NAMESPACE_LEFT_OUT
    kinds = options.included_resources  # the old filter of kinds leaves the Namespace out, the new one does not
    chosen = bool(kinds) and "*" not in kinds and not options.names_kind("namespaces")
    return Reason.KIND_LEFT_OUT if chosen or options.leaves_kind_out("namespaces") else None


def _old_filter_takes(options: BackupOptions, kind: Kind) -> bool:
    kinds = options.included_resources
    return not kinds or "*" in kinds or options.names_kind(kind.resource)


def _labels_match(options: BackupOptions, thing: Thing) -> bool:
    selectors = [each for each in (options.label_selector, *options.or_label_selectors) if each is not None]
    return not selectors or any(each.matches(thing.labels) for each in selectors)

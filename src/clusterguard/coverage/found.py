"""What was seen in a cluster, as data: names, labels and times, and of volumes what decides about their data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from clusterguard.velero.claims import ClaimedVolume
    from clusterguard.velero.csi import SnapshotClasses

__all__ = ["Binding", "Found", "InlineVolume", "Kind", "PodUse", "Thing", "Unread", "stamp"]


class Kind(NamedTuple):
    """A kind that the cluster serves.

    Attributes:
        name: With its group, as scopes write it: ``Deployment.apps``.
        resource: As Velero writes it: ``deployments.apps``.
    """

    name: str
    resource: str
    namespaced: bool

    @property
    def group(self) -> str:
        """Its API group; empty for the core group."""
        return self.name.partition(".")[2]


class Thing(NamedTuple):
    """One object.

    Attributes:
        created: As the API writes it, ``2030-01-01T12:00:00Z``, so that it compares as text; empty where unknown.
        rule: The rule by which it need not be in any backup; empty for none.
    """

    name: str
    namespace: str = ""
    labels: Mapping[str, str] = {}
    created: str = ""
    rule: str = ""


class Unread(NamedTuple):
    """What could not be looked at: a kind, in one namespace or (empty) everywhere, or anything else by its name."""

    what: str
    reason: str
    namespace: str = ""


class PodUse(NamedTuple):
    """How one Pod uses a claim; the annotations are those of Velero's file-system backup."""

    pod: str
    volume: str
    running: bool = True
    opted_in: bool = False
    opted_out: bool = False
    labels: Mapping[str, str] = {}


class InlineVolume(NamedTuple):
    """A volume that Pods name themselves, without a claim.

    Attributes:
        owner: What the Pods belong to: ``DaemonSet agent``, ``Pod web``.
        volume: Its name in the Pod.
        source: ``emptyDir``, ``hostPath``, ``nfs`` …
        pods: Their names.
        read_only: Whether no container may write to it.
    """

    namespace: str
    owner: str
    volume: str
    source: str
    pods: tuple[str, ...]
    read_only: bool = False


class Binding(NamedTuple):
    """A ClusterRoleBinding: its role, and the namespaces of the service accounts in it."""

    name: str
    role: str
    namespaces: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a cluster has.

    Attributes:
        at: When it was looked at, by the API server's clock.
        not_listed: Kinds that a rule leaves out whole, with its name.
        aggregated: API groups that another server than the API server answers for, so that etcd does not have them.
        uses: By namespace and name of the claim.
        unclaimed: PersistentVolumes that no claim is bound to, with their phase.
    """

    cluster: str
    at: datetime
    things: Mapping[Kind, Sequence[Thing]]
    unread: tuple[Unread, ...] = ()
    not_listed: Mapping[str, str] = field(default_factory=dict)
    aggregated: frozenset[str] = frozenset()
    bindings: tuple[Binding, ...] = ()
    claims: tuple[ClaimedVolume, ...] = ()
    uses: Mapping[tuple[str, str], tuple[PodUse, ...]] = field(default_factory=dict)
    inline: tuple[InlineVolume, ...] = ()
    unclaimed: Mapping[str, str] = field(default_factory=dict)
    snapshot_classes: SnapshotClasses | None = None

    def of_kind(self, name: str) -> Sequence[Thing]:
        """Return the objects of a kind, by its name with its group."""
        return next((things for kind, things in self.things.items() if kind.name == name), ())


def stamp(moment: datetime) -> str:
    """Return a moment in UTC as the API writes the creation of objects."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")

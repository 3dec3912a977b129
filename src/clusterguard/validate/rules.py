"""Differences that do not speak against a restore: a table of named rules, in profiles.

A rule explains a difference, it never hides one: every difference it covers is recorded under its name. A
profile is what may change on one kind of way back:

- ``etcd-restore``: the same objects, down to their uid. Almost nothing may change but what controllers and
  nodes write anew.
- ``velero-restore``: new objects made from stored manifests. Identities and what the cluster assigns are new.
- ``same-cluster``: objects repaired in place, or deleted and applied again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from clusterguard.errors import ConfigError
from clusterguard.validate.paths import parse_pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clusterguard.model.inventory import ObjectRef
    from clusterguard.validate.paths import Path

__all__ = [
    "ABSENT",
    "ETCD_RESTORE",
    "PROFILES",
    "SAME_CLUSTER",
    "VELERO_RESTORE",
    "Absent",
    "Difference",
    "Identity",
    "Profile",
    "VolatileRule",
    "adjusted",
    "ignoring",
    "profile_named",
]

Identity: TypeAlias = Literal["name", "uid"]


class Absent:
    """The type of `ABSENT`."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = Absent()
"""Stands where a field is not there, which is something else than null."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One field of one object that is not as it was.

    Attributes:
        ref: The object.
        path: The field.
        before: Its value then, or `ABSENT`.
        after: Its value now, or `ABSENT`.
        autoscaled: Whether an autoscaler chooses the replicas of this object.
    """

    ref: ObjectRef
    path: Path
    before: Any
    after: Any
    autoscaled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VolatileRule:
    """Explains differences of certain fields.

    Attributes:
        name: How reports call it.
        reason: Why such a difference does not matter.
        paths: Patterns of the fields (see `clusterguard.validate.paths`).
        kinds: Globs over kinds with their group, such as ``Deployment.apps``; empty for all.
        when: A further condition on the very difference.
    """

    name: str
    reason: str
    paths: tuple[str, ...]
    kinds: tuple[str, ...] = ()
    when: Callable[[Difference], bool] | None = None

    def explains(self, difference: Difference) -> bool:
        """Return whether this rule covers the difference."""
        return (
            self.applies_to(difference.ref.full_kind)
            and any(parse_pattern(text).covers(difference.path) for text in self.paths)
            and (self.when is None or self.when(difference))
        )

    def applies_to(self, full_kind: str) -> bool:
        """Return whether it has anything to say on a kind."""
        return not self.kinds or any(fnmatchcase(full_kind, kind) for kind in self.kinds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What may differ after one kind of restore.

    Attributes:
        name: How users choose it.
        identity: ``uid``: the very same objects; ``name``: objects of the same name.
        rules: The first one that explains a difference is the one that is recorded.
        replaceable_pods: Whether a pod that its controller named may be another one of the same controller.
        loses_finished_work: Whether Jobs that are done and pods that have ended may stay away.
    """

    name: str
    identity: Identity
    rules: tuple[VolatileRule, ...]
    replaceable_pods: bool = False
    loses_finished_work: bool = False

    def explain(self, difference: Difference) -> str | None:
        """Return the name of the rule that explains a difference, or None."""
        for rule in _rules_for(self.rules, difference.ref.full_kind):
            if rule.explains(difference):
                return rule.name
        return None


@lru_cache(maxsize=4096)
def _rules_for(rules: tuple[VolatileRule, ...], full_kind: str) -> tuple[VolatileRule, ...]:
    return tuple(rule for rule in rules if rule.applies_to(full_kind))


def profile_named(name: str, *, identity: Identity | None = None, ignore: Sequence[str] = ()) -> Profile:
    """Return a profile, possibly with another identity, and with the caller's own fields to ignore.

    Raises:
        ConfigError: There is no such profile, or one of ``ignore`` is not a field path.
    """
    if name not in PROFILES:
        raise ConfigError(f"no rule profile {name!r}", hint=f"there are {', '.join(PROFILES)}")
    return adjusted(PROFILES[name], identity=identity, ignore=ignore)


def adjusted(profile: Profile, *, identity: Identity | None = None, ignore: Sequence[str] = ()) -> Profile:
    """Return a profile with another identity and with the caller's own fields to ignore.

    Raises:
        ConfigError: One of ``ignore`` is not a field path.
    """
    if identity is not None and identity != profile.identity:
        profile = _with_identity(profile, identity)
    return replace(profile, rules=(*ignoring(ignore), *profile.rules))


def ignoring(paths: Sequence[str]) -> tuple[VolatileRule, ...]:
    """Return the rule for fields that the caller does not care for.

    Args:
        paths: Patterns, each for all kinds, or for one: ``Deployment.apps:spec.replicas``.

    Raises:
        ConfigError: One of them is not a field path.
    """
    by_kind: dict[str, list[str]] = {}
    for text in paths:
        kind, path = _split_kind(text)
        parse_pattern(path)
        by_kind.setdefault(kind, []).append(path)
    return tuple(
        VolatileRule(
            name="ignored by the drill",
            reason="whoever wrote the drill does not care for it",
            paths=tuple(found),
            kinds=(kind,) if kind else (),
        )
        for kind, found in by_kind.items()
    )


def _split_kind(text: str) -> tuple[str, str]:
    kind, colon, path = text.partition(":")
    if colon and kind and all(part.isalnum() or part in "-.*" for part in kind):
        return kind, path.strip()
    return "", text


def _with_identity(profile: Profile, identity: Identity) -> Profile:
    others = tuple(rule for rule in profile.rules if rule is not _NEW_IDENTITY)
    rules = (*others, _NEW_IDENTITY) if identity == "name" else others
    # A pod with another uid is never the very same one.
    return replace(
        profile,
        identity=identity,
        rules=rules,
        replaceable_pods=profile.replaceable_pods and identity == "name",
    )


# ---- conditions ------------------------------------------------------------------------------------------


def _moved_on(difference: Difference) -> bool:
    before, after = str(difference.before), str(difference.after)
    # Resource versions of one cluster may be compared as integers (KEP-5504); going back means that an older
    # state of the object was restored.
    return before.isdecimal() and after.isdecimal() and int(after) > int(before)


def _set_since(difference: Difference) -> bool:
    return isinstance(difference.before, Absent)


def _autoscaled(difference: Difference) -> bool:
    return difference.autoscaled


# ---- rules -----------------------------------------------------------------------------------------------

_STATUS = VolatileRule(
    name="status",
    reason="controllers and nodes write it all the time; whether it is good is a question of readiness",
    paths=("status",),
)
_RESOURCE_VERSION = VolatileRule(
    name="resource version",
    reason="every write, of status too, moves it on",
    paths=("metadata.resourceVersion",),
)
_RESOURCE_VERSION_MOVED_ON = replace(_RESOURCE_VERSION, when=_moved_on)
_AUTOSCALED = VolatileRule(
    name="replicas chosen by an autoscaler",
    reason="a HorizontalPodAutoscaler in the inventory scales it",
    paths=(
        "spec.replicas",
        "metadata.generation",
        "metadata.annotations[deployment.kubernetes.io/desired-replicas]",
        "metadata.annotations[deployment.kubernetes.io/max-replicas]",
    ),
    when=_autoscaled,
)
_SCHEDULED_SINCE = VolatileRule(
    name="scheduled since",
    reason="the pod was waiting for a node when it was captured, and has got one",
    paths=("spec.nodeName",),
    kinds=("Pod",),
    when=_set_since,
)
_BOUND_SINCE = VolatileRule(
    name="bound since",
    reason="the claim or volume was waiting for its counterpart when it was captured, and has got it",
    paths=("spec.volumeName", "spec.claimRef", "metadata.annotations[*kubernetes.io/*]"),
    kinds=("PersistentVolumeClaim", "PersistentVolume"),
    when=_set_since,
)
_HEARTBEAT = VolatileRule(
    name="heartbeat",
    reason="whoever holds a lease renews it every few seconds",
    paths=("spec.renewTime", "spec.acquireTime", "spec.leaseTransitions", "spec.holderIdentity"),
    kinds=("Lease.coordination.k8s.io",),
)
_NODE_UPKEEP = VolatileRule(
    name="node upkeep",
    reason="kubelets and the node controller keep annotations and taints of nodes up to date",
    paths=(
        "metadata.annotations[node.alpha.kubernetes.io/ttl]",
        "metadata.annotations[volumes.kubernetes.io/controller-managed-attach-detach]",
        "spec.taints[key=node.kubernetes.io/*]",
    ),
    kinds=("Node",),
)
_NEW_IDENTITY = VolatileRule(
    name="new identity",
    reason="the object was made again under its name",
    paths=(
        "metadata.uid",
        "metadata.creationTimestamp",
        "metadata.selfLink",
        "metadata.ownerReferences[*].uid",
    ),
)
_GENERATION = VolatileRule(
    name="generation",
    reason="it counts the changes of this very object, and starts anew with a new one",
    paths=("metadata.generation",),
)
_ROLLOUT_REVISION = VolatileRule(
    name="rollout revision",
    reason="it counts rollouts of this very object",
    paths=(
        "metadata.annotations[deployment.kubernetes.io/revision]",
        "metadata.annotations[deployment.kubernetes.io/revision-history]",
    ),
    kinds=("Deployment.apps", "ReplicaSet.apps"),
)
_JOB_IDENTITY = VolatileRule(
    name="job identity",
    reason="a Job selects its pods by its own uid",
    paths=(
        "metadata.labels.controller-uid",
        "metadata.labels[batch.kubernetes.io/controller-uid]",
        "spec.selector.matchLabels.controller-uid",
        "spec.selector.matchLabels[batch.kubernetes.io/controller-uid]",
        "spec.template.metadata.labels.controller-uid",
        "spec.template.metadata.labels[batch.kubernetes.io/controller-uid]",
    ),
    kinds=("Job.batch", "Pod"),
)
_ASSIGNED_NODE = VolatileRule(
    name="assigned node",
    reason="the scheduler chooses anew",
    paths=("spec.nodeName",),
    kinds=("Pod",),
)
_INJECTED_TOKEN_VOLUME = VolatileRule(
    name="injected token volume",
    reason="admission gives the volume with the service account token a random name",
    paths=(
        "spec.volumes[name=kube-api-access-*]",
        "spec.*[*].volumeMounts[mountPath=/var/run/secrets/kubernetes.io/serviceaccount]",
    ),
    kinds=("Pod",),
)
_SERVICE_ADDRESSES = VolatileRule(
    name="service addresses",
    reason="the cluster assigns cluster addresses and node ports",
    paths=("spec.clusterIP", "spec.clusterIPs", "spec.ports[*].nodePort", "spec.healthCheckNodePort"),
    kinds=("Service",),
    when=lambda difference: difference.before != "None",  # a headless Service must stay headless
)
_VOLUME_BINDING = VolatileRule(
    name="volume binding",
    reason="a restored claim gets a volume of its own",
    paths=(
        "spec.volumeName",
        "spec.claimRef.uid",
        "spec.claimRef.resourceVersion",
        "metadata.annotations[pv.kubernetes.io/*]",
        "metadata.annotations[volume.kubernetes.io/selected-node]",
        "metadata.annotations[volume.kubernetes.io/storage-provisioner]",
        "metadata.annotations[volume.beta.kubernetes.io/storage-provisioner]",
    ),
    kinds=("PersistentVolumeClaim", "PersistentVolume"),
)
_VELERO_LABELS = VolatileRule(
    name="velero labels",
    reason="Velero marks what it has restored",
    paths=("metadata.labels[velero.io/backup-name]", "metadata.labels[velero.io/restore-name]"),
)
_VELERO_WAIT = VolatileRule(
    name="velero init container",
    reason="Velero lets a Pod wait until the files of its volumes are back",
    paths=("spec.initContainers[name=restore-wait]",),
    kinds=("Pod",),
    when=lambda difference: difference.before is ABSENT,
)
_TOKENS = VolatileRule(
    name="issued tokens",
    reason="tokens are issued for the uid of a service account",
    paths=("data.token", "metadata.annotations[kubernetes.io/service-account.uid]"),
    kinds=("Secret",),
)
_TOKEN_SECRETS = VolatileRule(
    name="token secrets",
    reason="a cluster that makes token Secrets gives them random names",
    paths=("secrets[name=*-token-*]",),
    kinds=("ServiceAccount",),
)

_ALWAYS = (_STATUS, _AUTOSCALED, _SCHEDULED_SINCE, _BOUND_SINCE, _HEARTBEAT, _NODE_UPKEEP)

ETCD_RESTORE = Profile(name="etcd-restore", identity="uid", rules=(*_ALWAYS, _RESOURCE_VERSION_MOVED_ON))
SAME_CLUSTER = Profile(
    name="same-cluster",
    identity="name",
    replaceable_pods=True,
    rules=(
        *_ALWAYS,
        _RESOURCE_VERSION,
        _GENERATION,
        _ROLLOUT_REVISION,
        _JOB_IDENTITY,
        _ASSIGNED_NODE,
        _INJECTED_TOKEN_VOLUME,
        _NEW_IDENTITY,
    ),
)
_NO_NAME_PATTERN = VolatileRule(
    name="name pattern",
    reason="Velero restores names, and drops the pattern that a name was once generated from",
    paths=("metadata.generateName",),
    when=lambda difference: difference.after is ABSENT,
)
VELERO_RESTORE = Profile(
    name="velero-restore",
    identity="name",
    replaceable_pods=True,
    loses_finished_work=True,
    rules=(
        *SAME_CLUSTER.rules,
        _SERVICE_ADDRESSES,
        _VOLUME_BINDING,
        _VELERO_LABELS,
        _VELERO_WAIT,
        _NO_NAME_PATTERN,
        _TOKENS,
        _TOKEN_SECRETS,
    ),
)
PROFILES = {profile.name: profile for profile in (ETCD_RESTORE, VELERO_RESTORE, SAME_CLUSTER)}

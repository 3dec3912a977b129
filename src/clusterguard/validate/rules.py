"""Differences that do not speak against a restore: a table of named rules, in profiles.

A rule explains a difference, it never hides one: every difference it covers is recorded under its name. It goes
by kind, field and cause, and never by a name alone: see `clusterguard.validate.conditions`. A
profile is what may change on one kind of way back:

- ``etcd-restore``: the same objects, down to their uid. Almost nothing may change but what controllers and
  nodes write anew.
- ``velero-restore``: new objects made from stored manifests. Identities and what the cluster assigns are new.
- ``same-cluster``: objects repaired in place, or deleted and applied again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from clusterguard.errors import ConfigError
from clusterguard.validate import add_ons, conditions
from clusterguard.validate.paths import Element, parse_pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from clusterguard.validate.difference import Difference
    from clusterguard.validate.paths import Path, Pattern

__all__ = [
    "ETCD_RESTORE",
    "FILLED_IN",
    "FINISHED_WORK",
    "OWNERS_LOST",
    "PROFILES",
    "SAME_CLUSTER",
    "VELERO_RESTORE",
    "Identity",
    "Profile",
    "RuleIndex",
    "VolatileRule",
    "adjusted",
    "ignoring",
    "profile_named",
]

Identity: TypeAlias = Literal["name", "uid"]
FINISHED_WORK: Final = "finished work"
"""The rule for whole objects that may stay away, see `Profile.loses_finished_work`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolatileRule:
    """Explains differences of certain fields.

    Attributes:
        name: How reports call it.
        reason: Why such a difference does not matter.
        paths: Patterns of the fields (see `clusterguard.validate.paths`).
        kinds: Globs over kinds with their group, such as ``Deployment.apps``; empty for all.
        when: The cause: a condition on the very difference, which sees both objects whole.
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
        replaceable: Whether an object with a generated name may be another one of the same owner: a pod of its
            controller, a claim of its pod.
        new_volumes: Whether a volume that was provisioned for a claim may be another one for the same claim.
        loses_finished_work: Whether Jobs that are done and pods that have ended may stay away.
    """

    name: str
    identity: Identity
    rules: tuple[VolatileRule, ...]
    replaceable: bool = False
    new_volumes: bool = False
    loses_finished_work: bool = False

    @property
    def rule_names(self) -> frozenset[str]:
        """The names of all rules that it has."""
        finished = {FINISHED_WORK} if self.loses_finished_work else set()
        return frozenset({rule.name for rule in self.rules} | finished)

    def without(self, names: Sequence[str]) -> Profile:
        """Return it with rules of these names switched off: what they explain counts then.

        Raises:
            ConfigError: It has no rule of such a name.
        """
        for name in names:
            if name not in self.rule_names:
                raise ConfigError(
                    f"{self.name} has no rule {name!r} to switch off",
                    code="unknown-rule",
                    hint=f"its rules are {', '.join(sorted(self.rule_names))}",
                )
        return replace(
            self,
            rules=tuple(rule for rule in self.rules if rule.name not in names),
            loses_finished_work=self.loses_finished_work and FINISHED_WORK not in names,
        )

    def explain(self, difference: Difference) -> str | None:
        """Return the name of the rule that explains a difference, or None."""
        return RuleIndex(self, difference.ref.full_kind).explain(difference)


class RuleIndex:
    """The rules of a profile for one kind, by the first two steps of their paths."""

    def __init__(self, profile: Profile, full_kind: str) -> None:
        found = [
            (parse_pattern(path), rule) for rule in profile.rules if rule.applies_to(full_kind) for path in rule.paths
        ]
        self._by_first = {key: _by_key(entries, step=1) for key, entries in _by_key(found, step=0).items()}

    def candidates(self, path: Path) -> Iterator[VolatileRule]:
        """Yield the rules that cover a field, whatever their condition says."""
        first, second = path[0], path[1] if len(path) > 1 else None
        by_second = self._by_first.get(first) or self._by_first[None]
        for pattern, rule in by_second.get(second) or by_second[None]:
            if pattern.covers(path):
                yield rule

    def explain(self, difference: Difference) -> str | None:
        """Return the name of the rule that explains a difference, or None."""
        for rule in self.candidates(difference.path):
            if rule.when is None or rule.when(difference):
                return rule.name
        return None


def _by_key(
    entries: list[tuple[Pattern, VolatileRule]], *, step: int
) -> dict[str | Element | None, list[tuple[Pattern, VolatileRule]]]:
    """Return which patterns may cover a path with a certain key at a step; at None those for any other one."""
    keys = {None, *(pattern.key_at(step) for pattern, _ in entries)}
    return {key: [entry for entry in entries if entry[0].key_at(step) in {key, None}] for key in keys}


def profile_named(
    name: str,
    *,
    identity: Identity | None = None,
    ignore: Sequence[str] = (),
    without: Sequence[str] = (),
) -> Profile:
    """Return a profile by its name, changed as by `adjusted`.

    Raises:
        ConfigError: There is no such profile, or as by `adjusted`.
    """
    if name not in PROFILES:
        raise ConfigError(f"no rule profile {name!r}", hint=f"there are {', '.join(PROFILES)}")
    return adjusted(PROFILES[name], identity=identity, ignore=ignore, without=without)


def adjusted(
    profile: Profile,
    *,
    identity: Identity | None = None,
    ignore: Sequence[str] = (),
    without: Sequence[str] = (),
) -> Profile:
    """Return a profile with another identity, with the caller's own fields to ignore, and without some rules.

    Raises:
        ConfigError: One of ``ignore`` is not a field path, or the profile has no rule that ``without`` names.
    """
    if identity is not None and identity != profile.identity:
        profile = _with_identity(profile, identity)
    profile = profile.without(without)
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
    others = tuple(rule for rule in profile.rules if rule not in _IDENTITY)
    rules = (*others, *_IDENTITY) if identity == "name" else others
    # An object with another uid is never the very same one.
    return replace(
        profile,
        identity=identity,
        rules=rules,
        replaceable=profile.replaceable and identity == "name",
        new_volumes=profile.new_volumes and identity == "name",
    )


# ---- rules -----------------------------------------------------------------------------------------------

_STATUS = VolatileRule(
    name="status",
    reason="controllers and nodes write it all the time; whether it is good is a question of readiness",
    paths=("status",),
    when=conditions.status_of_its_writer,
)
_STATUS_COUNTED = VolatileRule(
    name="generation of status",
    reason="without a status subresource each write of the status counts as a change of the object",
    paths=("metadata.generation",),
    when=conditions.status_counted,
)
_RESOURCE_VERSION = VolatileRule(
    name="resource version",
    reason="every write, of status too, moves it on",
    paths=("metadata.resourceVersion",),
)
_RESOURCE_VERSION_MOVED_ON = replace(_RESOURCE_VERSION, when=conditions.moved_on)
_AUTOSCALED = VolatileRule(
    name="replicas chosen by an autoscaler",
    reason="a HorizontalPodAutoscaler in the inventory scales it, and they are within its bounds",
    paths=(
        "spec.replicas",
        "metadata.generation",
        "metadata.annotations[deployment.kubernetes.io/desired-replicas]",
        "metadata.annotations[deployment.kubernetes.io/max-replicas]",
    ),
    when=conditions.autoscaled,
)
_SCHEDULED_SINCE = VolatileRule(
    name="scheduled since",
    reason="the pod was waiting for a node when it was captured, and has got one, with the labels of its zone",
    paths=(
        "spec.nodeName",
        "metadata.labels[topology.kubernetes.io/zone]",
        "metadata.labels[topology.kubernetes.io/region]",
    ),
    kinds=("Pod",),
    when=conditions.scheduled_since,
)
_GATES_OPENED = VolatileRule(
    name="scheduling gates opened",
    reason="whoever held the pod back has let it go, and it has got a node",
    paths=("spec.schedulingGates", "metadata.generation"),
    kinds=("Pod",),
    when=conditions.gates_opened,
)
_PROTECTION = VolatileRule(
    name="protection by a finalizer",
    reason="a controller puts its finalizer on what is in use, seconds after it was made",
    paths=("metadata.finalizers",),
    kinds=(
        "PersistentVolume",
        "PersistentVolumeClaim",
        "ResourceClaim.resource.k8s.io",
        "Service",
        "ServiceCIDR.networking.k8s.io",
        "VolumeAttributesClass.storage.k8s.io",
    ),
    when=conditions.protected_since,
)
_MIGRATED = VolatileRule(
    name="migrated to CSI",
    reason="a controller notes which CSI driver serves a volume of a former driver",
    paths=("metadata.annotations[pv.kubernetes.io/migrated-to]",),
    kinds=("PersistentVolume", "PersistentVolumeClaim"),
    when=conditions.set_since,
)
_JOB_POD_COUNTED = VolatileRule(
    name="ended pod of a Job",
    reason="the Job keeps a finalizer on each pod until it has counted its end",
    paths=("metadata.finalizers",),
    kinds=("Pod",),
    when=conditions.job_pod_counted,
)
_BOUND_SINCE = VolatileRule(
    name="bound since",
    reason="the claim or volume was waiting for its counterpart when it was captured, and has got it",
    paths=(
        "spec.volumeName",
        "spec.claimRef",
        "metadata.annotations[pv.kubernetes.io/bind-completed]",
        "metadata.annotations[pv.kubernetes.io/bound-by-controller]",
        "metadata.annotations[volume.kubernetes.io/selected-node]",
        "metadata.annotations[volume.kubernetes.io/storage-provisioner]",
        "metadata.annotations[volume.beta.kubernetes.io/storage-provisioner]",
    ),
    kinds=("PersistentVolumeClaim", "PersistentVolume"),
    when=conditions.bound_since,
)
_CLASS_GIVEN_SINCE = VolatileRule(
    name="class given since",
    reason="a claim that names no class gets the default one as soon as there is one",
    paths=("spec.storageClassName",),
    kinds=("PersistentVolumeClaim",),
    when=conditions.class_given_since,
)
_TOKEN_USED = VolatileRule(
    name="use of a token",
    reason="the API server notes on which day a token was last used, or that it was not for a year",
    paths=(
        "metadata.labels[kubernetes.io/legacy-token-last-used]",
        "metadata.labels[kubernetes.io/legacy-token-invalid-since]",
    ),
    kinds=("Secret",),
    when=conditions.token_used,
)
_FIRST_ROLLOUT = VolatileRule(
    name="first rollout",
    reason="its controller had not seen the object yet when it was captured",
    paths=("metadata.annotations[deployment.kubernetes.io/revision]",),
    kinds=("Deployment.apps",),
    when=conditions.first_rollout,
)
_HEARTBEAT = VolatileRule(
    name="heartbeat",
    reason="whoever holds a lease renews it every few seconds",
    paths=("spec.renewTime", "spec.acquireTime", "spec.leaseTransitions", "spec.holderIdentity"),
    kinds=("Lease.coordination.k8s.io",),
    when=conditions.lease_renewed,
)
_LEADER_NOTED = VolatileRule(
    name="leader noted",
    reason="older programs elect their leader by an annotation that it renews every few seconds",
    paths=("metadata.annotations[control-plane.alpha.kubernetes.io/leader]",),
    kinds=("ConfigMap", "Endpoints"),
    when=conditions.leader_renewed,
)
_NODE_UPKEEP = VolatileRule(
    name="node upkeep",
    reason="kubelets and the node controller keep annotations and taints of nodes up to date",
    paths=(
        "metadata.annotations[node.alpha.kubernetes.io/ttl]",
        "metadata.annotations[volumes.kubernetes.io/controller-managed-attach-detach]",
        "metadata.annotations[csi.volume.kubernetes.io/nodeid]",
        *(
            f"spec.taints[key=node.kubernetes.io/{condition},effect=*]"
            for condition in (
                "not-ready",
                "unreachable",
                "memory-pressure",
                "disk-pressure",
                "pid-pressure",
                "network-unavailable",
                "unschedulable",  # spec.unschedulable, which it follows, is compared itself
            )
        ),
    ),
    kinds=("Node",),
)
_INJECTED_AUTHORITY = VolatileRule(
    name="injected certificate authority",
    reason="cert-manager or OpenShift keeps the certificates there that an annotation asks for, and renews them",
    paths=(
        "webhooks[*].clientConfig.caBundle",
        "spec.conversion.webhook.clientConfig.caBundle",
        "spec.caBundle",
        "data[service-ca.crt]",
        "data[ca-bundle.crt]",
    ),
    kinds=(
        "APIService.apiregistration.k8s.io",
        "ConfigMap",
        "CustomResourceDefinition.apiextensions.k8s.io",
        "MutatingWebhookConfiguration.admissionregistration.k8s.io",
        "ValidatingWebhookConfiguration.admissionregistration.k8s.io",
    ),
    when=add_ons.authority_injected,
)
_NETWORK_OF_POD = VolatileRule(
    name="network of a pod",
    reason="Calico, OVN-Kubernetes and Multus note in a pod which addresses it has been given",
    paths=tuple(f"metadata.annotations[{name}]" for name in add_ons.POD_ANNOTATIONS),
    kinds=("Pod",),
    when=add_ons.network_noted,
)
_NETWORK_OF_NODE = VolatileRule(
    name="network of a node",
    reason="Calico, Cilium, Flannel and OVN-Kubernetes note in a node how it is reached",
    paths=tuple(f"metadata.annotations[{name}]" for name in add_ons.NODE_ANNOTATIONS),
    kinds=("Node",),
)
_AGGREGATED = VolatileRule(
    name="aggregated rules",
    reason="a controller sums them up from other ClusterRoles, which are compared themselves",
    paths=("rules",),
    kinds=("ClusterRole.rbac.authorization.k8s.io",),
    when=conditions.aggregated,
)
_BOOTSTRAPPED = VolatileRule(
    name="bootstrap rules of another version",
    reason="API servers of two versions keep different rules in their own roles up to date",
    paths=("rules",),
    kinds=("ClusterRole.rbac.authorization.k8s.io",),
    when=conditions.bootstrapped_by_other_version,
)
_KEPT_BY_API_SERVER = VolatileRule(
    name="kept by the API server",
    reason="it resets the flow schemas and priority levels that say so",
    paths=("spec", "metadata.generation"),
    kinds=("FlowSchema.flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration.flowcontrol.apiserver.k8s.io"),
    when=conditions.kept_by_api_server,
)
_NEW_IDENTITY = VolatileRule(
    name="new identity",
    reason="the object was made again under its name",
    paths=("metadata.uid", "metadata.creationTimestamp", "metadata.selfLink"),
    when=conditions.made_again,
)
_NEW_OWNER = VolatileRule(
    name="new identity of the owner",
    reason="its owner was made again under its name",
    paths=("metadata.ownerReferences[*].uid",),
    when=conditions.owner_made_again,
)
_IDENTITY = (_NEW_IDENTITY, _NEW_OWNER)
_GENERATION = VolatileRule(
    name="generation",
    reason="it counts the changes of this very object, and starts anew with a new one",
    paths=("metadata.generation",),
    when=conditions.counts_anew,
)
_ROLLOUT_REVISION = VolatileRule(
    name="rollout revision",
    reason="it counts rollouts of this very object",
    paths=(
        "metadata.annotations[deployment.kubernetes.io/revision]",
        "metadata.annotations[deployment.kubernetes.io/revision-history]",
        "metadata.annotations[deprecated.daemonset.template.generation]",
    ),
    kinds=("DaemonSet.apps", "Deployment.apps", "ReplicaSet.apps"),
    when=conditions.counts_rollouts,
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
    when=conditions.job_uid,
)
_ASSIGNED_NODE = VolatileRule(
    name="assigned node",
    reason="the scheduler chooses the node of a new pod, unless its owner did",
    paths=(
        "spec.nodeName",
        "metadata.labels[topology.kubernetes.io/zone]",
        "metadata.labels[topology.kubernetes.io/region]",
    ),
    kinds=("Pod",),
    when=conditions.scheduled_anew,
)
_INJECTED_TOKEN_VOLUME = VolatileRule(
    name="injected token volume",
    reason="admission gives the volume with the service account token a random name",
    paths=(
        "spec.volumes[name=kube-api-access-*]",
        "spec.*[*].volumeMounts[mountPath=/var/run/secrets/kubernetes.io/serviceaccount]",
    ),
    kinds=("Pod",),
    when=conditions.token_volume_injected,
)
_DEBUGGED = VolatileRule(
    name="debug containers",
    reason="the API server lets ephemeral containers be added to a pod that runs, and no pod be created with one",
    paths=("spec.ephemeralContainers",),
    kinds=("Pod",),
    when=conditions.no_longer_debugged,
)
_POD_REPLACED = VolatileRule(
    name="pod replaced by its controller",
    reason="a pod that a ReplicaSet, DaemonSet or Job named is as good as another one of the same controller",
    paths=("metadata.name",),
    kinds=("Pod",),  # names differ in pairs alone
)
_REPLACED = VolatileRule(
    name="generated name",
    reason="it goes by the name or uid of what it was made for, and that is another object now",
    paths=("metadata.name",),
)
_POD_ANNOTATIONS = VolatileRule(
    name="annotations of a replaced pod",
    reason="what its controller's template does not have was noted for one pod alone, by the network for example",
    paths=("metadata.annotations.*",),
    kinds=("Pod",),
    when=conditions.of_this_pod_alone,
)
_DAEMON_POD = VolatileRule(
    name="pod of another node",
    reason="a DaemonSet ties each of its pods to a node, and marks it with its own revision",
    paths=(
        "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution",
        "metadata.labels.pod-template-generation",
    ),
    kinds=("Pod",),
    when=conditions.of_a_daemon,
)
_VOLUME_CONTENTS = VolatileRule(
    name="volume provisioned anew",
    reason="the driver made another volume for the claim",
    paths=(
        "spec.csi.volumeHandle",
        "spec.csi.volumeAttributes",
        "spec.hostPath.path",
        "spec.local.path",
        "spec.nfs.path",
        "spec.nodeAffinity",
        "metadata.labels[velero.io/dynamic-pv-restore]",
        "metadata.annotations[local.path.provisioner/selected-node]",
    ),
    kinds=("PersistentVolume",),
    when=conditions.replaced,
)
_NATIVE_SNAPSHOT = VolatileRule(
    name="volume from a native snapshot",
    reason="Velero makes a volume of its snapshot, and restores the PersistentVolume with its id",
    paths=(
        "spec.csi.volumeHandle",
        "spec.awsElasticBlockStore.volumeID",
        "spec.azureDisk.diskName",
        "spec.azureDisk.diskURI",
        "spec.gcePersistentDisk.pdName",
    ),
    kinds=("PersistentVolume",),
    when=conditions.restored_by_velero,
)
_CLAIM_MADE_AGAIN = VolatileRule(
    name="claim made again",
    reason="the volume is bound to the same claim, which is another object than before",
    paths=("spec.claimRef.uid", "spec.claimRef.resourceVersion"),
    kinds=("PersistentVolume",),
    when=conditions.claim_made_again,
)
_EPHEMERAL_VOLUME = VolatileRule(
    name="ephemeral volume",
    reason="the claim belongs to a pod that was replaced, and holds nothing beyond its life",
    paths=("spec.volumeName",),
    kinds=("PersistentVolumeClaim",),
    when=conditions.is_ephemeral,
)
_BINDING_NOTED = VolatileRule(
    name="binding noted anew",
    reason="the cluster notes in a new claim how it was bound",
    paths=(
        "metadata.annotations[pv.kubernetes.io/bind-completed]",
        "metadata.annotations[pv.kubernetes.io/bound-by-controller]",
        "metadata.annotations[volume.kubernetes.io/selected-node]",
    ),
    kinds=("PersistentVolumeClaim", "PersistentVolume"),
    when=conditions.made_again,
)
_SERVICE_ADDRESSES = VolatileRule(
    name="service addresses",
    reason="the cluster assigns cluster addresses and node ports that the owner does not choose",
    paths=("spec.clusterIP", "spec.clusterIPs", "spec.ports[*].nodePort", "spec.healthCheckNodePort"),
    kinds=("Service",),
    when=conditions.address_chosen_by_cluster,
)
_NEW_SERVICE_ADDRESSES = replace(_SERVICE_ADDRESSES, when=conditions.address_of_new_service)
_VOLUME_BINDING = VolatileRule(
    name="volume binding",
    reason="a restored claim gets a provisioned volume of its own",
    paths=("spec.volumeName",),
    kinds=("PersistentVolumeClaim",),
    when=conditions.new_volume,
)
_PROVISIONER = VolatileRule(
    name="provisioner noted anew",
    reason="Velero takes the name of the provisioner out of a claim, and the cluster puts it back",
    paths=(
        "metadata.annotations[volume.kubernetes.io/storage-provisioner]",
        "metadata.annotations[volume.beta.kubernetes.io/storage-provisioner]",
    ),
    kinds=("PersistentVolumeClaim",),
    when=conditions.provisioner_noted_anew,
)
_FILLED_FROM_SNAPSHOT = VolatileRule(
    name="filled from a snapshot",
    reason="Velero has the volume of a restored claim filled from its snapshot",
    paths=("spec.dataSource", "spec.dataSourceRef", "spec.selector.matchLabels[velero.io/dynamic-pv-restore]"),
    kinds=("PersistentVolumeClaim",),
    when=conditions.filled_from_snapshot,
)
_SNAPSHOT_NOTED = VolatileRule(
    name="snapshot noted",
    reason="Velero notes on a claim the snapshot that it is filled from",
    paths=(
        "metadata.labels[velero.io/volume-snapshot-name]",
        "metadata.annotations[velero.io/volume-snapshot-name]",
        "metadata.annotations[velero.io/data-upload-name]",
        "metadata.annotations[backup.velero.io/must-include-additional-items]",
    ),
    kinds=("PersistentVolumeClaim",),
    when=conditions.snapshot_noted,
)
_VELERO_LABELS = VolatileRule(
    name="velero labels",
    reason="Velero marks what it has restored",
    paths=("metadata.labels[velero.io/backup-name]", "metadata.labels[velero.io/restore-name]"),
    when=conditions.marked_by_velero,
)
_VELERO_WAIT = VolatileRule(
    name="velero init container",
    reason="Velero lets a Pod wait until the files of its volumes are back",
    paths=("spec.initContainers[name=restore-wait]",),
    kinds=("Pod",),
    when=conditions.waits_for_velero,
)
_TOKENS = VolatileRule(
    name="issued tokens",
    reason="tokens are issued for the uid of a service account, with the certificate of the cluster",
    paths=("data.token", "data[ca.crt]", "metadata.annotations[kubernetes.io/service-account.uid]"),
    kinds=("Secret",),
    when=conditions.token_issued_anew,
)
_TOKEN_SECRETS = VolatileRule(
    name="token secrets",
    reason="a cluster that makes token Secrets gives them random names",
    paths=("secrets[name=*-token-*]",),
    kinds=("ServiceAccount",),
    when=conditions.token_secret_replaced,
)
_ORPHAN_OF_JOB = VolatileRule(
    name="pod of a Job that runs again",
    reason="Velero restores a running pod of a Job without its owner, and the Job starts another one",
    paths=("metadata.ownerReferences", "metadata.finalizers"),
    kinds=("Pod",),
    when=conditions.lost_its_job,
)
_JOB_WITHOUT_CRON_JOB = VolatileRule(
    name="Job without its CronJob",
    reason="Velero restores a Job of a CronJob without its owner",
    paths=("metadata.ownerReferences",),
    kinds=("Job.batch",),
    when=conditions.lost_its_cron_job,
)
_REQUESTER = VolatileRule(
    name="requester noted",
    reason="the API server notes who created a request, and that is whoever made it again",
    paths=("spec.username", "spec.uid", "spec.groups", "spec.extra"),
    kinds=("CertificateSigningRequest.certificates.k8s.io",),
    when=conditions.made_again,
)
_PULL_SECRETS = VolatileRule(
    name="pull secrets of OpenShift",
    reason="OpenShift makes a Secret under a random name for each account, to pull from its own registry",
    paths=(
        "secrets[name=*-dockercfg-*]",
        "imagePullSecrets[name=*-dockercfg-*]",
        f"metadata.annotations[{add_ons.PULLED_WITH}]",
    ),
    kinds=("ServiceAccount",),
    when=add_ons.pull_secret_replaced,
)
_NO_NAME_PATTERN = VolatileRule(
    name="name pattern",
    reason="Velero restores names, and drops the pattern that a name was once generated from",
    paths=("metadata.generateName",),
    when=conditions.name_given,
)

_ALWAYS = (
    _STATUS,
    _STATUS_COUNTED,
    _AUTOSCALED,
    _SCHEDULED_SINCE,
    _GATES_OPENED,
    _JOB_POD_COUNTED,
    _PROTECTION,
    _MIGRATED,
    _BOUND_SINCE,
    _CLASS_GIVEN_SINCE,
    _TOKEN_USED,
    _FIRST_ROLLOUT,
    _HEARTBEAT,
    _LEADER_NOTED,
    _NODE_UPKEEP,
    _NETWORK_OF_POD,
    _NETWORK_OF_NODE,
    _INJECTED_AUTHORITY,
    _AGGREGATED,
    _BOOTSTRAPPED,
    _KEPT_BY_API_SERVER,
)

ETCD_RESTORE = Profile(name="etcd-restore", identity="uid", rules=(*_ALWAYS, _RESOURCE_VERSION_MOVED_ON))
SAME_CLUSTER = Profile(
    name="same-cluster",
    identity="name",
    replaceable=True,
    rules=(
        *_ALWAYS,
        _RESOURCE_VERSION,
        _GENERATION,
        _ROLLOUT_REVISION,
        _JOB_IDENTITY,
        _ASSIGNED_NODE,
        _INJECTED_TOKEN_VOLUME,
        _DEBUGGED,
        _POD_REPLACED,
        _REPLACED,
        _POD_ANNOTATIONS,
        _DAEMON_POD,
        _VOLUME_CONTENTS,
        _CLAIM_MADE_AGAIN,
        _EPHEMERAL_VOLUME,
        _BINDING_NOTED,
        _NEW_SERVICE_ADDRESSES,
        _TOKENS,
        _PULL_SECRETS,
        _REQUESTER,
        *_IDENTITY,
    ),
)
VELERO_RESTORE = Profile(
    name="velero-restore",
    identity="name",
    replaceable=True,
    new_volumes=True,
    loses_finished_work=True,
    rules=(
        *SAME_CLUSTER.rules,
        _SERVICE_ADDRESSES,
        _VOLUME_BINDING,
        _PROVISIONER,
        _FILLED_FROM_SNAPSHOT,
        _NATIVE_SNAPSHOT,
        _SNAPSHOT_NOTED,
        _VELERO_LABELS,
        _VELERO_WAIT,
        _NO_NAME_PATTERN,
        _TOKEN_SECRETS,
    ),
)
OWNERS_LOST: Mapping[str, VolatileRule] = {
    "job-runs-twice": _ORPHAN_OF_JOB,
    "job-without-owner": _JOB_WITHOUT_CRON_JOB,
}
"""What a restore by Velero does to owners, by the finding of its outcome: explained only for who tolerates that."""
FILLED_IN = VolatileRule(
    name="filled in by another version",
    reason="API servers of two versions know different fields, and fill in those that were left out",
    paths=("*",),
    when=conditions.filled_in_by_other_version,
)
"""Only for a cluster in which nobody else writes: elsewhere what is new may be somebody's doing."""
PROFILES = {profile.name: profile for profile in (ETCD_RESTORE, VELERO_RESTORE, SAME_CLUSTER)}

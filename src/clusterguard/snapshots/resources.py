"""Which object a key of etcd names, and what people call its kind.

The API server keeps an object of its own kinds under ``PREFIX/PLURAL/[NAMESPACE/]NAME``, whatever the group; six kinds
have another word there, for the sake of history. Custom resources and what aggregators keep lie under
``PREFIX/GROUP/PLURAL/...``; a group has a dot, a plural has none.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, NamedTuple

from clusterguard.errors import ResourceNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["BUILT_IN", "Place", "Resource", "find_resource", "is_bookkeeping", "place_of"]


class Resource(NamedTuple):
    """A kind of objects in a snapshot.

    Attributes:
        plural: Such as ``deployments``.
        group: Such as ``apps``; empty for the core group.
        kind: Such as ``Deployment``; empty where only the definition of a custom resource would tell.
        namespaced: Whether its objects live in namespaces; None where only the keys tell.
        directory: Where its keys lie below the prefix.
        aliases: Further names.
    """

    plural: str
    group: str
    kind: str
    namespaced: bool | None
    directory: str
    aliases: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def defines_itself(self) -> bool:
        """Whether it is a custom resource."""
        return not self.kind


class Place(NamedTuple):
    """What a key says."""

    resource: Resource
    namespace: str
    name: str


_DIRECTORIES = {
    "replicationcontrollers": "controllers",
    "endpoints": "services/endpoints",
    "nodes": "minions",
    "services": "services/specs",
    "ingresses": "ingress",
    "apiservices": "apiregistration.k8s.io/apiservices",
    "customresourcedefinitions": "apiextensions.k8s.io/customresourcedefinitions",
}
_BOOKKEEPING = frozenset({"masterleases", "peerserverleases", "ranges"})
"""Of the API servers themselves: nothing that a client could ask for."""

# Everything that Kubernetes 1.28 to 1.37 stores, with all alpha and beta APIs on, as discovery describes it.
_ROWS = """
- admissionregistration.k8s.io mutatingadmissionpolicies MutatingAdmissionPolicy
- admissionregistration.k8s.io mutatingadmissionpolicybindings MutatingAdmissionPolicyBinding
- admissionregistration.k8s.io mutatingwebhookconfigurations MutatingWebhookConfiguration
- admissionregistration.k8s.io validatingadmissionpolicies ValidatingAdmissionPolicy
- admissionregistration.k8s.io validatingadmissionpolicybindings ValidatingAdmissionPolicyBinding
- admissionregistration.k8s.io validatingwebhookconfigurations ValidatingWebhookConfiguration
- apiextensions.k8s.io customresourcedefinitions CustomResourceDefinition crd crds
- apiregistration.k8s.io apiservices APIService
n apps controllerrevisions ControllerRevision
n apps daemonsets DaemonSet ds
n apps deployments Deployment deploy
n apps replicasets ReplicaSet rs
n apps statefulsets StatefulSet sts
n autoscaling horizontalpodautoscalers HorizontalPodAutoscaler hpa
n batch cronjobs CronJob cj
n batch jobs Job
- certificates.k8s.io certificatesigningrequests CertificateSigningRequest csr
- certificates.k8s.io clustertrustbundles ClusterTrustBundle
n certificates.k8s.io podcertificaterequests PodCertificateRequest
n coordination.k8s.io leasecandidates LeaseCandidate
n coordination.k8s.io leases Lease
n core configmaps ConfigMap cm
n core endpoints Endpoints ep
n core events Event ev
n core limitranges LimitRange limits
- core namespaces Namespace ns
- core nodes Node no
n core persistentvolumeclaims PersistentVolumeClaim pvc
- core persistentvolumes PersistentVolume pv
n core pods Pod po
n core podtemplates PodTemplate
n core replicationcontrollers ReplicationController rc
n core resourcequotas ResourceQuota quota
n core secrets Secret
n core serviceaccounts ServiceAccount sa
n core services Service svc
n discovery.k8s.io endpointslices EndpointSlice
- flowcontrol.apiserver.k8s.io flowschemas FlowSchema
- flowcontrol.apiserver.k8s.io prioritylevelconfigurations PriorityLevelConfiguration
- internal.apiserver.k8s.io storageversions StorageVersion
- networking.k8s.io clustercidrs ClusterCIDR
- networking.k8s.io ingressclasses IngressClass
n networking.k8s.io ingresses Ingress ing
- networking.k8s.io ipaddresses IPAddress ip
n networking.k8s.io networkpolicies NetworkPolicy netpol
- networking.k8s.io servicecidrs ServiceCIDR
- node.k8s.io runtimeclasses RuntimeClass
n policy poddisruptionbudgets PodDisruptionBudget pdb
n rbac.authorization.k8s.io rolebindings RoleBinding
n rbac.authorization.k8s.io roles Role
- rbac.authorization.k8s.io clusterrolebindings ClusterRoleBinding
- rbac.authorization.k8s.io clusterroles ClusterRole
- resource.k8s.io deviceclasses DeviceClass
- resource.k8s.io devicetaintrules DeviceTaintRule
n resource.k8s.io podschedulingcontexts PodSchedulingContext
n resource.k8s.io resourceclaimparameters ResourceClaimParameters
n resource.k8s.io resourceclaims ResourceClaim
n resource.k8s.io resourceclaimtemplates ResourceClaimTemplate
- resource.k8s.io resourceclasses ResourceClass
n resource.k8s.io resourceclassparameters ResourceClassParameters
- resource.k8s.io resourcepoolstatusrequests ResourcePoolStatusRequest
- resource.k8s.io resourceslices ResourceSlice
n scheduling.k8s.io podgroups PodGroup
- scheduling.k8s.io priorityclasses PriorityClass pc
n scheduling.k8s.io workloads Workload
- storage.k8s.io csidrivers CSIDriver
- storage.k8s.io csinodes CSINode
n storage.k8s.io csistoragecapacities CSIStorageCapacity
- storage.k8s.io storageclasses StorageClass sc
- storage.k8s.io volumeattachments VolumeAttachment
- storage.k8s.io volumeattributesclasses VolumeAttributesClass vac
- storagemigration.k8s.io storageversionmigrations StorageVersionMigration
"""


def _row(text: str) -> Resource:
    scope, group, plural, kind, *aliases = text.split()
    group = "" if group == "core" else group
    return Resource(plural, group, kind, scope == "n", _DIRECTORIES.get(plural, plural), tuple(aliases))


BUILT_IN = tuple(_row(line) for line in _ROWS.strip().splitlines())
"""Everything that Kubernetes itself stores."""

_BY_DIRECTORY = {resource.directory: resource for resource in BUILT_IN}


def place_of(key: str) -> Place | None:
    """Return what a key names, or None for one that is no object's.

    Args:
        key: What follows the prefix and its slash.
    """
    parts = key.split("/")
    depth = 2 if "." in parts[0] or parts[0] == "services" else 1
    if len(parts) not in {depth + 1, depth + 2} or is_bookkeeping(key):
        return None
    directory = "/".join(parts[:depth])
    resource = _BY_DIRECTORY.get(directory)
    if resource is None:
        group, plural = parts[:depth] if depth > 1 else ("", parts[0])
        resource = _BY_DIRECTORY[directory] = Resource(plural, group, "", None, directory)
    namespace = parts[depth] if len(parts) == depth + 2 else ""
    if resource.namespaced is not None and resource.namespaced != bool(namespace):
        return None
    return Place(resource, namespace, parts[-1])


def is_bookkeeping(key: str) -> bool:
    """Return whether a key is the API servers' own.

    Args:
        key: What follows the prefix and its slash.
    """
    return key.partition("/")[0] in _BOOKKEEPING


def find_resource(text: str, present: Iterable[Resource]) -> Resource:
    """Return the kind that a text names as kubectl takes it: ``po``, ``Deployment``, ``deployments.apps``.

    Args:
        text: The name.
        present: Kinds that the snapshot holds, custom resources among them.

    Raises:
        ResourceNotFoundError: There is no such kind.
    """
    known = dict.fromkeys([*BUILT_IN, *present])
    name, _, group = text.lower().partition(".")
    for resource in known:
        if name in _names(resource) and group in {"", resource.group} | _versioned(group, resource.group):
            return resource
    close = difflib.get_close_matches(text.lower(), [str(resource) for resource in known], n=1)
    hint = f"did you mean {close[0]}?" if close else "`clusterguard snapshot ls FILE` lists what is there"
    raise ResourceNotFoundError(f"no kind {text} is known, nor in the snapshot", hint=hint)


def _names(resource: Resource) -> set[str]:
    kind = resource.kind.lower()
    # Of a custom resource only the definition has the kind; most plurals are it with an s.
    guessed = {resource.plural.removesuffix("s")} if resource.defines_itself else set()
    return {resource.plural, kind, *resource.aliases, *guessed} - {""}


def _versioned(text: str, group: str) -> set[str]:
    """Return the text if it is a group with a version before it: ``v1.apps``."""
    version, _, rest = text.partition(".")
    return {text} if rest == group and text and version[:1] == "v" and version[1:2].isdigit() else set()

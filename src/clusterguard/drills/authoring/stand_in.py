"""What stands in for a namespace on an empty cluster: its objects as manifests. Pure.

No object is thought up but volumes for claims: each is one of the namespace, without what servers and controllers make
of it, without secrets, and without what an empty cluster cannot give (nodes with labels, classes, drivers, operators).
What is other than in the cluster is said beside it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from clusterguard.drills.authoring.defaults import containers_of, pod_template, without_defaults
from clusterguard.drills.authoring.looking import is_built_in
from clusterguard.drills.authoring.made_up import MadeUp, made_up_secret
from clusterguard.model.inventory import ObjectRef
from clusterguard.snapshots.export import apply_order, manifest_of
from clusterguard.validate.difference import controller_of
from clusterguard.validate.field_owners import LAST_APPLIED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from clusterguard.drills.authoring.looking import Seen

__all__ = ["MOST_OF_A_KIND", "Manifest", "StandIn", "stand_in_for"]

MOST_OF_A_KIND: Final = 100
"""Objects of one kind: a restore treats the next thousand as it treats these, and people read the files."""

_DEFINITION: Final = "CustomResourceDefinition.apiextensions.k8s.io"
_CLAIM: Final = "PersistentVolumeClaim"
_LONGEST_NAME: Final = 253
_DEFAULT: Final = "default"
_ENDED: Final = ("Succeeded", "Failed")
# Names what the cluster has, and an empty one has not: a Pod with it would wait for ever, or be refused.
_OF_THE_CLUSTER: Final = (
    *("nodeSelector", "nodeName", "affinity", "topologySpreadConstraints", "schedulerName", "schedulingGates"),
    *("priorityClassName", "priority", "preemptionPolicy", "runtimeClassName", "overhead", "resourceClaims"),
    *("ephemeralContainers", "hostUsers"),
)
_COMMON_RESOURCES: Final = ("cpu", "memory", "ephemeral-storage")
_CLAIM_FIELDS: Final = ("dataSource", "dataSourceRef", "selector", "volumeAttributesClassName")
_CLAIM_ANNOTATIONS: Final = (
    "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/storage-resizer",
)
_BY_CONTROLLERS: Final = ("deprecated.daemonset.template.generation", "kubernetes.io/limit-ranger")
_SERVICE_FIELDS: Final = ("clusterIPs", "ipFamilies", "ipFamilyPolicy")
_FIRST: Final = ("apiVersion", "kind", "metadata", "type", "name", "namespace", "labels", "image")
_METADATA_NAME: Final = "kubernetes.io/metadata.name"
_HELM: Final = "helm.sh/release.v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One object of the stand-in.

    Attributes:
        item: As it is applied.
        notes: What is other than in the cluster, in words.
    """

    item: Mapping[str, Any] = field(repr=False)
    notes: tuple[str, ...] = ()

    @property
    def ref(self) -> ObjectRef:
        """What it is called."""
        return ObjectRef.of(self.item)


@dataclass(frozen=True, slots=True, kw_only=True)
class StandIn:
    """The whole of it.

    Attributes:
        manifests: In the order in which they apply, definitions of custom resources first.
        left_out: How many objects are not in it, by kind and reason.
        made_up: Where values are made up, beside those of Secrets: an object, and the places in it.
    """

    manifests: Sequence[Manifest]
    left_out: Mapping[tuple[str, str], int] = field(default_factory=dict)
    made_up: Mapping[ObjectRef, Sequence[str]] = field(default_factory=dict)

    @property
    def definitions(self) -> list[Manifest]:
        """Definitions of custom resources."""
        return [each for each in self.manifests if each.ref.full_kind == _DEFINITION]

    @property
    def pods(self) -> list[Manifest]:
        """Pods without a controller, which are refused until their namespace has its account."""
        return self.of_kind("Pod")

    @property
    def objects(self) -> list[Manifest]:
        """All else."""
        return [each for each in self.manifests if each.ref.full_kind not in (_DEFINITION, "Pod")]

    def of_kind(self, *full_kinds: str) -> list[Manifest]:
        """Return the objects of some kinds."""
        return [each for each in self.manifests if each.ref.full_kind in full_kinds]


def stand_in_for(seen: Seen) -> StandIn:
    """Return what stands in for a namespace."""
    left_out: Counter[tuple[str, str]] = Counter()
    chosen: list[Mapping[str, Any]] = []
    for item in seen.objects:
        if reason := _why_not(item, seen):
            left_out[ObjectRef.of(item).full_kind, reason] += 1
        else:
            chosen.append(item)
    made_up = MadeUp(seen.objects)
    manifests: list[Manifest] = []
    changed: dict[ObjectRef, Sequence[str]] = {}
    for each in _few_of_each(chosen, left_out):
        manifest, places = _manifest(each, made_up)
        manifests.append(manifest)
        if places:
            changed[manifest.ref] = places
    if seen.namespace != _DEFAULT and not any(each.ref.full_kind == "Namespace" for each in manifests):
        manifests.append(_plain_namespace(seen.namespace))
    volumes = [volume for each in manifests if (volume := _volume_for(each.item))]
    manifests += [
        Manifest(item=each, notes=("nothing on an empty cluster makes volumes for claims",)) for each in volumes
    ]
    used = {each.ref.full_kind for each in manifests}
    manifests += [_definition(each) for full_kind, each in seen.definitions.items() if full_kind in used]
    return StandIn(
        manifests=sorted(manifests, key=lambda each: (apply_order(each.item), each.ref)),
        left_out=dict(sorted(left_out.items())),
        made_up=changed,
    )


# ---- which --------------------------------------------------------------------------------------------------


def _why_not(item: Mapping[str, Any], seen: Seen) -> str:
    """Return why an object is not in the stand-in, or an empty text."""
    full_kind = ObjectRef.of(item).full_kind
    # What is in a claim no controller makes again, even where the claim goes with its StatefulSet.
    if full_kind != _CLAIM and (owner := controller_of(item)) and _makes_it_again(owner):
        return "a controller makes them again"
    if full_kind == "Job.batch":
        return "work, and no state: a restored Job would do it again"
    if full_kind == "Pod" and (item.get("status") or {}).get("phase") in _ENDED:
        return "ended"
    if item.get("type") == _HELM and (item["metadata"].get("labels") or {}).get("status") == "superseded":
        return "Helm's records of earlier revisions"
    return seen.undefined.get(full_kind, "")


def _makes_it_again(owner: Mapping[str, Any]) -> bool:
    """Return whether a controller of Kubernetes' own has it made; no operator runs on an empty cluster."""
    group = str(owner.get("apiVersion", "")).rpartition("/")[0]
    return is_built_in(group)


def _few_of_each(items: Iterable[Mapping[str, Any]], left_out: Counter[tuple[str, str]]) -> Iterator[Mapping[str, Any]]:
    """Yield the objects, of a kind with very many the first ones: those that workloads name, then by their names."""
    by_kind: dict[str, list[Mapping[str, Any]]] = {}
    for item in items:
        by_kind.setdefault(ObjectRef.of(item).full_kind, []).append(item)
    named = {
        text
        for full_kind, group in by_kind.items()
        for item in group
        if (template := pod_template(full_kind, item)) is not None
        for text in _texts(template.get("spec"))
    }
    for full_kind, group in by_kind.items():
        group.sort(key=lambda item: (item["metadata"]["name"] not in named, item["metadata"]["name"]))
        yield from group[:MOST_OF_A_KIND]
        if (more := len(group) - MOST_OF_A_KIND) > 0:
            left_out[full_kind, f"{MOST_OF_A_KIND} of its kind show what a restore does"] += more


def _texts(data: Any) -> Iterator[str]:  # noqa: ANN401 - JSON
    match data:
        case dict():
            for value in data.values():
                yield from _texts(value)
        case list():
            for value in data:
                yield from _texts(value)
        case str():
            yield data


# ---- how ----------------------------------------------------------------------------------------------------


def _manifest(item: Mapping[str, Any], made_up: MadeUp) -> tuple[Manifest, Sequence[str]]:
    full_kind = ObjectRef.of(item).full_kind
    notes: list[str] = []
    if owner := controller_of(item):
        notes.append(f"made by {owner.get('kind')} {owner.get('name')}, whose operator does not run here")
    made = manifest_of(item)
    _without(made["metadata"], "annotations", LAST_APPLIED, *_BY_CONTROLLERS)
    if full_kind == "Secret":
        named, places = made_up.without_credentials({key: made[key] for key in ("apiVersion", "kind", "metadata")})
        made = made_up_secret({**made, **named})
        notes.insert(0, "every value is made up")
    else:
        notes += _fit_for_an_empty_cluster(full_kind, made)
        made, places = made_up.without_credentials(made)
        made = _in_order(made)
    if places:
        notes.append(f"made up: {', '.join(places)}")
    return Manifest(item=made, notes=tuple(map(made_up.hidden, notes))), places


def _fit_for_an_empty_cluster(full_kind: str, made: dict[str, Any]) -> Iterator[str]:
    without_defaults(full_kind, made)
    if (edit := _OF_KIND.get(full_kind)) is not None:
        yield from edit(made)
    if (template := pod_template(full_kind, made)) is not None:
        yield from _for_an_empty_cluster(template.get("spec") or {})


def _in_order(data: Any) -> Any:  # noqa: ANN401 - JSON
    """Return an object with its keys as people write them: what something is comes first."""
    match data:
        case dict():
            first = {key: data[key] for key in _FIRST if key in data}
            return {key: _in_order(value) for key, value in (first | data).items()}
        case list():
            return [_in_order(each) for each in data]
    return data


def _without(data: dict[str, Any], field_name: str, *keys: str) -> list[str]:
    """Take keys out of a mapping in an object, and the mapping itself once it is empty; return what was there."""
    inner = data.get(field_name)
    if not isinstance(inner, dict):
        return []
    gone = [key for key in keys if inner.pop(key, None) is not None]
    if not inner:
        del data[field_name]
    return gone


def _for_an_empty_cluster(spec: dict[str, Any]) -> Iterator[str]:
    gone = [key for key in _OF_THE_CLUSTER if spec.pop(key, None) is not None]
    devices: dict[str, None] = {}
    for container in containers_of(spec):
        resources = container.get("resources") or {}
        if resources.pop("claims", None):
            devices["claims"] = None
        for part in ("limits", "requests"):
            unusual = [name for name in resources.get(part) or () if name not in _COMMON_RESOURCES]
            devices |= dict.fromkeys(_without(resources, part, *unusual))
        if not resources:
            container.pop("resources", None)
    for volume in spec.get("volumes") or ():
        if volume.pop("ephemeral", None) is not None:
            volume["emptyDir"] = {}
            yield f"volume {volume['name']} is an emptyDir: nothing here makes volumes for Pods"
    if left := [*gone, *devices]:
        yield f"left out, since an empty cluster has no such thing: {', '.join(left)}"


def _namespace(made: dict[str, Any]) -> Iterator[str]:
    _without(made["metadata"], "labels", _METADATA_NAME)
    yield from ()


def _service(made: dict[str, Any]) -> Iterator[str]:
    for name in _SERVICE_FIELDS:  # of the cluster's network, which is another one here
        made["spec"].pop(name, None)
    yield from ()


def _claim(made: dict[str, Any]) -> Iterator[str]:
    _without(made["metadata"], "annotations", *_CLAIM_ANNOTATIONS)
    if gone := [name for name in _CLAIM_FIELDS if made["spec"].pop(name, None) is not None]:
        yield f"left out: {', '.join(gone)}"


def _cron_job(made: dict[str, Any]) -> Iterator[str]:
    if not made["spec"].get("suspend"):
        made["spec"]["suspend"] = True
        yield "suspended: its Jobs would come and go while the drill compares"


_OF_KIND: Final = {
    "Namespace": _namespace,
    "Service": _service,
    "PersistentVolumeClaim": _claim,
    "CronJob.batch": _cron_job,
}


def _plain_namespace(name: str) -> Manifest:
    item: dict[str, Any] = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    return Manifest(item=item, notes=("the cluster's own may not be read",))


def _volume_for(item: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a volume for a claim: nothing on an empty cluster would make it one."""
    if ObjectRef.of(item).full_kind != _CLAIM:
        return None
    metadata, spec = item["metadata"], item["spec"]
    name = f"{metadata['namespace']}-{metadata['name']}"[:_LONGEST_NAME].rstrip(".-")
    made = {
        "capacity": dict(spec["resources"]["requests"]),
        "accessModes": list(spec["accessModes"]),
        "claimRef": {
            "apiVersion": "v1",
            "kind": _CLAIM,
            "namespace": metadata["namespace"],
            "name": metadata["name"],
        },
        "persistentVolumeReclaimPolicy": "Retain",
        "hostPath": {"path": f"/var/local/clusterguard/{name}", "type": "DirectoryOrCreate"},
    }
    made |= {key: spec[key] for key in ("storageClassName", "volumeMode") if key in spec}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": made}


def _definition(item: Mapping[str, Any]) -> Manifest:
    made = manifest_of(item)
    _without(made["metadata"], "annotations", LAST_APPLIED)
    notes: tuple[str, ...] = ()
    conversion = made["spec"].pop("conversion", None) or {}
    if conversion.get("strategy") == "Webhook":
        notes = ("left out: its conversion by a webhook, which does not run here",)
    made["spec"].pop("preserveUnknownFields", None)  # false, or no v1
    return Manifest(item=_in_order(made), notes=notes)

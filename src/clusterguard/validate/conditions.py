"""What must be so, beyond kind and field, for a rule to explain a difference: its cause, as far as it can be seen.

Facts about Kubernetes 1.36.3 and Velero 1.18 are from their source and from running them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from clusterguard.model.inventory import ObjectRef
from clusterguard.validate.difference import ABSENT, GENERATED, controller_of, look_up
from clusterguard.validate.field_owners import last_applied, managers_of, names_field
from clusterguard.validate.paths import Element

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from clusterguard.validate.difference import Difference, Scaler
    from clusterguard.validate.paths import Path

_Object: TypeAlias = "Mapping[str, Any]"

RESTORE_LABEL = "velero.io/restore-name"
_INJECTED = re.compile(f"kube-api-access-{GENERATED}")


# ---- any object ------------------------------------------------------------------------------------------


def made_again(difference: Difference) -> bool:
    """The object is another one than before."""
    return difference.made_again


def set_since(difference: Difference) -> bool:
    """There was no value before."""
    return difference.before is ABSENT


def moved_on(difference: Difference) -> bool:
    """A count went up; going back means that an older state of the object was restored."""
    before, after = str(difference.before), str(difference.after)
    # Resource versions of one cluster may be compared as integers (KEP-5504).
    return before.isdecimal() and after.isdecimal() and int(after) > int(before)


def counts_anew(difference: Difference) -> bool:
    """A count began again with a new object, or went up."""
    return difference.made_again or moved_on(difference)


def owner_made_again(difference: Difference) -> bool:
    """The new uid in a reference to an owner is that of the owner as it is now, as far as we see it."""
    if not isinstance(difference.after, str):
        return False
    for owner in look_up(difference.new, "metadata", "ownerReferences") or ():
        if owner.get("uid") == difference.after:
            found = difference.context.new_owner(difference.ref, owner)
            return found is None or bool(look_up(found, "metadata", "uid") == difference.after)
    return False


def name_given(difference: Difference) -> bool:
    """The new object was made under a name that is known by now."""
    return difference.made_again and difference.after is ABSENT


# ---- status and generation -------------------------------------------------------------------------------


def status_of_its_writer(difference: Difference) -> bool:
    """It is what a controller or a node writes, and says nothing of a loss.

    A kind without a status subresource keeps its status like any other field: Velero drops it for good, and anybody
    may write it. There, who wrote it decides.
    """
    if difference.ref.full_kind in _BOUND_TOGETHER:
        return difference.path not in (("status",), ("status", "phase")) or not _came_loose(difference)
    if difference.ref.full_kind not in difference.context.plain_status:
        return True
    if difference.after is ABSENT:
        return False
    before, after = managers_of(difference.old, "status"), managers_of(difference.new, "status")
    if not after:
        return True  # nobody told
    if difference.before is not ABSENT and not after <= before:
        return False
    # One who writes the specification as well is the owner. In the same object a controller may be both.
    return not difference.made_again or not after & managers_of(difference.new, "spec")


_BOUND_TOGETHER = frozenset({"PersistentVolume", "PersistentVolumeClaim"})


def _came_loose(difference: Difference) -> bool:
    before, after = (look_up(item, "status", "phase") for item in (difference.old, difference.new))
    return bool(before == "Bound" != after)


def status_counted(difference: Difference) -> bool:
    """The count of changes includes those of the status, which is a field like any other."""
    has_status = "status" in difference.old or "status" in difference.new
    return has_status and difference.ref.full_kind in difference.context.plain_status and moved_on(difference)


# ---- what is scaled --------------------------------------------------------------------------------------


def autoscaled(difference: Difference) -> bool:
    """An autoscaler chose the replicas, within its bounds; 0 would turn it off."""
    scalers = list(_scalers(difference))
    if not scalers:
        return False
    if difference.path == ("metadata", "generation"):
        return counts_anew(difference)
    try:
        replicas = int(difference.after)
    except (TypeError, ValueError):
        return False
    if difference.path[-1] == "deployment.kubernetes.io/max-replicas":
        return replicas >= min(scaler.least for scaler in scalers)  # with the surge of a rollout
    return any(scaler.least <= replicas <= scaler.most for scaler in scalers)


def _scalers(difference: Difference) -> Iterator[Scaler]:
    scalers, ref = difference.context.scalers, difference.ref
    if not scalers:
        return
    yield from scalers.get((ref.full_kind, ref.namespace, ref.name), ())
    if owner := controller_of(difference.old):  # the ReplicaSets of an autoscaled Deployment
        group = str(owner.get("apiVersion", "")).rpartition("/")[0]
        kind = f"{owner.get('kind')}.{group}" if group else str(owner.get("kind"))
        yield from scalers.get((kind, ref.namespace, str(owner.get("name"))), ())


def counts_rollouts(difference: Difference) -> bool:
    """It is a number, or several of them, and none of a person's own words."""
    return all(
        value is ABSENT or re.fullmatch(r"[\d,]+", str(value)) for value in (difference.before, difference.after)
    )


def first_rollout(difference: Difference) -> bool:
    """The controller had not seen the object yet."""
    return difference.before is ABSENT and difference.after == "1"


# ---- leases and nodes ------------------------------------------------------------------------------------


def lease_renewed(difference: Difference) -> bool:
    """Whoever holds the lease now has renewed it since."""
    before, after = (look_up(item, "spec", "renewTime") for item in (difference.old, difference.new))
    return isinstance(after, str) and (before is None or str(before) < after)


def leader_renewed(difference: Difference) -> bool:
    """Whoever leads now has renewed its claim since."""
    times = [_renewed(value) for value in (difference.before, difference.after)]
    return times[1] is not None and (times[0] is None or str(times[0]) < str(times[1]))


def _renewed(text: Any) -> Any:  # noqa: ANN401 - any JSON
    try:
        return look_up(orjson.loads(text), "renewTime") if isinstance(text, str) else None
    except orjson.JSONDecodeError:
        return None


# ---- pods ------------------------------------------------------------------------------------------------


def scheduled_since(difference: Difference) -> bool:
    """The pod had no node, and has got one."""
    before, after = (look_up(item, "spec", "nodeName") for item in (difference.old, difference.new))
    return not before and bool(after) and difference.before is ABSENT


def gates_opened(difference: Difference) -> bool:
    """The pod was held back without a node, and has got one."""
    before, after = (look_up(item, "spec", "schedulingGates") for item in (difference.old, difference.new))
    nodes = [look_up(item, "spec", "nodeName") for item in (difference.old, difference.new)]
    return bool(before) and not after and not nodes[0] and bool(nodes[1])


def scheduled_anew(difference: Difference) -> bool:
    """The scheduler chose the node of a new pod, and no person did."""
    if not difference.made_again:
        return False
    pinned = look_up(last_applied(difference.old), "spec", "nodeName")
    return not pinned and not _created_with_node(difference.old)


def _created_with_node(pod: _Object) -> bool:
    # A binding, by which the scheduler assigns a node, is no write to the pod's own fields.
    return names_field(pod, "f:spec", "f:nodeName")


def token_volume_injected(difference: Difference) -> bool:
    """Both pods have the volume that admission injects, alike but for its random name."""
    before, after = (_injected_volume(item) for item in (difference.old, difference.new))
    if before is None or before != after:
        return False
    if difference.path[1] == "volumes":
        return all(_is_injected(value) for value in (difference.before, difference.after) if value is not ABSENT)
    mounts = [value for value in (difference.before, difference.after) if isinstance(value, dict)]
    names = [_INJECTED.fullmatch(str(mount.get("name"))) for mount in mounts]
    return len(mounts) == 2 and all(names) and _nameless(mounts[0]) == _nameless(mounts[1])  # noqa: PLR2004 - both sides


def _injected_volume(pod: _Object) -> _Object | None:
    found = [volume for volume in look_up(pod, "spec", "volumes") or () if _is_injected(volume)]
    return _nameless(found[0]) if len(found) == 1 else None


def _is_injected(volume: Any) -> bool:  # noqa: ANN401 - any JSON
    sources = look_up(volume, "projected", "sources") or ()
    named = _INJECTED.fullmatch(str(look_up(volume, "name")))
    return bool(named) and any("serviceAccountToken" in source for source in sources)


def _nameless(item: _Object) -> _Object:
    return {key: value for key, value in item.items() if key != "name"}


def job_uid(difference: Difference) -> bool:
    """The value is the uid of the Job itself, which the API server put there."""
    if not difference.made_again or look_up(difference.new, "spec", "manualSelector"):
        return False
    if difference.ref.full_kind == "Job.batch":
        owner: _Object | None = look_up(difference.new, "metadata")
    else:
        owner = controller_of(difference.new)
        if look_up(owner, "kind") != "Job":
            return False
    return difference.after is ABSENT or difference.after == look_up(owner, "uid")


def job_pod_counted(difference: Difference) -> bool:
    """The Job has taken note that its pod ended."""
    return look_up(controller_of(difference.new), "kind") == "Job" and _not_counted_any_more(difference)


def _not_counted_any_more(difference: Difference) -> bool:
    """The finalizer by which a Job counts its pods is gone, and no other one changed."""
    before, after = difference.before, difference.after
    left = [] if after is ABSENT else after
    return isinstance(before, list) and [name for name in before if name != "batch.kubernetes.io/job-tracking"] == left


def waits_for_velero(difference: Difference) -> bool:
    """It is the container in which Velero lets a pod wait for its files, and it was not there before."""
    after = difference.after
    if difference.before is not ABSENT or not isinstance(after, dict):
        return False
    command = [*(after.get("command") or ()), str(after.get("image"))]
    mounts = after.get("volumeMounts") or ()
    return (
        "velero" in str(command[0])
        and len(after.get("args") or ()) == 1  # the uid of the restore
        and all(
            str(mount.get("mountPath")).startswith("/restores/") or _INJECTED.fullmatch(str(mount.get("name")))
            for mount in mounts
        )
    )


def no_longer_debugged(difference: Difference) -> bool:
    """The pod is another one than before, and has none."""
    return difference.made_again and difference.after is ABSENT


def of_this_pod_alone(difference: Difference) -> bool:
    """A replacement differs in an annotation that its controller's template does not have."""
    owner = controller_of(difference.old)
    if not difference.replaced or owner is None:
        return False
    found = difference.context.old_owner(difference.ref, owner)
    template = look_up(found, "spec", "template", "metadata", "annotations") or {}
    return difference.path[-1] not in template


def replaced(difference: Difference) -> bool:
    """The object came back under another name, in the place of the one before."""
    return difference.replaced


def of_a_daemon(difference: Difference) -> bool:
    """It is a replacement that a DaemonSet made, for a node of its own."""
    return difference.replaced and look_up(controller_of(difference.old), "kind") == "DaemonSet"


# ---- finalizers --------------------------------------------------------------------------------------------

_PROTECTIONS: Mapping[str, frozenset[str]] = {
    "PersistentVolume": frozenset(
        {
            "kubernetes.io/pv-protection",
            "kubernetes.io/pv-controller",
            "external-provisioner.volume.kubernetes.io/finalizer",
        }
    ),
    "PersistentVolumeClaim": frozenset({"kubernetes.io/pvc-protection"}),
    "ResourceClaim.resource.k8s.io": frozenset({"resource.kubernetes.io/delete-protection"}),
    "Service": frozenset({"service.kubernetes.io/load-balancer-cleanup"}),
    "ServiceCIDR.networking.k8s.io": frozenset({"networking.k8s.io/service-cidr-finalizer"}),
    "VolumeAttributesClass.storage.k8s.io": frozenset({"kubernetes.io/vac-protection"}),
}


def protected_since(difference: Difference) -> bool:
    """A controller of Kubernetes' added its own finalizer, or took it back from a ResourceClaim that is free again."""
    before, after = (value if isinstance(value, list) else [] for value in (difference.before, difference.after))
    own = _PROTECTIONS.get(difference.ref.full_kind, frozenset())
    others = [[name for name in names if name not in own] for names in (before, after)]
    return others[0] == others[1] and (difference.ref.kind == "ResourceClaim" or set(before) <= set(after))


# ---- Services --------------------------------------------------------------------------------------------


def address_chosen_by_cluster(difference: Difference) -> bool:
    """The cluster assigned the address or port, and assigned the one before as well."""
    before, after = difference.before, difference.after
    if "None" in (_first(before), _first(after)):
        return False  # a headless Service must stay headless, and no other one become so
    if before is ABSENT or after is ABSENT or not after:
        return False
    if isinstance(before, list) and len(before) != len(after):
        return False
    in_place = not difference.made_again  # whoever changed it there is known by name
    return not _is_pinned(difference, difference.old, before) and not (
        in_place and _is_pinned(difference, difference.new, after)
    )


def address_of_new_service(difference: Difference) -> bool:
    """The Service was made again, and the cluster assigned the address or port both times."""
    return difference.made_again and address_chosen_by_cluster(difference)


def _first(value: Any) -> Any:  # noqa: ANN401 - any JSON
    return value[0] if isinstance(value, list) and value else value


def _is_pinned(difference: Difference, service: _Object, value: Any) -> bool:  # noqa: ANN401 - any JSON
    """Whether a person chose an address or port: applied it, or wrote it in any other way.

    What the API server allocates is in nobody's ``managedFields``.
    """
    field = str(difference.path[1])
    if field == "ports":
        return _is_port_pinned(service, value)
    names = ("clusterIP", "clusterIPs") if field.startswith("clusterIP") else (field,)
    applied = look_up(last_applied(service), "spec") or {}
    return any(applied.get(name) or names_field(service, "f:spec", f"f:{name}") for name in names)


def _is_port_pinned(service: _Object, node_port: Any) -> bool:  # noqa: ANN401 - any JSON
    for port in look_up(service, "spec", "ports") or ():
        key = f'k:{{"port":{port.get("port")},"protocol":"{port.get("protocol", "TCP")}"}}'
        if port.get("nodePort") == node_port and names_field(service, "f:spec", "f:ports", key, "f:nodePort"):
            return True
    applied = look_up(last_applied(service), "spec", "ports") or ()
    return any(port.get("nodePort") == node_port for port in applied)


# ---- volumes ---------------------------------------------------------------------------------------------

_PROVISIONED = ("volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner")


def bound_since(difference: Difference) -> bool:
    """The claim or volume had no counterpart yet."""
    field = "claimRef" if difference.ref.kind == "PersistentVolume" else "volumeName"
    return difference.before is ABSENT and not look_up(difference.old, "spec", field)


def class_given_since(difference: Difference) -> bool:
    """The claim named no class, and has got the one that is the default by now."""
    if difference.before is not ABSENT or look_up(difference.old, "spec", "volumeName"):
        return False
    found = difference.context.new(ObjectRef("StorageClass", "", str(difference.after), "storage.k8s.io"))
    default = look_up(found, "metadata", "annotations", "storageclass.kubernetes.io/is-default-class")
    return found is None or default == "true"


def new_volume(difference: Difference) -> bool:
    """A restored claim has got a volume of its own, in place of one that was made for it as well.

    A claim that a person made again has none of Velero's labels: its volume is another, empty one. One whose volume
    was made by hand must have that again.
    """
    if not difference.made_again or not difference.after or difference.after is ABSENT:
        return False
    if not (is_ephemeral(difference) or _restored_by_velero(difference.new)):
        return False
    renamed = str(difference.after).startswith("velero-clone-")
    if not renamed and not (_is_provisioned(difference.old) and _is_provisioned(difference.new)):
        return False
    volume = difference.context.new(ObjectRef("PersistentVolume", "", str(difference.after)))
    claimed_by = look_up(volume, "spec", "claimRef", "uid")
    return claimed_by is None or claimed_by == look_up(difference.new, "metadata", "uid")


def is_ephemeral(difference: Difference) -> bool:
    """The claim lives and dies with its pod, and was replaced with it."""
    return difference.replaced and look_up(controller_of(difference.old), "kind") == "Pod"


def provisioner_noted_anew(difference: Difference) -> bool:
    """The note of who makes the volume is not there yet, or there only now; another name is another driver."""
    return difference.made_again and (difference.before is ABSENT or difference.after is ABSENT)


def filled_from_snapshot(difference: Difference) -> bool:
    """Velero has the new volume filled from a snapshot of its own."""
    after = difference.after
    if difference.before is not ABSENT or not _restored_by_velero(difference.new):
        return False
    if difference.path[:2] == ("spec", "selector"):
        return True
    source = (look_up(after, "apiGroup"), look_up(after, "kind"))
    return source == ("snapshot.storage.k8s.io", "VolumeSnapshot")


def snapshot_noted(difference: Difference) -> bool:
    """Velero has put it on a claim that it restored, or on the one in its backup, from which it takes it off again."""
    taken_off = difference.after is ABSENT
    return _restored_by_velero(difference.new) and (not taken_off or difference.path[1] == "annotations")


def claim_made_again(difference: Difference) -> bool:
    """The volume is bound to the same claim, which is another object than before."""
    named = look_up(difference.new, "spec", "claimRef") or {}
    claim = difference.context.new(
        ObjectRef("PersistentVolumeClaim", str(named.get("namespace", "")), str(named.get("name", "")))
    )
    return bool(named.get("uid")) and (claim is None or look_up(claim, "metadata", "uid") == named["uid"])


def _is_provisioned(claim: _Object) -> bool:
    annotations = look_up(claim, "metadata", "annotations") or {}
    return any(name in annotations for name in _PROVISIONED)


def _restored_by_velero(item: _Object) -> bool:
    return RESTORE_LABEL in (look_up(item, "metadata", "labels") or {})


# ---- marks of Velero -------------------------------------------------------------------------------------


def restored_by_velero(difference: Difference) -> bool:
    """Velero made the object again, and marked it."""
    return difference.made_again and _restored_by_velero(difference.new)


def lost_its_job(difference: Difference) -> bool:
    """Velero restored a pod, and left out that a Job owned it; the finalizer by which Jobs count goes with it."""
    if not (restored_by_velero(difference) and _lost(difference, "Job")):
        return False
    return difference.path[1] == "ownerReferences" or _not_counted_any_more(difference)


def lost_its_cron_job(difference: Difference) -> bool:
    """Velero restored a Job, and left out that a CronJob owned it."""
    return restored_by_velero(difference) and _lost(difference, "CronJob")


def _lost(difference: Difference, kind: str) -> bool:
    owners = look_up(difference.new, "metadata", "ownerReferences")
    return not owners and look_up(controller_of(difference.old), "kind") == kind


def marked_by_velero(difference: Difference) -> bool:
    """Velero has put it there."""
    return difference.after is not ABSENT


# ---- service accounts and their tokens -------------------------------------------------------------------


def _is_token(item: _Object) -> bool:
    return item.get("type") == "kubernetes.io/service-account-token"


def token_issued_anew(difference: Difference) -> bool:
    """The Secret is one that the cluster fills with a token, and it has."""
    if not (_is_token(difference.old) and _is_token(difference.new)) or not difference.made_again:
        return False
    if not difference.after or difference.after is ABSENT:
        return False
    if difference.path[0] == "data":
        return True
    annotations = look_up(difference.new, "metadata", "annotations") or {}
    name = str(annotations.get("kubernetes.io/service-account.name", ""))
    account = difference.context.new(ObjectRef("ServiceAccount", difference.ref.namespace, name))
    return account is None or bool(look_up(account, "metadata", "uid") == difference.after)


def token_used(difference: Difference) -> bool:
    """The API server noted when a token was last used, or that nobody used it for a year."""
    before, after = difference.before, difference.after
    return _is_token(difference.new) and isinstance(after, str) and (before is ABSENT or str(before) < after)


def token_secret_replaced(difference: Difference) -> bool:
    """The cluster made another token Secret for this account under a random name, in place of the one before."""
    pattern = re.compile(f"{re.escape(difference.ref.name)}-token-{GENERATED}")
    entry = difference.after if difference.before is ABSENT else difference.before
    if not pattern.fullmatch(str(look_up(entry, "name"))):
        return False
    before, after = (_own_tokens(item, pattern) for item in (difference.old, difference.new))
    return bool(before) and len(before) == len(after)


def _own_tokens(account: _Object, pattern: re.Pattern[str]) -> list[str]:
    names = [str(look_up(entry, "name")) for entry in look_up(account, "secrets") or ()]
    return [name for name in names if pattern.fullmatch(name)]


# ---- system-owned objects --------------------------------------------------------------------------------


def aggregated(difference: Difference) -> bool:
    """The rules are the sum of those of other ClusterRoles, which are compared themselves."""
    rules = difference.after
    if not look_up(difference.new, "aggregationRule") or not isinstance(rules, list) or not rules:
        return False
    if look_up(difference.old, "aggregationRule") != look_up(difference.new, "aggregationRule"):
        return False
    selectors = look_up(difference.new, "aggregationRule", "clusterRoleSelectors") or ()
    wanted = [rule for role in _cluster_roles(difference) if _selected(role, selectors) for rule in role["rules"] or ()]
    return all(rule in wanted for rule in rules)


def _cluster_roles(difference: Difference) -> Iterator[_Object]:
    for ref in difference.context.after:
        if ref.full_kind == "ClusterRole.rbac.authorization.k8s.io" and ref != difference.ref:
            role = difference.context.new(ref)
            if role is not None:
                yield {"rules": None, **role}


def _selected(role: _Object, selectors: Any) -> bool:  # noqa: ANN401 - any JSON
    labels = look_up(role, "metadata", "labels") or {}
    return any(
        not selector.get("matchExpressions")
        and all(labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items())
        for selector in selectors
    )


def bootstrapped_by_other_version(difference: Difference) -> bool:
    """API servers of different versions keep different rules in it, and both keep it up to date."""
    return not difference.context.same_version and all(
        look_up(item, "metadata", "annotations", "rbac.authorization.kubernetes.io/autoupdate") == "true"
        and look_up(item, "metadata", "labels", "kubernetes.io/bootstrapping") == "rbac-defaults"
        for item in (difference.old, difference.new)
    )


def filled_in_by_other_version(difference: Difference) -> bool:
    """A field of a built-in kind was not there, and an API server of another version fills it in, or writes null."""
    ref, path = difference.ref, difference.path
    return (
        not difference.context.same_version
        and ("." not in ref.group or ref.group.endswith(".k8s.io"))
        and path[0] != "metadata"
        and (difference.before is ABSENT or difference.before is None)
        and _elements_were_there(difference.old, path)
    )


def _elements_were_there(item: Any, path: Path) -> bool:  # noqa: ANN401 - any JSON
    """Return whether no element of a list on the way is a new one: an API server adds fields, and no containers."""
    for step in path:
        if not isinstance(step, Element):
            item = item.get(step) if isinstance(item, dict) else None
            continue
        found = [each for number, each in enumerate(item or ()) if _is_labelled(each, number, step.label)]
        if not found:
            return False
        item = found[0]
    return True


def _is_labelled(item: Any, number: int, label: str) -> bool:  # noqa: ANN401 - any JSON
    if label.isdigit():
        return number == int(label)
    keys = (part.partition("=") for part in label.split(","))
    return all(str(look_up(item, *key.split("."))) == value for key, _, value in keys)


def kept_by_api_server(difference: Difference) -> bool:
    """The API server resets it to what it wants."""
    return all(
        look_up(item, "metadata", "annotations", "apf.kubernetes.io/autoupdate-spec") == "true"
        for item in (difference.old, difference.new)
    )

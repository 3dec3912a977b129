"""When an object counts as ready: decided from the object alone.

The rules are those of ``kubectl rollout status`` and ``kubectl wait``: a controller's numbers count only once
``status.observedGeneration`` has caught up with the specification. Whether a status is *fresh* cannot be seen
in the object; see `clusterguard.validate.readiness`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = [
    "Readiness",
    "claim_readiness",
    "is_superseded",
    "readiness",
    "service_readiness",
    "volume_readiness",
]

_Object: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether an object is ready, and why (not); true or false in conditions."""

    ready: bool
    reason: str

    def __bool__(self) -> bool:
        return self.ready


def readiness(item: _Object, *, plain_status: bool = False) -> Readiness:
    """Return whether an object is ready.

    Kinds without a rule of their own are ready when their condition ``Ready``, ``Available`` or
    ``Established`` is true; those that have no such condition are ready by being there.

    Args:
        item: The object as the API returns it, with ``apiVersion`` and ``kind``. A Service does not tell on
            its own: see `service_readiness`. Neither do a claim that is Pending and a volume that is Released:
            see `claim_readiness` and `volume_readiness`.
        plain_status: Whether its kind has no status subresource. There, each write of the status is a generation
            of its own, which no controller can catch up with.
    """
    if _metadata(item).get("deletionTimestamp"):
        return _no("it is being deleted")
    group = str(item.get("apiVersion", "")).rpartition("/")[0]
    rule = _RULES.get((group, str(item.get("kind", ""))), _by_condition)
    counted = rule in _WITH_GENERATION or (rule is _by_condition and "observedGeneration" in _status(item))
    if counted and not plain_status and (behind := _behind(item)):
        return _no(behind)
    return rule(item)


def service_readiness(service: _Object, slices: Iterable[_Object]) -> Readiness:
    """Return whether a Service has an endpoint that is ready.

    Args:
        service: The Service.
        slices: The EndpointSlices of its namespace; those of other Services are passed over.
    """
    if _metadata(service).get("deletionTimestamp"):
        return _no("it is being deleted")
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return _yes("it is a name for something outside")
    balanced = (_status(service).get("loadBalancer") or {}).get("ingress")
    # With addresses of its own, which nodes answer at, nobody may ever fill the status in.
    if spec.get("type") == "LoadBalancer" and not balanced and not spec.get("externalIPs"):
        return _no("its load balancer has no address yet")
    name = _metadata(service).get("name")
    own = [part for part in slices if (_metadata(part).get("labels") or {}).get(_SERVICE_LABEL) == name]
    endpoints = [endpoint for part in own for endpoint in part.get("endpoints") or ()]
    # An absent condition means "ready" (discovery.k8s.io/v1).
    ready = sum((endpoint.get("conditions") or {}).get("ready") is not False for endpoint in endpoints)
    if ready:
        return _yes(f"{ready} of {len(endpoints)} endpoints ready")
    return _no(f"none of {len(endpoints)} endpoints ready" if endpoints else "no endpoints")


def claim_readiness(claim: _Object, storage_class: _Object | None, pods: Iterable[_Object]) -> Readiness:
    """Return whether a claim is bound, or waits for a first pod that nobody has made.

    Args:
        claim: The PersistentVolumeClaim.
        storage_class: The class that it names, or None if there is none or it is not known.
        pods: Those of its namespace.
    """
    found = readiness(claim)
    waits = (storage_class or {}).get("volumeBindingMode") == "WaitForFirstConsumer"
    if found or not waits or _metadata(claim).get("deletionTimestamp") or _status(claim).get("phase") != "Pending":
        return found
    users = [pod for pod in pods if _metadata(claim).get("name") in _claims_of(pod)]
    if users:
        return _no(f"Pending, and pod {_metadata(users[0]).get('name')} wants it")
    return _yes("it waits for the first pod that uses it, and none does")


def _claims_of(pod: _Object) -> set[str]:
    volumes = (pod.get("spec") or {}).get("volumes") or ()
    return {str((volume.get("persistentVolumeClaim") or {}).get("claimName")) for volume in volumes}


def volume_readiness(volume: _Object, claim: _Object | None) -> Readiness:
    """Return whether a volume is of use: bound, free, or kept for its owner after its claim was deleted.

    Args:
        volume: The PersistentVolume.
        claim: The claim that it names, as it is now, or None if there is none.
    """
    found = readiness(volume)
    kept = (volume.get("spec") or {}).get("persistentVolumeReclaimPolicy") == "Retain"
    if found or not kept or _metadata(volume).get("deletionTimestamp") or _status(volume).get("phase") != "Released":
        return found
    if claim is not None:
        return _no(f"Released, although there is a claim {_metadata(claim).get('name')}")
    return _yes("its claim was deleted, and it is kept (Retain)")


def is_superseded(pod: _Object) -> bool:
    """Return whether a pod has failed and its controller has made another one long since: evicted, for example."""
    owners = _metadata(pod).get("ownerReferences") or ()
    replaced = any(owner.get("controller") and owner.get("kind") in _REPLACING for owner in owners)
    return replaced and _status(pod).get("phase") == "Failed"


_REPLACING = frozenset({"ReplicaSet", "ReplicationController"})  # the others delete a failed pod themselves
_SERVICE_LABEL = "kubernetes.io/service-name"


def _yes(reason: str) -> Readiness:
    return Readiness(ready=True, reason=reason)


def _no(reason: str) -> Readiness:
    return Readiness(ready=False, reason=reason)


def _when(ready: bool, reason: str) -> Readiness:  # noqa: FBT001 - the one thing it turns into an answer
    return Readiness(ready=ready, reason=reason)


def _metadata(item: _Object) -> _Object:
    return item.get("metadata") or {}


def _status(item: _Object) -> _Object:
    status = item.get("status")
    return status if isinstance(status, dict) else {}  # of a custom resource it may be a text or a list


def _number(holder: _Object, key: str, default: int = 0) -> int:
    value = holder.get(key)
    return value if isinstance(value, int) else default


def _wanted(item: _Object) -> int:
    return _number(item.get("spec") or {}, "replicas", 1)


def _behind(item: _Object) -> str:
    generation, observed = (
        _number(_metadata(item), "generation"),
        _number(_status(item), "observedGeneration"),
    )
    return f"its controller has seen generation {observed} of {generation}" if observed < generation else ""


def _condition(item: _Object, kind: str) -> _Object | None:
    conditions = _status(item).get("conditions")
    if not isinstance(conditions, list):
        return None
    return next((entry for entry in conditions if isinstance(entry, dict) and entry.get("type") == kind), None)


def _described(condition: _Object) -> str:
    words = (condition.get("reason"), condition.get("message"))
    why = ": ".join(str(word) for word in words if word)
    state = f"{condition.get('type')} is {condition.get('status')}"
    return f"{state} ({why})" if why else state


def _requires(*kinds: str) -> Callable[[_Object], Readiness]:
    """Return a rule: all of these conditions are true."""

    def rule(item: _Object) -> Readiness:
        for kind in kinds:
            condition = _condition(item, kind)
            if condition is None:
                return _no(f"it has no condition {kind} yet")
            if condition.get("status") != "True":
                return _no(_described(condition))
        return _yes(f"{' and '.join(kinds)} is True")

    return rule


def _pod(item: _Object) -> Readiness:
    status = _status(item)
    phase = status.get("phase", "without a phase")
    if phase == "Succeeded":
        return _yes("it has completed")
    if phase != "Running":
        return _no(": ".join(part for part in (str(phase), _pod_trouble(status)) if part))
    if not status.get("podIP"):
        return _no("Running, but without an address")
    condition = _condition(item, "Ready")
    if condition is not None and condition.get("status") == "True":
        return _yes("Running and Ready")
    trouble = _pod_trouble(status) or (_described(condition) if condition else "it has no condition Ready yet")
    return _no(f"Running: {trouble}")


def _pod_trouble(status: _Object) -> str:
    for key in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(key) or ():
            state = container.get("state") or {}
            held = state.get("waiting") or state.get("terminated")
            if held and held.get("reason") not in {None, "Completed"}:
                return f"container {container.get('name')} is {held['reason']}"
    scheduled = _condition({"status": status}, "PodScheduled")
    if scheduled is not None and scheduled.get("status") == "False":
        return str(scheduled.get("message") or scheduled.get("reason") or "not scheduled")
    return str(status.get("message") or status.get("reason") or "")


def _deployment(item: _Object) -> Readiness:
    status, wanted = _status(item), _wanted(item)
    progressing = _condition(item, "Progressing")
    if progressing is not None and progressing.get("reason") == "ProgressDeadlineExceeded":
        return _no(_described(progressing))
    updated, total = _number(status, "updatedReplicas"), _number(status, "replicas")
    available = _number(status, "availableReplicas")
    if (item.get("spec") or {}).get("paused"):  # its owner has stopped the rollout wherever it is
        return _when(available >= wanted, f"paused, {available} of {wanted} replicas available")
    if updated < wanted:
        return _no(f"{updated} of {wanted} replicas updated")
    if total > updated:
        return _no(f"{total - updated} old replicas are still there")
    return _when(available >= wanted, f"{available} of {wanted} replicas available")


def _stateful_set(item: _Object) -> Readiness:
    spec, status, wanted = item.get("spec") or {}, _status(item), _wanted(item)
    ready = _number(status, "readyReplicas")
    if ready < wanted:
        return _no(f"{ready} of {wanted} replicas ready")
    if _number(status, "replicas") > wanted:
        return _no(f"{_number(status, 'replicas') - wanted} replicas too many are still there")
    strategy = spec.get("updateStrategy") or {}
    if strategy.get("type", "RollingUpdate") == "RollingUpdate":
        due = wanted - _number(strategy.get("rollingUpdate") or {}, "partition")
        updated = _number(status, "updatedReplicas")
        if updated < due:
            return _no(f"{updated} of {due} replicas updated")
    return _yes(f"{ready} of {wanted} replicas ready")


def _daemon_set(item: _Object) -> Readiness:
    spec, status = item.get("spec") or {}, _status(item)
    wanted, available = _number(status, "desiredNumberScheduled"), _number(status, "numberAvailable")
    updated = _number(status, "updatedNumberScheduled")
    rolling = (spec.get("updateStrategy") or {}).get("type", "RollingUpdate") == "RollingUpdate"
    if rolling and updated < wanted:
        return _no(f"{updated} of {wanted} nodes updated")
    return _when(available >= wanted, f"available on {available} of {wanted} nodes")


def _replica_set(item: _Object) -> Readiness:
    wanted, status = _wanted(item), _status(item)
    available = _number(status, "availableReplicas")
    if _number(status, "replicas") > wanted:
        return _no(f"{_number(status, 'replicas') - wanted} replicas too many are still there")
    return _when(available >= wanted, f"{available} of {wanted} replicas available")


def _job(item: _Object) -> Readiness:
    for kind in ("Failed", "FailureTarget"):
        failed = _condition(item, kind)
        if failed is not None and failed.get("status") == "True":
            return _no(_described(failed))
    complete = _condition(item, "Complete")
    if complete is not None and complete.get("status") == "True":
        return _yes("it has completed")
    if (item.get("spec") or {}).get("suspend"):
        return _no("it is suspended")
    status = _status(item)
    return _no(f"{_number(status, 'active')} active, {_number(status, 'succeeded')} succeeded")


def _phase(*good: str) -> Callable[[_Object], Readiness]:
    """Return a rule: the phase is one of these."""

    def rule(item: _Object) -> Readiness:
        phase = str(_status(item).get("phase") or "without a phase")
        return _when(phase in good, phase)

    return rule


def _definition(item: _Object) -> Readiness:
    terminating = _condition(item, "Terminating")
    if terminating is not None and terminating.get("status") == "True":
        return _no(_described(terminating))
    return _requires("Established", "NamesAccepted")(item)


def _service(item: _Object) -> Readiness:
    if (item.get("spec") or {}).get("type") == "ExternalName":
        return service_readiness(item, ())
    return _no("its EndpointSlices were not looked at")


def _by_condition(item: _Object) -> Readiness:
    for kind in ("Ready", "Available", "Established"):
        condition = _condition(item, kind)
        if condition is not None:
            return _when(condition.get("status") == "True", _described(condition))
    return _yes("it is there (it tells nothing about its state)")


_WITH_GENERATION = {_deployment, _stateful_set, _daemon_set, _replica_set}
_RULES: Mapping[tuple[str, str], Callable[[_Object], Readiness]] = {
    ("", "Namespace"): _phase("Active"),
    ("", "Node"): _requires("Ready"),
    ("", "PersistentVolume"): _phase("Bound", "Available"),
    ("", "PersistentVolumeClaim"): _phase("Bound"),
    ("", "Pod"): _pod,
    ("", "ReplicationController"): _replica_set,
    ("", "Service"): _service,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _definition,
    ("apiregistration.k8s.io", "APIService"): _requires("Available"),
    ("apps", "DaemonSet"): _daemon_set,
    ("apps", "Deployment"): _deployment,
    ("apps", "ReplicaSet"): _replica_set,
    ("apps", "StatefulSet"): _stateful_set,
    ("batch", "Job"): _job,
}

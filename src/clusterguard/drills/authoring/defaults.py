"""Takes out of a manifest what the API server fills in by itself, so that people read only what was meant. Pure.

Only what the server gives an object that lacks it: taking it out changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["containers_of", "pod_template", "without_defaults"]

_MODE: Final = 0o644
_CONTAINER: Final = {
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
    "resources": {},
    "volumeMounts": [],
}
_TOLERATIONS: Final = [
    {"effect": "NoExecute", "key": f"node.kubernetes.io/{key}", "operator": "Exists", "tolerationSeconds": 300}
    for key in ("not-ready", "unreachable")
]
_POD: Final = {
    "restartPolicy": "Always",
    "dnsPolicy": "ClusterFirst",
    "schedulerName": "default-scheduler",
    "terminationGracePeriodSeconds": 30,
    "securityContext": {},
    "enableServiceLinks": True,
    "preemptionPolicy": "PreemptLowerPriority",
    "priority": 0,
    "serviceAccountName": "default",
}
_PROBE: Final = {"failureThreshold": 3, "periodSeconds": 10, "successThreshold": 1, "timeoutSeconds": 1}
_PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")
_ROLLING: Final = {"maxSurge": "25%", "maxUnavailable": "25%"}
_OF_KIND: Final[Mapping[str, Mapping[str, Any]]] = {
    "Deployment.apps": {
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": _ROLLING},
    },
    "StatefulSet.apps": {
        "revisionHistoryLimit": 10,
        "podManagementPolicy": "OrderedReady",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
    },
    "DaemonSet.apps": {
        "revisionHistoryLimit": 10,
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
    },
    "CronJob.batch": {
        "suspend": False,
        "concurrencyPolicy": "Allow",
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 1,
    },
    "Service": {
        "type": "ClusterIP",
        "sessionAffinity": "None",
        "internalTrafficPolicy": "Cluster",
        "externalTrafficPolicy": "Cluster",
        "allocateLoadBalancerNodePorts": True,
    },
    "PersistentVolumeClaim": {"volumeMode": "Filesystem"},
}
_TEMPLATES: Final[Mapping[str, tuple[str, ...]]] = {
    "ReplicationController": ("template",),
    "Deployment.apps": ("template",),
    "ReplicaSet.apps": ("template",),
    "StatefulSet.apps": ("template",),
    "DaemonSet.apps": ("template",),
    "Job.batch": ("template",),
    "CronJob.batch": ("jobTemplate", "spec", "template"),
}


def pod_template(full_kind: str, item: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a workload makes its Pods of, ``metadata`` and ``spec``; of a Pod itself; None of any other kind."""
    if full_kind == "Pod":
        return item if isinstance(item, dict) else None
    inner: Any = item.get("spec")
    for key in _TEMPLATES.get(full_kind, ()):
        inner = (inner or {}).get(key)
    return inner if full_kind in _TEMPLATES and isinstance(inner, dict) else None


def without_defaults(full_kind: str, item: dict[str, Any]) -> None:
    """Take defaults of the API server out of a manifest of one of Kubernetes' own kinds."""
    spec = item.get("spec")
    if isinstance(spec, dict):
        _drop(spec, _OF_KIND.get(full_kind, {}))
    if full_kind == "Service":
        _ports(item)
    if full_kind == "StatefulSet.apps":
        for claim in item["spec"].get("volumeClaimTemplates") or ():
            _claim_template(claim)
    if full_kind == "CronJob.batch":
        _drop(item["spec"]["jobTemplate"], {"metadata": {}})
    template = pod_template(full_kind, item)
    if template is not None:
        _pod(template)


def _drop(data: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    for key, value in defaults.items():
        if key in data and data[key] == value and isinstance(data[key], bool) == isinstance(value, bool):
            del data[key]


def _ports(item: dict[str, Any]) -> None:
    for port in item["spec"].get("ports") or ():
        _drop(port, {"protocol": "TCP", "targetPort": port.get("port")})


def _claim_template(claim: dict[str, Any]) -> None:
    for key in ("apiVersion", "kind", "status"):
        claim.pop(key, None)
    claim["metadata"].pop("creationTimestamp", None)
    _drop(claim["spec"], _OF_KIND["PersistentVolumeClaim"])


def _pod(template: dict[str, Any]) -> None:
    (template.get("metadata") or {}).pop("creationTimestamp", None)
    _drop(template, {"metadata": {}})
    spec = template.get("spec") or {}
    _drop(spec, {**_POD, "serviceAccount": spec.get("serviceAccountName"), "volumes": []})
    if spec.get("tolerations"):
        spec["tolerations"] = [each for each in spec["tolerations"] if each not in _TOLERATIONS]
        _drop(spec, {"tolerations": []})
    for container in containers_of(spec):
        _container(container)
    for volume in spec.get("volumes") or ():
        for source in ("configMap", "secret", "projected", "downwardAPI"):
            if isinstance(volume.get(source), dict):
                _drop(volume[source], {"defaultMode": _MODE})


def containers_of(spec: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the containers of a Pod's spec, those that run before it among them."""
    for key in ("initContainers", "containers"):
        yield from spec.get(key) or ()


def _container(container: dict[str, Any]) -> None:
    image = str(container.get("image", ""))
    tag = image.rpartition("/")[2].partition(":")[2]
    pulled = "Always" if tag in {"", "latest"} and "@" not in image else "IfNotPresent"
    _drop(container, {**_CONTAINER, "imagePullPolicy": pulled})
    for port in container.get("ports") or ():
        _drop(port, {"protocol": "TCP"})
    for name in _PROBES:
        if isinstance(container.get(name), dict):
            _drop(container[name], _PROBE)
            _drop(container[name].get("httpGet") or {}, {"scheme": "HTTP"})
    for variable in container.get("env") or ():
        _drop((variable.get("valueFrom") or {}).get("fieldRef") or {}, {"apiVersion": "v1"})

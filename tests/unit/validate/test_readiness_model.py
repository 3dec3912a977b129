"""When objects count as ready."""

import pytest

from clusterguard.model.readiness import readiness, service_readiness


def workload(kind, status, *, generation=2, api="apps/v1", **spec):
    return {
        "apiVersion": api,
        "kind": kind,
        "metadata": {"name": "x", "generation": generation},
        "spec": spec,
        "status": {"observedGeneration": 2, **status},
    }


def pod(phase="Running", *, ready="True", ip="10.0.0.1", **status):
    conditions = [{"type": "Ready", "status": ready}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {},
        "status": {"phase": phase, "podIP": ip, "conditions": conditions, **status},
    }


def conditioned(kind, api, **conditions):
    listed = [{"type": name, "status": status} for name, status in conditions.items()]
    return {"apiVersion": api, "kind": kind, "metadata": {}, "status": {"conditions": listed}}


FULL = {"replicas": 3, "updatedReplicas": 3, "availableReplicas": 3, "readyReplicas": 3}
ON_NODES = {"desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 2}


@pytest.mark.parametrize(
    "item",
    [
        pod(),
        pod("Succeeded", ready="False"),
        workload("Deployment", FULL, replicas=3),
        workload("Deployment", {}, replicas=0),
        workload("StatefulSet", FULL, replicas=3),
        workload(
            "StatefulSet",
            FULL | {"updatedReplicas": 1},
            replicas=3,
            updateStrategy={"rollingUpdate": {"partition": 2}},
        ),
        workload("StatefulSet", FULL | {"updatedReplicas": 0}, replicas=3, updateStrategy={"type": "OnDelete"}),
        workload("DaemonSet", ON_NODES),
        workload("ReplicaSet", FULL, replicas=3),
        workload("Job", {"conditions": [{"type": "Complete", "status": "True"}]}, api="batch/v1"),
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {}, "status": {"phase": "Bound"}},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {}, "status": {"phase": "Active"}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}},
        conditioned("CustomResourceDefinition", "apiextensions.k8s.io/v1", Established="True", NamesAccepted="True"),
        conditioned("APIService", "apiregistration.k8s.io/v1", Available="True"),
        conditioned("Certificate", "cert-manager.io/v1", Ready="True"),
        conditioned("Node", "v1", Ready="True"),
    ],
)
def test_ready(item):
    assert readiness(item), readiness(item).reason


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (pod("Pending"), "Pending"),
        (pod("Failed"), "Failed"),
        (pod(ready="False"), "Ready is False"),
        (pod(ip=""), "without an address"),
        (pod() | {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}, "being deleted"),
        (
            pod(
                "Pending",
                containerStatuses=[{"name": "web", "state": {"waiting": {"reason": "ImagePullBackOff"}}}],
            ),
            "web is ImagePullBackOff",
        ),
        (
            pod("Pending", conditions=[{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]),
            "0/1 nodes",
        ),
        ({"apiVersion": "v1", "kind": "Pod", "metadata": {}}, "without a phase"),
        (workload("Deployment", FULL, replicas=3, generation=3), "generation 2 of 3"),
        (workload("Deployment", FULL | {"updatedReplicas": 2}, replicas=3), "2 of 3 replicas updated"),
        (workload("Deployment", FULL | {"replicas": 4}, replicas=3), "old replicas"),
        (workload("Deployment", FULL | {"availableReplicas": 2}, replicas=3), "2 of 3 replicas available"),
        (workload("Deployment", {}), "0 of 1"),
        (
            workload(
                "Deployment",
                {"conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]},
                replicas=0,
            ),
            "Deadline",
        ),
        (workload("StatefulSet", FULL | {"readyReplicas": 1}, replicas=3), "1 of 3 replicas ready"),
        (workload("StatefulSet", FULL | {"updatedReplicas": 1}, replicas=3), "1 of 3 replicas updated"),
        (workload("DaemonSet", ON_NODES | {"numberAvailable": 1}), "1 of 2 nodes"),
        (workload("DaemonSet", ON_NODES | {"updatedNumberScheduled": 1}), "1 of 2 nodes updated"),
        (workload("DaemonSet", {}, generation=3), "generation"),
        (workload("ReplicaSet", FULL | {"availableReplicas": 0}, replicas=3), "0 of 3"),
        (workload("Job", {"active": 1}, api="batch/v1"), "1 active"),
        (
            workload(
                "Job",
                {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]},
                api="batch/v1",
            ),
            "Backoff",
        ),
        (
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {},
                "status": {"phase": "Lost"},
            },
            "Lost",
        ),
        (
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {}, "status": {"phase": "Terminating"}},
            "Terminating",
        ),
        (
            conditioned("CustomResourceDefinition", "apiextensions.k8s.io/v1", Established="True"),
            "NamesAccepted",
        ),
        (
            conditioned(
                "CustomResourceDefinition",
                "apiextensions.k8s.io/v1",
                Established="True",
                NamesAccepted="True",
                Terminating="True",
            ),
            "Terminating",
        ),
        (conditioned("APIService", "apiregistration.k8s.io/v1", Available="False"), "Available is False"),
        (conditioned("Node", "v1", Ready="Unknown"), "Ready is Unknown"),
        (conditioned("Certificate", "cert-manager.io/v1", Ready="Unknown"), "Ready is Unknown"),
        (
            workload(
                "Widget",
                {"conditions": [{"type": "Ready", "status": "True"}]},
                api="example.com/v1",
                generation=3,
            ),
            "generation 2 of 3",
        ),
        ({"apiVersion": "v1", "kind": "Service", "metadata": {}, "spec": {}}, "not looked at"),
    ],
)
def test_not_ready_and_why(item, reason):
    verdict = readiness(item)
    assert not verdict
    assert reason in verdict.reason


def slices(*conditions, service="web"):
    endpoints = [{"conditions": condition} for condition in conditions]
    return [{"metadata": {"labels": {"kubernetes.io/service-name": service}}, "endpoints": endpoints}]


SERVICE = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"type": "ClusterIP"}}


@pytest.mark.parametrize(
    ("parts", "ready"),
    [
        (slices({"ready": True}), True),
        (slices({}), True),
        (slices({"ready": False}, {"ready": True}), True),
        (slices({"ready": False}), False),
        (slices({"ready": True}, service="other"), False),
        ([], False),
    ],
)
def test_a_service_is_ready_when_one_of_its_own_endpoints_is(parts, ready):
    assert service_readiness(SERVICE, parts).ready is ready


def test_a_load_balancer_needs_an_address():
    service = SERVICE | {"spec": {"type": "LoadBalancer"}}
    assert not service_readiness(service, slices({"ready": True}))
    service["status"] = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
    assert service_readiness(service, slices({"ready": True}))

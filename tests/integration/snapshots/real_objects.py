"""Objects to write through an API server, and how two states of one are compared: in every field, types included."""

from __future__ import annotations

from pathlib import Path

import yaml

MANIFESTS = Path(__file__).parents[1] / "validate/a_bit_of_everything.yaml"

WIDGETS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.law.example.com"},
    "spec": {
        "group": "law.example.com",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
        "versions": [
            {
                "name": version,
                "served": True,
                "storage": version == "v1",
                "subresources": {"status": {}},
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                "selectableFields": [{"jsonPath": ".spec.color"}],
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "x-kubernetes-preserve-unknown-fields": True,
                                "properties": {
                                    "size": {"type": "integer", "default": 3},
                                    "color": {"type": "string"},
                                    "port": {"x-kubernetes-int-or-string": True},
                                },
                            }
                        },
                    }
                },
            }
            for version in ("v1", "v2")
        ],
    },
}
WIDGET = {
    "apiVersion": "law.example.com/v1",
    "kind": "Widget",
    "metadata": {"name": "first", "labels": {"app": "web"}},
    "spec": {"color": "rød <&>", "port": "http", "large": 2**53 + 1, "ratio": 0.25, "none": None, "list": [{}, [], ""]},
}
OWN = [
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "text"}, "data": {"a": "1\né", "b.c": ""},
     "binaryData": {"d": "//79"}},
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "empty"}},
    {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "password"}, "stringData": {"password": "s3cret <&>"}},
    {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "none"}},
    {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "half"},
     "spec": {"minAvailable": "50%", "selector": {"matchLabels": {"app": "web"}}}},
    {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "web"},
     "spec": {"rules": [{"host": "example.com"}],
              "defaultBackend": {"service": {"name": "w", "port": {"number": 80}}}}},
    {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "held"},
     "spec": {"renewTime": "2026-01-02T03:04:05.000006Z", "leaseDurationSeconds": 15}},
    {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.none.example.com"},
     "spec": {"group": "none.example.com", "version": "v1", "groupPriorityMinimum": 10, "versionPriority": 10,
              "insecureSkipTLSVerify": True, "service": {"name": "none", "namespace": "law"}}},
    {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
     "metadata": {"name": "elsewhere"}, "webhooks": [
         {"name": "a.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
          "rules": [{"apiGroups": ["x.example.com"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"]}],
          "clientConfig": {"url": "https://192.0.2.1/", "caBundle": ""}}]},
]  # fmt: skip

OBJECTS = [*yaml.safe_load_all(MANIFESTS.read_text()), *OWN, WIDGETS]
"""To be created in the namespace ``law``, in this order; then `WIDGET`, once its definition is served."""


def differences(found, served, path=""):
    if isinstance(found, dict) and isinstance(served, dict):
        for key in sorted(found.keys() | served.keys()):
            yield from differences(found.get(key, ...), served.get(key, ...), f"{path}.{key}")
    elif isinstance(found, list) and isinstance(served, list) and len(found) == len(served):
        for index, pair in enumerate(zip(found, served, strict=True)):
            yield from differences(*pair, f"{path}[{index}]")
    elif found != served or type(found) is not type(served):
        yield path

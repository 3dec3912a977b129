"""Definitions of custom resources: the API server stores them as v1beta1, and serves v1.

What all versions have in common was lifted out of them in v1beta1; in v1 each version has its own again. The conversion
is that of Kubernetes' apiextensions (pkg/apis/apiextensions/v1).
"""

from __future__ import annotations

from typing import Any

__all__ = ["definition_as_v1"]

_V1BETA1, _V1 = "apiextensions.k8s.io/v1beta1", "apiextensions.k8s.io/v1"
_SHARED = {
    "subresources": "subresources",
    "validation": "schema",
    "additionalPrinterColumns": "additionalPrinterColumns",
    "selectableFields": "selectableFields",
}


def definition_as_v1(stored: dict[str, Any]) -> dict[str, Any]:
    """Return a definition as the API server serves it; one that is stored as v1 is that already."""
    if stored.get("apiVersion") != _V1BETA1:
        return stored
    spec = dict(stored.get("spec") or {})
    first = spec.pop("version", "")
    if spec.get("preserveUnknownFields", True):
        spec["preserveUnknownFields"] = True  # v1beta1's default
    else:
        spec.pop("preserveUnknownFields")
    shared = {new: spec.pop(old) for old, new in _SHARED.items() if spec.get(old) is not None}
    for old in _SHARED:
        spec.pop(old, None)
    versions = spec.get("versions") or [{"name": first, "served": True, "storage": True}]
    spec["versions"] = [_version({**version, **shared}) for version in versions]
    spec["names"] = _names(spec.get("names") or {})
    spec["conversion"] = _conversion(spec.get("conversion") or {"strategy": "None"})
    return {**stored, "apiVersion": _V1, "spec": spec}


def _version(version: dict[str, Any]) -> dict[str, Any]:
    columns = version.get("additionalPrinterColumns")
    if columns is None:
        return version
    return {**version, "additionalPrinterColumns": [_column(column) for column in columns]}


def _column(column: dict[str, Any]) -> dict[str, Any]:
    return {"jsonPath" if name == "JSONPath" else name: value for name, value in column.items()}


def _names(names: dict[str, Any]) -> dict[str, Any]:
    kind = names.get("kind", "")
    return {"singular": kind.lower(), "listKind": f"{kind}List", **names}


def _conversion(conversion: dict[str, Any]) -> dict[str, Any]:
    moved = {"webhookClientConfig": "clientConfig", "conversionReviewVersions": "conversionReviewVersions"}
    kept = {name: value for name, value in conversion.items() if name not in moved}
    webhook = {new: conversion[old] for old, new in moved.items() if conversion.get(old) is not None}
    return {**kept, "webhook": webhook} if webhook else kept

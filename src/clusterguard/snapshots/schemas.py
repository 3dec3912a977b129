"""Custom resources as their definition has them read: what a schema of now no longer has goes, what it defaults comes.

The API server does both at every read, so the bytes alone do not tell. The rules are those of apiextensions
(pkg/apiserver/schema/pruning and defaulting), for the version that an object is stored in.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["as_defined"]

_TYPE_AND_META = frozenset({"apiVersion", "kind", "metadata"})
_KEEP_UNKNOWN, _EMBEDDED = "x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"


def as_defined(item: dict[str, Any], definition: Mapping[str, Any]) -> dict[str, Any]:
    """Return a custom resource as the API server serves it by its definition, which is given as v1.

    An object in a version that the definition does not have any more is returned as it is.
    """
    spec = definition["spec"]
    version = item["apiVersion"].rpartition("/")[2]
    schemas = [each.get("schema") or {} for each in spec["versions"] if each["name"] == version]
    if not schemas:
        return item
    schema = schemas[0].get("openAPIV3Schema")
    if not spec.get("preserveUnknownFields"):
        _prune(item, {**(schema or {}), _EMBEDDED: True})
        _drop_nulls(item, schema)
    if not item["metadata"].get("generation"):
        item["metadata"]["generation"] = 1
    _fill(item, schema)
    return item


def _property(schema: Mapping[str, Any], name: str) -> tuple[bool, Any]:
    """Return whether a schema has a field, and its own schema, or None where that says nothing."""
    properties = schema.get("properties") or {}
    if name in properties:
        return True, properties[name]
    more = schema.get("additionalProperties")
    return bool(more), more if isinstance(more, dict) else None


def _prune(value: Any, schema: Mapping[str, Any] | None, *, keeps: bool = False) -> None:  # noqa: ANN401 - any JSON
    keeps = bool(keeps or (schema and schema.get(_KEEP_UNKNOWN)))
    if keeps and schema is None:
        return
    if isinstance(value, list):
        for each in value:
            _prune(each, schema and schema.get("items"), keeps=keeps)
    elif isinstance(value, dict):
        for name in [*value]:
            if schema and schema.get(_EMBEDDED) and name in _TYPE_AND_META:
                continue
            known, inner = _property(schema or {}, name)
            if known:
                _prune(value[name], inner)
            elif not keeps:
                del value[name]


def _drop_nulls(value: Any, schema: Mapping[str, Any] | None) -> None:  # noqa: ANN401 - any JSON
    if isinstance(value, list):
        for each in value:
            _drop_nulls(each, schema and schema.get("items"))
    elif isinstance(value, dict) and schema:
        for name in [*value]:
            known, inner = _property(schema, name)
            if not known or inner is None:
                continue
            if value[name] is None and not inner.get("nullable") and inner.get("default") is None:
                del value[name]
            else:
                _drop_nulls(value[name], inner)


def _fill(value: Any, schema: Mapping[str, Any] | None) -> None:  # noqa: ANN401 - any JSON
    if not schema:
        return
    if isinstance(value, list):
        inner = schema.get("items")
        for index, each in enumerate(value):
            value[index] = _filled(each, inner)
    elif isinstance(value, dict):
        for name, inner in (schema.get("properties") or {}).items():
            if name not in value and inner.get("default") is not None:
                value[name] = copy.deepcopy(inner["default"])
        for name in [*value]:
            value[name] = _filled(value[name], _property(schema, name)[1])


def _filled(value: Any, schema: Any) -> Any:  # noqa: ANN401 - any JSON
    """Return a value, or the default in place of a null that may not be there, filled in itself."""
    if not isinstance(schema, dict):
        return value
    if value is None and not schema.get("nullable"):
        value = copy.deepcopy(schema.get("default"))
    _fill(value, schema)
    return value

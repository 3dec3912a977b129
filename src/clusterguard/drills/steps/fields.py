"""The types of single values that several verbs have."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import AfterValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema

from clusterguard.documents.model import REFERENCE_PATTERN, Model, Text, wrong
from clusterguard.documents.values import check_label, did_you_mean, short
from clusterguard.drills.values import (
    CLUSTER_SCOPED_KINDS,
    NAMESPACED_KINDS,
    Comparison,
    check_field_path,
    check_kind,
)
from clusterguard.validate.rules import OWNERS_LOST, PROFILES

__all__ = [
    "ContainerPath",
    "Count",
    "CountOrReport",
    "FieldPath",
    "Kind",
    "NamespaceGlob",
    "RuleName",
    "check_namespace",
    "is_glob",
]

_BUILT_IN_GROUPS: Final = frozenset({"apps", "autoscaling", "batch", "policy"})
_RULE_NAMES: Final = frozenset(
    {rule.name for rule in OWNERS_LOST.values()}.union(*(profile.rule_names for profile in PROFILES.values()))
)
_NAMESPACE_GLOB: Final = re.compile(r"([a-z0-9*?-]|\[!?[a-z0-9-]+\])+")
_COUNT_PATTERN: Final = rf"^(\s*(==|!=|<=|>=|<|>)?\s*[0-9]{{1,9}}\s*{REFERENCE_PATTERN})$"
_COUNT_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": _COUNT_PATTERN}],
    "examples": [3, ">=3"],
}


def _comparison_to_file(comparison: Comparison | str) -> int | str:
    if isinstance(comparison, Comparison) and comparison.operator == "==":
        return comparison.value
    return str(comparison)


def _count_or_report(written: object) -> Comparison | Literal["report"]:
    if written == "report":
        return "report"
    try:
        return Comparison.read(written)
    except ValueError as error:
        raise ValueError(f"{error}; or report, to show without judging") from error


def _rule_name(text: str) -> str:
    if text not in _RULE_NAMES:
        near = did_you_mean(text, _RULE_NAMES) or "; docs/reference/validation.md lists them"
        raise ValueError(f"{short(text)} is not a rule for volatile fields{near}")
    return text


def is_glob(text: str) -> bool:
    """Return whether a text is a pattern, and not the name of one thing."""
    return any(sign in text for sign in "*?[")


def _namespace_glob(text: str) -> str:
    if not is_glob(text):
        return check_label(text)
    if not _NAMESPACE_GLOB.fullmatch(text):
        raise ValueError(f"{short(text)} matches no namespace: lower-case letters, digits, `-`, `*`, `?` and `[…]`")
    return text


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError("a path in a container begins with `/`")
    return path


Count: TypeAlias = Annotated[
    Comparison,
    PlainValidator(Comparison.read),
    PlainSerializer(_comparison_to_file),
    WithJsonSchema(_COUNT_SCHEMA),
]
CountOrReport: TypeAlias = Annotated[
    Comparison | Literal["report"],
    PlainValidator(_count_or_report),
    PlainSerializer(_comparison_to_file),
    WithJsonSchema({"anyOf": [*_COUNT_SCHEMA["anyOf"], {"const": "report"}], "examples": [0, "report"]}),
]
Kind: TypeAlias = Annotated[str, AfterValidator(check_kind), Field(examples=["Pod", "Deployment.apps"])]
RuleName: TypeAlias = Annotated[
    str,
    AfterValidator(_rule_name),
    WithJsonSchema({"type": "string", "enum": sorted(_RULE_NAMES)}),
]
FieldPath: TypeAlias = Annotated[str, AfterValidator(check_field_path), Field(examples=["spec.clusterIP"])]
NamespaceGlob: TypeAlias = Annotated[str, AfterValidator(_namespace_glob), Field(examples=["shop", "team-*"])]
ContainerPath: TypeAlias = Annotated[Text, AfterValidator(_absolute)]


def check_namespace(model: Model, kinds: tuple[str, ...], *, needed: bool) -> None:
    """Refuse a namespace where the kind has none, and its absence where that would mean all of them."""
    namespace = getattr(model, "namespace", None)
    for kind in kinds:
        base, _, group = kind.partition(".")
        if group and group not in _BUILT_IN_GROUPS and not group.endswith(".k8s.io"):
            continue  # a custom resource, whatever its name
        if namespace and base in CLUSTER_SCOPED_KINDS:
            raise wrong(f"a {base} is cluster-scoped: leave `namespace` out", key="namespace")
        if needed and not namespace and base in NAMESPACED_KINDS:
            raise wrong(f"a {base} is namespaced: `namespace` is missing")

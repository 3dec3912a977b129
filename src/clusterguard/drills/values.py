"""The small languages of drill files alone: comparisons, kinds, field paths and the matrix.

Pure text in, values out; every ValueError says what was seen and what to write instead.
"""

from __future__ import annotations

import difflib
import itertools
import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from clusterguard.documents.interpolation import Value, value_text
from clusterguard.documents.values import short

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = [
    "CLUSTER_SCOPED_KINDS",
    "NAMESPACED_KINDS",
    "Comparison",
    "MatrixValue",
    "Operator",
    "check_field_path",
    "check_kind",
    "expand_matrix",
    "matrix_id",
]

MAX_VARIANTS: Final = 64

NAMESPACED_KINDS: Final = frozenset({
    "ConfigMap", "CronJob", "DaemonSet", "Deployment", "EndpointSlice", "HorizontalPodAutoscaler", "Ingress",
    "Job", "Lease", "LimitRange", "NetworkPolicy", "PersistentVolumeClaim", "Pod", "PodDisruptionBudget",
    "ReplicaSet", "ReplicationController", "ResourceQuota", "Role", "RoleBinding", "Secret", "Service",
    "ServiceAccount", "StatefulSet",
})  # fmt: skip
CLUSTER_SCOPED_KINDS: Final = frozenset({
    "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "IngressClass", "Namespace", "Node",
    "PersistentVolume", "PriorityClass", "RuntimeClass", "StorageClass", "VolumeAttachment",
})  # fmt: skip

Operator: TypeAlias = Literal["==", "!=", "<", "<=", ">", ">="]
MatrixValue: TypeAlias = Value

_OPERATORS: Final[Mapping[str, Callable[[int, int], bool]]] = {
    "==": operator.eq, "!=": operator.ne,
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_COMPARISON = re.compile(r"\s*(==|!=|<=|>=|<|>)?\s*([0-9]{1,9})\s*")

_KIND = re.compile(r"[A-Z][A-Za-z0-9]{0,62}(\.[a-z0-9]([-a-z0-9.]*[a-z0-9])?)?")
_FIELD_PATH = re.compile(r"[A-Za-z_$][^\x00-\x20.\[\]]*(\.[^\x00-\x20.\[\]]+|\[[^\x00-\x1f\[\]]+\])*")

_MATRIX_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_MATRIX_TEXT = re.compile(r"[A-Za-z0-9._+:/@-]{1,63}")


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a count must compare: ``3`` is exactly three, ``>=3`` at least three."""

    operator: Operator
    value: int

    @classmethod
    def read(cls, written: object) -> Comparison:
        """Read ``3``, ``"3"`` or ``">=3"``.

        Raises:
            ValueError: It is none of these.
        """
        if isinstance(written, Comparison):
            return written
        if isinstance(written, (int, str)) and not isinstance(written, bool):
            found = _COMPARISON.fullmatch(str(written))
            if found:
                sign = found[1] or "=="
                return cls(sign, int(found[2]))  # type: ignore[arg-type]  # the pattern holds no other
        raise ValueError(f'a count is expected here, such as 3 or ">=3", not {written!r}')

    def holds(self, count: int) -> bool:
        """Return whether a count compares as asked."""
        return _OPERATORS[self.operator](count, self.value)

    def __str__(self) -> str:
        return str(self.value) if self.operator == "==" else f"{self.operator}{self.value}"

    def in_words(self) -> str:
        """Return ``exactly 3``, ``at least 3`` and so on."""
        words = {
            "==": "exactly", "!=": "any number but", "<": "fewer than", "<=": "at most", ">": "more than",
            ">=": "at least",
        }  # fmt: skip
        return f"{words[self.operator]} {self.value}"


def check_kind(text: str) -> str:
    """Return a kind unchanged: ``Pod``, or ``Deployment.apps`` with its API group.

    Raises:
        ValueError: It is not written as in a manifest.
    """
    if not _KIND.fullmatch(text):
        known = {name.lower(): name for name in NAMESPACED_KINDS | CLUSTER_SCOPED_KINDS}
        close = difflib.get_close_matches(text.lower().removesuffix("s"), known, n=1)
        meant = f"; did you mean `{known[close[0]]}`?" if close else ", such as Pod or Deployment.apps"
        raise ValueError(f"{short(text)} is not a kind as manifests write it{meant}")
    return text


def check_field_path(text: str) -> str:
    """Return a field path unchanged, such as ``spec.clusterIP`` or ``spec.containers[name=web].image``.

    Raises:
        ValueError: It is not one.
    """
    if not _FIELD_PATH.fullmatch(text):
        raise ValueError(f"invalid field path {short(text)}: write it like spec.clusterIP")
    return text


def expand_matrix(matrix: Mapping[str, Sequence[MatrixValue]]) -> list[dict[str, MatrixValue]]:
    """Return every combination, the last key changing fastest; one empty combination for an empty matrix.

    Raises:
        ValueError: A list is empty or holds a value twice, a value cannot be part of a drill's id, or there
            are more than 64 combinations.
    """
    total = 1
    for key, values in matrix.items():
        if not _MATRIX_KEY.fullmatch(key):
            raise ValueError(f"{short(key)} cannot be referred to: use letters, digits and `_`")
        texts = [value_text(value) for value in values]
        if not texts:
            raise ValueError(f"`{key}` has no values")
        for text in texts:
            if not _MATRIX_TEXT.fullmatch(text):
                raise ValueError(
                    f"{short(text)} of `{key}` cannot be part of a drill's id: use A-Z a-z 0-9 . _ + : / @ -"
                )
            if texts.count(text) > 1:
                raise ValueError(f"`{key}` holds {text!r} twice")
        total *= len(texts)
        if total > MAX_VARIANTS:
            raise ValueError(f"more than {MAX_VARIANTS} combinations")
    return [dict(zip(matrix, values, strict=True)) for values in itertools.product(*matrix.values())]


def matrix_id(name: str, combination: Mapping[str, MatrixValue]) -> str:
    """Return a drill's id: its name and, in brackets, what tells it from its siblings: ``name[k8s=1.34]``."""
    if not combination:
        return name
    return f"{name}[{','.join(f'{key}={value_text(value)}' for key, value in combination.items())}]"

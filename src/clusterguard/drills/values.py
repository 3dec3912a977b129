"""The small languages inside a drill file: comparisons, durations, selectors, names, ``${…}`` and the matrix.

Pure text in, values out; every ValueError says what was seen and what to write instead.
"""

from __future__ import annotations

import difflib
import itertools
import operator
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from clusterguard.model.durations import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = [
    "CLUSTER_SCOPED_KINDS",
    "NAMESPACED_KINDS",
    "Comparison",
    "MatrixValue",
    "Operator",
    "check_cron",
    "check_field_path",
    "check_kind",
    "check_label",
    "check_name",
    "check_selector",
    "did_you_mean",
    "duration_text",
    "equalities",
    "expand_matrix",
    "matrix_id",
    "read_duration",
    "references",
    "selects",
    "substitute",
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
MatrixValue: TypeAlias = str | int | bool

_OPERATORS: Final[Mapping[str, Callable[[int, int], bool]]] = {
    "==": operator.eq, "!=": operator.ne,
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_COMPARISON = re.compile(r"\s*(==|!=|<=|>=|<|>)?\s*([0-9]{1,9})\s*")

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9A-Z]([-a-z0-9A-Z._:]*[a-z0-9A-Z])?")
_KIND = re.compile(r"[A-Z][A-Za-z0-9]{0,62}(\.[a-z0-9]([-a-z0-9.]*[a-z0-9])?)?")
_FIELD_PATH = re.compile(r"[A-Za-z_$][^\x00-\x20.\[\]]*(\.[^\x00-\x20.\[\]]+|\[[^\x00-\x1f\[\]]+\])*")

_LABEL_KEY = r"(?:[a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LABEL_VALUE = r"(?:[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?"
_REQUIREMENT = re.compile(
    rf"!?\s*{_LABEL_KEY}"
    rf"|{_LABEL_KEY}\s*(==|=|!=)\s*{_LABEL_VALUE}"
    rf"|{_LABEL_KEY}\s+(in|notin)\s*\(\s*{_LABEL_VALUE}\s*(,\s*{_LABEL_VALUE}\s*)*\)"
)
_COMMA_OUTSIDE_PARENTHESES = re.compile(r",(?![^(]*\))")

_LONGEST_SELECTOR: Final = 2000  # splitting one looks ahead from every comma

_CRON_FIELD = re.compile(r"(\*|[0-9A-Za-z]+(-[0-9A-Za-z]+)?)(/[0-9]+)?(,(\*|[0-9A-Za-z]+(-[0-9A-Za-z]+)?)(/[0-9]+)?)*")
_CRON_FIELDS: Final = 5

_REFERENCE = re.compile(r"\$(\$\{|\{([^{}]*)(\}?))")
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


def read_duration(written: object, *, zero: bool = False) -> timedelta:
    """Read a duration such as ``90s``; ``0s`` only where ``zero`` makes sense.

    Raises:
        ValueError: It is no duration, or one that nobody can wait for.
    """
    match written:
        case timedelta():
            return written
        case int() | float() if not isinstance(written, bool):
            raise ValueError(f"`{written}` has no unit; write it like {written}s")
        case str():
            return _read_duration(written, zero=zero)
    raise ValueError("a duration is expected here, such as 90s, 15m or 1h30m")


def _read_duration(written: str, *, zero: bool) -> timedelta:
    if zero and written == "0s":
        return timedelta()
    try:
        duration = parse_duration(written)
    except OverflowError as error:
        raise ValueError(f"{written!r} is longer than can be waited for") from error
    if not duration:
        raise ValueError(f"{written!r} is no time at all")
    return duration


def duration_text(duration: timedelta) -> str:
    """Write a duration so that `read_duration` gives the same one: ``90s``, ``15m``, ``1.5ms``."""
    microseconds = duration // timedelta(microseconds=1)
    seconds, rest = divmod(microseconds, 1_000_000)
    if rest:
        return f"{microseconds // 1000}.{microseconds % 1000:03d}ms"
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def check_label(text: str) -> str:
    """Return a DNS label unchanged: what names namespaces, drills, and whatever a drill file names itself.

    Raises:
        ValueError: It is not one.
    """
    if not _LABEL.fullmatch(text):
        raise ValueError(f"{_short(text)} is no DNS label: lower-case letters, digits and `-`, at most 63 characters")
    return text


def check_name(text: str) -> str:
    """Return the name of a Kubernetes object unchanged.

    Raises:
        ValueError: No object can have that name.
    """
    if not _NAME.fullmatch(text):
        raise ValueError(f"{_short(text)} cannot be the name of an object")
    return text


def check_kind(text: str) -> str:
    """Return a kind unchanged: ``Pod``, or ``Deployment.apps`` with its API group.

    Raises:
        ValueError: It is not written as in a manifest.
    """
    if not _KIND.fullmatch(text):
        known = {name.lower(): name for name in NAMESPACED_KINDS | CLUSTER_SCOPED_KINDS}
        close = difflib.get_close_matches(text.lower().removesuffix("s"), known, n=1)
        meant = f"; did you mean `{known[close[0]]}`?" if close else ", such as Pod or Deployment.apps"
        raise ValueError(f"{_short(text)} is no kind as manifests write it{meant}")
    return text


def check_field_path(text: str) -> str:
    """Return a field path unchanged, such as ``spec.clusterIP`` or ``spec.containers[name=web].image``.

    Raises:
        ValueError: It is not one.
    """
    if not _FIELD_PATH.fullmatch(text):
        raise ValueError(f"{_short(text)} is no field path, such as spec.clusterIP")
    return text


def selects(selector: str, labels: Mapping[str, str]) -> bool:
    """Return whether a label selector chooses something with these labels; the empty one chooses everything.

    Raises:
        ValueError: It is no label selector.
    """
    if not selector:
        return True
    requirements = _COMMA_OUTSIDE_PARENTHESES.split(check_selector(selector))
    return all(_requirement_holds(requirement.strip(), labels) for requirement in requirements)


def equalities(selector: str) -> dict[str, str]:
    """Return the labels that a selector asks for by ``key=value``: what a new object needs to be selected."""
    found = (re.fullmatch(r"([^\s=!]+)\s*==?\s*(.*)", part.strip()) for part in selector.split(",") if part)
    return {match[1]: match[2] for match in found if match}


def _requirement_holds(requirement: str, labels: Mapping[str, str]) -> bool:
    if found := re.fullmatch(r"(\S+)\s+(in|notin)\s*\((.*)\)", requirement):
        key, word, values = found.groups()
        return (labels.get(key) in [value.strip() for value in values.split(",")]) == (word == "in")
    if found := re.fullmatch(r"([^\s=!]+)\s*(==|=|!=)\s*(.*)", requirement):
        key, sign, value = found.groups()
        return (labels.get(key) == value) == (sign != "!=")
    if requirement.startswith("!"):
        return requirement[1:].strip() not in labels
    return requirement in labels


def check_selector(text: str) -> str:
    """Return a label selector unchanged. The API server has the last word; this catches slips at collection.

    Raises:
        ValueError: It has no requirement, or one that is malformed.
    """
    if len(text) > _LONGEST_SELECTOR:
        raise ValueError(f"a selector of more than {_LONGEST_SELECTOR} characters")
    for requirement in _COMMA_OUTSIDE_PARENTHESES.split(text):
        if not _REQUIREMENT.fullmatch(requirement.strip()):
            raise ValueError(
                f"{_short(requirement.strip())} is no label requirement; write app=web, tier!=cache,"
                " env in (test,live) or !canary"
            )
    return text


def check_cron(text: str) -> str:
    """Return a cron schedule unchanged, in the five fields that Kubernetes' CronJob takes.

    Raises:
        ValueError: It is not one.
    """
    parts = text.split()
    if len(parts) != _CRON_FIELDS or not all(_CRON_FIELD.fullmatch(part) for part in parts):
        raise ValueError(f'{_short(text)} is no cron schedule; write five fields, such as "0 4 * * 1"')
    return text


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean `x`?`` for the nearest known word, or nothing when none is near."""
    candidates = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), candidates, n=1, cutoff=0.6)
    return f"; did you mean `{candidates[close[0]]}`?" if close else ""


def references(text: str) -> list[str]:
    """Return the paths inside of ``${…}``, in order: ``env.HOME``, ``matrix.k8s``."""
    return [found[2] for found in _REFERENCE.finditer(text) if found[2] is not None]


def substitute(
    text: str, *, environ: Mapping[str, str], matrix: Mapping[str, MatrixValue], problems: list[str]
) -> MatrixValue:
    """Replace every ``${env.X}`` and ``${matrix.x}``; ``$${`` becomes a literal ``${``.

    A text that is one single matrix reference takes that value with its type. What cannot be resolved stays
    as it is, and is described in ``problems``. Substituted text is not looked at again.
    """
    only = _REFERENCE.fullmatch(text)
    if only and only[2] is not None and only[3]:
        return _resolve(only, environ, matrix, problems)
    return _REFERENCE.sub(lambda found: str(_resolve(found, environ, matrix, problems)), text)


def expand_matrix(matrix: Mapping[str, Sequence[MatrixValue]]) -> list[dict[str, MatrixValue]]:
    """Return every combination, the last key turning fastest; one empty combination for an empty matrix.

    Raises:
        ValueError: A list is empty or holds a value twice, a value cannot be part of a drill's id, or there
            are more than 64 combinations.
    """
    total = 1
    for key, values in matrix.items():
        if not _MATRIX_KEY.fullmatch(key):
            raise ValueError(f"{_short(key)} cannot be referred to: use letters, digits and `_`")
        texts = [_matrix_text(value) for value in values]
        if not texts:
            raise ValueError(f"`{key}` has no values")
        for text in texts:
            if not _MATRIX_TEXT.fullmatch(text):
                raise ValueError(
                    f"{_short(text)} of `{key}` cannot be part of a drill's id: use A-Z a-z 0-9 . _ + : / @ -"
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
    return f"{name}[{','.join(f'{key}={_matrix_text(value)}' for key, value in combination.items())}]"


def _matrix_text(value: MatrixValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _resolve(
    found: re.Match[str],
    environ: Mapping[str, str],
    matrix: Mapping[str, MatrixValue],
    problems: list[str],
) -> MatrixValue:
    if found[2] is None:
        return "${"
    written, path = found.group(), found[2]
    if not found[3]:
        problems.append(f"`{written[:40]}` has no closing brace; write $${{ for a literal ${{")
        return written
    scope, _, key = path.partition(".")
    known: Mapping[str, MatrixValue] = {"env": environ, "matrix": matrix}.get(scope, {})
    if key and key in known:
        value = known[key]
        return value if isinstance(value, str) or found.group() == found.string else _matrix_text(value)
    problems.append(_unknown_reference(written, scope, key, environ, matrix))
    return written


def _unknown_reference(
    written: str, scope: str, key: str, environ: Mapping[str, str], matrix: Mapping[str, MatrixValue]
) -> str:
    match scope:
        case "env" if key:
            return f"`{written}`: the environment has no variable {key}{did_you_mean(key, environ)}"
        case "matrix" if key:
            return f"`{written}`: spec.matrix has no `{key}`{did_you_mean(key, matrix)}"
        case "steps":
            return f"`{written}`: steps have no outputs; only ${{env.NAME}} and ${{matrix.name}} are known"
        case "env" | "matrix":
            return f"`{written}` names nothing; write ${{{scope}.name}}"
    known = [*(f"env.{name}" for name in environ), *(f"matrix.{name}" for name in matrix)]
    near = did_you_mean(f"{scope}.{key}", known)
    known_scopes = "; only ${env.NAME} and ${matrix.name} are known, and $${ is a literal ${"
    return f"`{written}` is unknown{near or known_scopes}"


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")  # noqa: PLR2004 - what fits a line

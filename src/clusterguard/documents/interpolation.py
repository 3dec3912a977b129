"""``${env.NAME}`` and ``${matrix.name}`` in the texts of a document. Pure text in, values out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeAlias

from clusterguard.documents.values import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Value", "references", "substitute", "value_text"]

Value: TypeAlias = str | int | bool
"""What a reference may stand for."""

_REFERENCE = re.compile(r"\$(\$\{|\{([^{}]*)(\}?))")


def references(text: str) -> list[str]:
    """Return the paths inside of ``${…}``, in order: ``env.HOME``, ``matrix.k8s``."""
    return [found[2] for found in _REFERENCE.finditer(text) if found[2] is not None]


def substitute(
    text: str, *, environ: Mapping[str, str], matrix: Mapping[str, Value] | None = None, problems: list[str]
) -> Value:
    """Replace every ``${env.X}`` and ``${matrix.x}``; ``$${`` becomes a literal ``${``.

    In a document that has no matrix at all (None) only the environment is known. A text that is one single matrix
    reference takes that value with its type. What cannot be resolved stays as it is, and is described in ``problems``.
    Substituted text is not looked at again.
    """
    only = _REFERENCE.fullmatch(text)
    if only and only[2] is not None and only[3]:
        return _resolve(only, environ, matrix, problems)
    return _REFERENCE.sub(lambda found: str(_resolve(found, environ, matrix, problems)), text)


def value_text(value: Value) -> str:
    """Write a value as YAML has it: ``true``, not ``True``."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _resolve(
    found: re.Match[str],
    environ: Mapping[str, str],
    matrix: Mapping[str, Value] | None,
    problems: list[str],
) -> Value:
    if found[2] is None:
        return "${"
    written, path = found.group(), found[2]
    if not found[3]:
        problems.append(f"`{written[:40]}` has no closing brace; write $${{ for a literal ${{")
        return written
    scope, _, key = path.partition(".")
    known: Mapping[str, Value] = {"env": environ, "matrix": matrix or {}}.get(scope, {})
    if key and key in known:
        value = known[key]
        return value if isinstance(value, str) or found.group() == found.string else value_text(value)
    problems.append(_unknown_reference(written, scope, key, environ, matrix))
    return written


def _unknown_reference(
    written: str, scope: str, key: str, environ: Mapping[str, str], matrix: Mapping[str, Value] | None
) -> str:
    has_matrix = matrix is not None
    matrix = matrix or {}
    known_scopes = "only ${env.NAME} and ${matrix.name} are known" if has_matrix else "only ${env.NAME} is known"
    match scope:
        case "env" if key:
            return f"`{written}`: the environment has no variable {key}{did_you_mean(key, environ)}"
        case "matrix" if key and has_matrix:
            return f"`{written}`: spec.matrix has no `{key}`{did_you_mean(key, matrix)}"
        case "steps" if has_matrix:
            return f"`{written}`: steps have no outputs; {known_scopes}"
        case "env" | "matrix" if scope == "env" or has_matrix:
            return f"`{written}` names nothing; write ${{{scope}.name}}"
    known = [*(f"env.{name}" for name in environ), *(f"matrix.{name}" for name in matrix)]
    near = did_you_mean(f"{scope}.{key}", known)
    return f"`{written}` is unknown{near or f'; {known_scopes}, and $${{ is a literal ${{'}"

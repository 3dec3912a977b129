"""What a validation found: data until somebody asks for an exception."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from clusterguard.errors import RestoreValidationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from clusterguard.model.inventory import ObjectRef

__all__ = ["FieldChange", "Finding", "FindingKind", "Suppression", "ValidationReport"]

_LONGEST_VALUE = 300  # characters of one value in the text form; the data form has all of it
_MOST_LINES = 40  # of the diff of one text value


class FindingKind(StrEnum):
    """What is wrong with one object."""

    MISSING = "missing"
    CHANGED = "changed"
    EXTRA = "extra"
    NOT_READY = "not ready"
    UNKNOWN = "unknown"  # it could not be looked at; this is never "fine"


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChange:
    """One field that differs.

    Attributes:
        path: Such as ``spec.template.spec.containers[name=web].image``.
        before: The value at capture, as compact JSON, or None where the field was absent.
        after: The value now, likewise. Values of Secrets appear as digests only.
    """

    path: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One object that is not as it was."""

    kind: FindingKind
    ref: ObjectRef
    changes: tuple[FieldChange, ...] = ()
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression:
    """One difference that a named rule explains: counted and listable, never dropped silently."""

    rule: str
    ref: ObjectRef
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationReport:
    """The outcome of comparing a cluster with an inventory.

    Attributes:
        compared: Objects of the inventory that were looked for.
        findings: What is wrong, in the order of their references.
        tolerated: Findings of a kind that the caller allows (by default: extra objects); shown, not counted.
        suppressed: Differences that volatile-field rules explain.
    """

    compared: int
    findings: Sequence[Finding] = ()
    tolerated: Sequence[Finding] = ()
    suppressed: Sequence[Suppression] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong and something was compared: an empty comparison proves nothing."""
        return not self.findings and self.compared > 0

    @property
    def suppressed_by_rule(self) -> Mapping[str, int]:
        """How many differences each rule explains, most first."""
        return dict(Counter(suppression.rule for suppression in self.suppressed).most_common())

    def raise_for_findings(self) -> None:
        """Turn findings into an exception.

        Raises:
            RestoreValidationError: There are findings, or nothing was compared.
        """
        if not self.ok:
            raise RestoreValidationError(self)

    def summary(self) -> str:
        """Return the verdict in one line."""
        objects = _count(self.compared, "object")
        if not self.compared:
            return "nothing was compared, so nothing is proven"
        if not self.findings:
            return f"{objects} compared, no findings"
        kinds = Counter(finding.kind for finding in self.findings)
        parts = ", ".join(f"{kinds[kind]} {kind}" for kind in FindingKind if kinds[kind])
        return f"{objects} compared, {_count(len(self.findings), 'finding')}: {parts}"

    def to_text(self) -> str:
        """Return the report as a readable diff, one block for each object.

        The first characters of a line tell what it is, as in a unified diff: ``---`` and ``+++`` begin an
        object, ``@@`` names a field, ``-`` and ``+`` are its value before and after.
        """
        return "\n".join(self._lines())

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data for JSON."""
        return {
            "ok": self.ok,
            "summary": self.summary(),
            "compared": self.compared,
            "findings": [_as_dict(finding) for finding in self.findings],
            "tolerated": [_as_dict(finding) for finding in self.tolerated],
            "suppressed": [
                {"rule": item.rule, "object": _ref_dict(item.ref), "path": item.path} for item in self.suppressed
            ],
        }

    def _lines(self) -> Iterator[str]:
        yield self.summary()
        for finding in self.findings:
            yield ""
            yield from _block(finding)
        if self.tolerated:
            yield ""
            yield f"tolerated: {len(self.tolerated)}"
            for finding in self.tolerated:
                yield from _block(finding)
        if self.suppressed:
            rules = ", ".join(f"{rule} {count}" for rule, count in self.suppressed_by_rule.items())
            yield ""
            yield f"differences that rules explain: {rules}"


def _block(finding: Finding) -> Iterator[str]:
    mark = "+++" if finding.kind is FindingKind.EXTRA else "---"
    detail = f"  ({finding.detail})" if finding.detail else ""
    yield f"{mark} {finding.kind}: {finding.ref}{detail}"
    for change in finding.changes:
        yield f"@@ {change.path}"
        yield from _change_lines(change)


def _change_lines(change: FieldChange) -> Iterator[str]:
    before, after = _text_lines(change.before), _text_lines(change.after)
    if before is not None and after is not None and max(len(before), len(after)) > 1:
        # Texts of several lines (configuration files, mostly) are read line by line.
        diff = list(difflib.unified_diff(before, after, lineterm="", n=1))[2:]
        lines = [line for line in diff if not line.startswith("@@")]
        yield from (_shortened(line) for line in lines[:_MOST_LINES])
        if len(lines) > _MOST_LINES:
            yield f"  … {len(lines) - _MOST_LINES} more lines"
        return
    if change.before is not None:
        yield _shortened(f"- {change.before}")
    if change.after is not None:
        yield _shortened(f"+ {change.after}")


def _text_lines(value: str | None) -> list[str] | None:
    """Return the lines of a JSON string, or None for any other value."""
    if value is None or not value.startswith('"'):
        return None
    return str(json.loads(value)).split("\n")


def _shortened(line: str) -> str:
    cut = len(line) - _LONGEST_VALUE
    return line if cut <= 0 else f"{line[:_LONGEST_VALUE]}… ({cut} more characters)"


def _as_dict(finding: Finding) -> dict[str, Any]:
    return {
        "kind": str(finding.kind),
        "object": _ref_dict(finding.ref),
        "detail": finding.detail,
        "changes": [
            {"path": change.path, "before": change.before, "after": change.after} for change in finding.changes
        ],
    }


def _ref_dict(ref: ObjectRef) -> dict[str, str]:
    return {"kind": ref.full_kind, "namespace": ref.namespace, "name": ref.name}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

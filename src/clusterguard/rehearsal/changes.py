"""What has changed between a backup and something else: a live cluster, or an inventory."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from clusterguard.errors import ClusterError
from clusterguard.model.inventory import Inventory
from clusterguard.model.report import FindingKind
from clusterguard.validate.rules import ETCD_RESTORE, VELERO_RESTORE
from clusterguard.validate.validator import RestoreValidator, Tolerance, judge

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterguard.clusters.kube import KubeClient
    from clusterguard.model.inventory import ObjectRef
    from clusterguard.model.report import ValidationReport

__all__ = ["Changes", "changes_between", "changes_since"]

_BACKUP: Final = "the backup"
_EVERYTHING_COUNTS: Final = Tolerance(missing=0, changed=0, extra=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """How something else differs from a backup, by the rules that hold for a restore of its kind.

    Attributes:
        before: What is compared with; missing is what only this has.
        after: What is compared; extra is what only this has.
        report: The differences, or None where nobody can tell.
        error: Why nobody can tell.
    """

    before: str
    after: str
    report: ValidationReport | None
    error: str = ""

    @property
    def none(self) -> bool:
        """Whether both were compared, and nothing differs."""
        return self.report is not None and self.report.ok

    @property
    def title(self) -> str:
        """The heading of the section: what is compared with what."""
        return f"changes from {self.before} to {self.after}"

    def to_text(self) -> str:
        """Return the differences as a readable diff."""
        return self.report.to_text() if self.report else f"not compared: {self.error}"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data, for JSON."""
        report = self.report.to_dict() if self.report else None
        return {"before": self.before, "after": self.after, "report": report, "error": self.error}


def changes_between(backup: KubeClient | None, other: Inventory | KubeClient, *, name: str) -> Changes:
    """Compare a backup with something else.

    Args:
        backup: Of the API server that serves the backup; None where none does.
        other: What was captured before, or a cluster as it is now.
        name: What people call it.
    """
    before, after = (name, _BACKUP) if isinstance(other, Inventory) else (_BACKUP, name)
    if backup is None:
        return Changes(before=before, after=after, report=None, error="the backup is not served")
    try:
        expected = other if isinstance(other, Inventory) else RestoreValidator(api=backup).capture()
        actual = backup if isinstance(other, Inventory) else other
        report = RestoreValidator(api=actual).validate(expected, profile=ETCD_RESTORE, tolerate=_EVERYTHING_COUNTS)
    except ClusterError as error:
        return Changes(before=before, after=after, report=None, error=error.message)
    return Changes(before=before, after=after, report=report)


def changes_since(
    backup: Inventory,
    other: Inventory | KubeClient,
    *,
    name: str,
    asked_for: Callable[[ObjectRef], bool] = lambda _: True,
) -> Changes:
    """Compare what a Velero backup holds with something else, by the rules of ``velero-restore``.

    Args:
        backup: What it holds of the scope of the other, or of everything.
        other: What was captured before, or a cluster as it is now.
        name: What people call it.
        asked_for: Whether the backup was to have an object of the cluster: what it was not to have is nothing new.
    """
    try:
        if isinstance(other, Inventory):
            digest_key = secrets.token_bytes(32)
            report = judge(other, backup, profile=VELERO_RESTORE, tolerate=_EVERYTHING_COUNTS, digest_key=digest_key)
            return Changes(before=name, after=_BACKUP, report=report)
        report = RestoreValidator(api=other).validate(backup, profile=VELERO_RESTORE, tolerate=_EVERYTHING_COUNTS)
        findings = tuple(each for each in report.findings if each.kind is not FindingKind.EXTRA or asked_for(each.ref))
    except ClusterError as error:
        return Changes(before=_BACKUP, after=name, report=None, error=error.message)
    return Changes(before=_BACKUP, after=name, report=replace(report, findings=findings))

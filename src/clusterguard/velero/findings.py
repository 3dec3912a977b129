"""What can speak against a backup or a restore, by name."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clusterguard.model.inventory import ObjectRef

__all__ = ["DEFAULT_TOLERATED", "EXPECTED", "EXPLAINED", "OutcomeFinding", "Rule"]


class Rule(StrEnum):
    """The names of findings."""

    NOT_FINAL = "not-final"
    FAILED = "failed"
    PARTIALLY_FAILED = "partially-failed"
    UNKNOWN_PHASE = "unknown-phase"
    VALIDATION = "validation"
    LOCATION_UNAVAILABLE = "location-unavailable"
    ERROR = "error"
    WARNING = "warning"
    EXISTS_DIFFERENT = "exists-different"
    ROOT_CA_EXISTS = "root-ca-exists"
    SERVER_NOT_DEPLOYED = "server-not-deployed"
    ITEM_FAILED = "item-failed"
    EXISTS_SAME = "exists-same"
    SYSTEM_OWNED = "system-owned"
    API_UNAVAILABLE = "api-unavailable"
    NOTHING_BACKED_UP = "nothing-backed-up"
    FILTER_MATCHES_NOTHING = "filter-matches-nothing"
    LEFT_OUT_BY_FILTER = "left-out-by-filter"
    NAMESPACE_LEFT_OUT = "namespace-left-out"
    DEFINITION_LEFT_OUT = "definition-left-out"
    KIND_UNDISCOVERED = "kind-undiscovered"
    NOTHING_RESTORED = "nothing-restored"
    JOB_RUNS_AGAIN = "job-runs-again"
    JOB_RUNS_TWICE = "job-runs-twice"
    JOB_WITHOUT_OWNER = "job-without-owner"
    ITEMS_LEFT_OUT = "items-left-out"
    HOOK_FAILED = "hook-failed"
    OPERATION_FAILED = "operation-failed"
    VOLUME_FAILED = "volume-failed"
    VOLUME_UNFINISHED = "volume-unfinished"
    VOLUME_LEFT_OUT = "volume-left-out"
    SNAPSHOT_WITHOUT_CONTENT = "snapshot-without-content"
    SNAPSHOT_NOT_MOVED = "snapshot-not-moved"
    SNAPSHOT_NOT_READY = "snapshot-not-ready"
    CLAIM_UNBOUND = "claim-unbound"
    CLAIM_UNUSED = "claim-unused"
    NOT_KEPT = "not-kept"
    EVIDENCE_MISSING = "evidence-missing"


EXPLAINED: Mapping[Rule, str] = {
    Rule.ROOT_CA_EXISTS: "every namespace has its own kube-root-ca.crt, with the certificate of its own cluster",
    Rule.EXISTS_SAME: "Velero calls it different, and nothing differs but what every write of it changes",
    Rule.SYSTEM_OWNED: "something in the cluster makes it by itself, and keeps it as it wants it",
    Rule.LEFT_OUT_BY_FILTER: "as its filters say",
    Rule.SNAPSHOT_NOT_MOVED: "another cluster restores it only where its storage knows the snapshot",
    Rule.SERVER_NOT_DEPLOYED: "Velero runs outside of the cluster, so it has no Deployment to take settings from",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeFinding:
    """One thing that is not as it should be.

    Attributes:
        rule: What kind of thing.
        detail: What was seen, in Velero's words where there are any.
        ref: The object, where it is known.
        count: How often Velero said it.
    """

    rule: Rule
    detail: str
    ref: ObjectRef | None = None
    count: int = 1

    def __str__(self) -> str:
        about = f"{self.ref}: {self.detail}" if self.ref else self.detail
        return f"{self.rule}: {about}" + (f" ({self.count} times)" if self.count > 1 else "")

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data for JSON."""
        ref = self.ref
        named = {"kind": ref.full_kind, "namespace": ref.namespace, "name": ref.name} if ref else None
        return {"rule": str(self.rule), "detail": self.detail, "object": named, "count": self.count}


DEFAULT_TOLERATED: Final = frozenset(
    {Rule.ROOT_CA_EXISTS, Rule.SYSTEM_OWNED, Rule.LEFT_OUT_BY_FILTER, Rule.SNAPSHOT_NOT_MOVED}
)
"""What is expected of every restore into a new namespace or cluster, and of every backup of chosen objects or by
snapshots."""

EXPECTED: Final[Mapping[str, frozenset[Rule]]] = {
    "PartiallyFailed": frozenset({Rule.PARTIALLY_FAILED, Rule.ERROR}),
    "Failed": frozenset({Rule.FAILED, Rule.ERROR}),
    "FailedValidation": frozenset({Rule.FAILED, Rule.VALIDATION, Rule.LOCATION_UNAVAILABLE}),
}
"""What a phase itself says: no surprise to whoever expects a backup or a restore to end so."""

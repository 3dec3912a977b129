"""`RestoreValidator`: takes an inventory before, and proves after that everything in it is back."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from clusterguard.model.inventory import ObjectRef, Scope
from clusterguard.model.progress import ProgressSink, ignore_progress
from clusterguard.model.report import Finding, FindingKind, Suppression, ValidationReport
from clusterguard.validate.capture import capture
from clusterguard.validate.compare import compare
from clusterguard.validate.readiness import wait_ready
from clusterguard.validate.rules import ETCD_RESTORE, Profile, adjusted, profile_named

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from clusterguard.clusters.kube import KubeClient
    from clusterguard.model.inventory import Inventory
    from clusterguard.validate.readiness import CountRule, ReadyEvidence, Selection
    from clusterguard.validate.rules import Identity

__all__ = ["RestoreValidator", "Tolerance"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How many findings of a kind are no fault; None stands for any number.

    When there are more than that, all of them count. What could not be looked at is never tolerated.
    """

    missing: int | None = 0
    changed: int | None = 0
    extra: int | None = None

    def allows(self, kind: FindingKind, number: int) -> bool:
        """Return whether that many findings of a kind are allowed."""
        limits = {
            FindingKind.MISSING: self.missing,
            FindingKind.CHANGED: self.changed,
            FindingKind.EXTRA: self.extra,
        }
        limit = limits.get(kind, 0)
        return limit is None or number <= limit


class RestoreValidator:
    """Compares a cluster with what was in it."""

    def __init__(
        self,
        *,
        api: KubeClient,
        digest_key: bytes | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,  # noqa: TID251 - the real one; tests pass their own
    ) -> None:
        self._api = api
        # Values of Secrets are told as digests under it; it is forgotten with this object.
        self._digest_key = digest_key if digest_key is not None else secrets.token_bytes(32)
        self._clock = clock
        self._sleep = sleep

    def capture(
        self,
        scope: Scope = Scope(),  # noqa: B008 - immutable
        *,
        progress: ProgressSink = ignore_progress,
    ) -> Inventory:
        """Take an inventory of a scope; by default of everything that is not system-owned.

        Raises:
            ResourceNotFoundError: The scope names a kind that the cluster does not have.
            ClusterUnreachableError: The API server does not answer.
            ClusterError: It refuses us.
        """
        return capture(self._api, scope, progress=progress)

    def validate(
        self,
        inventory: Inventory,
        *,
        profile: str | Profile = ETCD_RESTORE,
        identity: Identity | None = None,
        ignore: Sequence[str] = (),
        without: Sequence[str] = (),
        tolerate: Tolerance = Tolerance(),
        progress: ProgressSink = ignore_progress,
    ) -> ValidationReport:
        """Compare the cluster as it is now with an inventory, object by object and field by field.

        Args:
            inventory: What must be there.
            profile: What may differ: ``etcd-restore``, ``velero-restore``, ``same-cluster``, or one's own.
            identity: ``uid`` for the very same objects, ``name`` for objects of the same names; by default as
                the profile says.
            ignore: Field paths not to care for: ``spec.replicas``, ``Deployment.apps:spec.replicas``.
            without: Rules of the profile that are switched off, by name: what they explain counts.
            tolerate: How many findings are no fault.
            progress: Who is told how far it got.

        Raises:
            ConfigError: The profile or one of its rules is unknown, or a path cannot be read.
            ClusterUnreachableError: The API server does not answer.
            ClusterError: It refuses us.
        """
        if isinstance(profile, str):
            rules = profile_named(profile, identity=identity, ignore=ignore, without=without)
        else:
            rules = adjusted(profile, identity=identity, ignore=ignore, without=without)
        now = capture(
            self._api,
            inventory.scope,
            progress=progress,
            versions=_versions(inventory.objects),
            keep=inventory.objects.keys(),
            absent_kinds_ok=True,
        )
        return judge(inventory, now, profile=rules, tolerate=tolerate, digest_key=self._digest_key)

    def wait_ready(
        self,
        selection: Selection,
        *,
        timeout_seconds: float,
        count: int | CountRule | None = None,
        stable_seconds: float = 0,
        fresh_since: datetime | None = None,
    ) -> ReadyEvidence:
        """Wait until the selected objects are ready with fresh status, and stay so.

        See `clusterguard.validate.readiness.wait_ready`.

        Raises:
            WaitTimeoutError: They were not ready in time; it tells which, and why.
        """
        return wait_ready(
            self._api,
            selection,
            timeout_seconds=timeout_seconds,
            count=count,
            stable_seconds=stable_seconds,
            fresh_since=fresh_since,
            clock=self._clock,
            sleep=self._sleep,
        )


def judge(
    before: Inventory,
    after: Inventory,
    *,
    profile: Profile,
    tolerate: Tolerance,
    digest_key: bytes,
) -> ValidationReport:
    """Compare two inventories of the same scope.

    Kinds that could not be listed are unknown: their objects are neither missing nor fine.
    """
    known = {ref: data for ref, data in before.objects.items() if ref.full_kind not in after.skipped}
    seen = {ref: data for ref, data in after.objects.items() if ref.full_kind not in before.skipped}
    comparison = compare(
        known,
        seen,
        profile=profile,
        digest_key=digest_key,
        system=(before.system, after.system),
        plain_status=before.plain_status | after.plain_status,
        same_version=before.server_version == after.server_version,
    )
    findings = [*_unknown(before, "at capture"), *_unknown(after, "now"), *_unseen(before, seen), *comparison.findings]
    counted, tolerated = _weigh(findings, tolerate)
    return ValidationReport(
        compared=len(known),
        findings=tuple(sorted(counted, key=_order)),
        tolerated=tuple(sorted(tolerated, key=_order)),
        suppressed=(*comparison.suppressed, *_nothing_to_compare(before, after)),
    )


def _versions(objects: Mapping[ObjectRef, bytes]) -> dict[str, str]:
    one_of_each = {ref.full_kind: data for ref, data in objects.items()}
    return {kind: str(orjson.loads(data)["apiVersion"]) for kind, data in one_of_each.items()}


def _unknown(inventory: Inventory, when: str) -> Iterator[Finding]:
    for full_kind, reason in inventory.skipped.items():
        kind, _, group = full_kind.partition(".")
        yield Finding(
            kind=FindingKind.UNKNOWN,
            ref=ObjectRef(kind, "", "*", group),
            detail=f"could not be listed {when}: {reason}",
        )


def _unseen(before: Inventory, seen: Mapping[ObjectRef, bytes]) -> Iterator[Finding]:
    """Yield the kinds that did not answer at capture, and turn out to have objects."""
    groups = {version.rpartition("/")[0] for version in before.unanswered}
    found: dict[ObjectRef, str] = {}
    for ref, data in seen.items():
        if ref.group in groups and ref not in before.objects:
            version = str(orjson.loads(data)["apiVersion"])
            reason = before.unanswered.get(version) or before.unanswered.get(f"{ref.group}/*")
            if reason:  # else another version of the group was served and listed
                found[ObjectRef(ref.kind, "", "*", ref.group)] = reason
    for kind, reason in found.items():
        yield Finding(kind=FindingKind.UNKNOWN, ref=kind, detail=f"could not be listed at capture: {reason}")


def _nothing_to_compare(before: Inventory, after: Inventory) -> Iterator[Suppression]:
    for version in sorted({*before.unanswered, *after.unanswered}):
        group = version.rpartition("/")[0]
        yield Suppression(rule=UNANSWERED, ref=ObjectRef("*", "", "*", group), path=version)


UNANSWERED = "API that does not answer"
"""Nothing of it was in the inventory, so there is nothing of it to be missing."""


def _weigh(findings: Iterable[Finding], tolerate: Tolerance) -> tuple[list[Finding], list[Finding]]:
    by_kind: dict[FindingKind, list[Finding]] = {}
    for finding in findings:
        by_kind.setdefault(finding.kind, []).append(finding)
    counted: list[Finding] = []
    tolerated: list[Finding] = []
    for kind, found in by_kind.items():
        (tolerated if tolerate.allows(kind, len(found)) else counted).extend(found)
    return counted, tolerated


def _order(finding: Finding) -> tuple[ObjectRef, FindingKind, str]:
    return finding.ref, finding.kind, finding.detail

"""What differs between two snapshots, by the rules that judge a restored cluster."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from clusterguard.model.inventory import Scope
from clusterguard.snapshots.inventory import kinds_in, ref_of_key, snapshot_inventory
from clusterguard.validate.capture import belongs_to
from clusterguard.validate.rules import profile_named
from clusterguard.validate.validator import Tolerance, judge

if TYPE_CHECKING:
    from clusterguard.model.report import ValidationReport
    from clusterguard.snapshots.reader import SnapshotReader

__all__ = ["compare_snapshots"]

_UNKNOWN: Final = datetime.fromtimestamp(0, UTC)


def compare_snapshots(
    before: SnapshotReader,
    after: SnapshotReader,
    scope: Scope = Scope(),  # noqa: B008 - immutable
    *,
    profile: str = "etcd-restore",
) -> ValidationReport:
    """Compare two snapshots, object by object and field by field; what only one of them has counts, too.

    Bytes are compared first: only objects that are not stored alike are decoded.

    Args:
        before: The older one.
        after: The newer one.
        scope: Which objects.
        profile: Which differences are explained, as of `RestoreValidator.validate`.

    Raises:
        ConfigError: The profile is unknown, or the selector is not valid.
        SnapshotCorruptError: A page of one is broken.
    """
    changed = before.differing_keys(after)
    report = judge(
        snapshot_inventory(before, scope, taken=_UNKNOWN, only=changed),
        snapshot_inventory(after, scope, taken=_UNKNOWN, only=changed),
        profile=profile_named(profile),
        tolerate=Tolerance(extra=0),
        digest_key=secrets.token_bytes(32),
    )
    return replace(report, compared=_in_scope(before, scope))


def _in_scope(reader: SnapshotReader, scope: Scope) -> int:
    """Return how many objects of a scope a snapshot holds; their labels are looked at only where it asks for some."""
    if scope.selector:
        return len(snapshot_inventory(reader, scope, taken=_UNKNOWN).objects)
    if not scope.kinds and not scope.namespaces and not scope.exclude:
        return sum(kind.objects for kind in reader.contents().kinds)
    kinds = kinds_in(reader)
    return sum(belongs_to(ref_of_key(key, kinds), scope) for key in reader.keys(""))

"""What differs between two snapshots, by the rules that judge a restored cluster."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from clusterguard.model.inventory import Scope
from clusterguard.snapshots.inventory import snapshot_inventory
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
    objects = sum(kind.objects for kind in before.contents().kinds)
    return replace(report, compared=objects)

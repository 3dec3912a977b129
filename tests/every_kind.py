"""What RestoreValidator must say of every kind after each way back, be it observed once or today."""

from __future__ import annotations

import what_comes_back as observed

from clusterguard.validate import PROFILES

PROFILE = {
    "velero-in-place": PROFILES["velero-restore"],
    "velero-new-cluster": PROFILES["velero-restore"],
    "etcd": PROFILES["etcd-restore"],
}


def verdict(seen, way):
    """Return the findings on the objects that were filled in, and on what controllers made of them."""
    report = observed.compared(seen, way, profile=PROFILE[way])
    return {(str(found.ref), change) for found in report.findings for change in changes_of(found)}


def changes_of(found):
    return {change.path for change in found.changes} or {str(found.kind)}


def expected(way):
    """Return what is lost, as decided by hand, whatever the rules say."""
    return {
        (name, field)
        for loss in losses(way)
        if "explained" not in loss
        for name in loss["objects"]
        for field in loss.get("fields", ["missing"])
    }


def losses(way):
    return [loss for loss in observed.losses() if way in loss["ways"]]


def unseen_defects(seen):
    """Return the objects whose defect, put in after the restore in place, is not told."""
    report = observed.compared(seen, observed.DEFECTS, profile=PROFILE["velero-in-place"])
    told = {(str(found.ref), change) for found in report.findings for change in changes_of(found)}
    return seen.facts["defects"].keys() - {ref for ref, _ in told - verdict(seen, "velero-in-place")}

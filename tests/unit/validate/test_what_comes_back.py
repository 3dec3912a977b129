"""Every kind after each way back, as it was observed once with the real programs: the page, and what is said of it."""

from dataclasses import replace

import orjson
import pytest
import what_comes_back as observed

import every_kind
from clusterguard.validate import Tolerance
from clusterguard.validate.paths import Element, parse_pattern
from clusterguard.validate.rules import RuleIndex
from clusterguard.validate.validator import judge
from every_kind import PROFILE

SEEN = observed.Observations.load(observed.CORPUS)
BEFORE = SEEN.inventories[observed.BEFORE]
KINDS = sorted({ref.full_kind for ref in observed.filled_in(SEEN)})


def test_the_page_is_what_was_observed():
    assert observed.PAGE.read_text(encoding="utf-8") == observed.page(SEEN)


def test_every_kind_that_the_api_server_stores_is_filled_in():
    assert {kind for kind in KINDS if not kind.endswith(".every-kind.example.com")} == {
        kind for kind in SEEN.facts["stored"] if not kind.endswith((".velero.io", ".every-kind.example.com"))
    }
    assert len(observed.filled_in(SEEN)) >= len(observed.manifests())


def test_the_observations_are_small():
    assert sum(file.stat().st_size for file in observed.CORPUS.iterdir()) < 500_000


@pytest.mark.parametrize("way", observed.WAYS)
def test_what_is_lost_is_told_and_nothing_else(way):
    assert every_kind.verdict(SEEN, way) == every_kind.expected(way)


@pytest.mark.parametrize("way", observed.WAYS)
def test_what_differs_is_told_or_explained(way):
    report = observed.compared(SEEN, way, profile=PROFILE[way])
    known = every_kind.verdict(SEEN, way) | {(str(each.ref), each.path) for each in report.suppressed}
    bare = observed.compared(SEEN, way, profile=observed._NO_RULES)
    differences = {(str(found.ref), change) for found in bare.findings for change in every_kind.changes_of(found)}
    assert len(differences) > len(every_kind.expected(way)) or way == "etcd"
    hidden = [
        (ref, path)
        for ref, path in differences - known
        if not any(ref == other and path.startswith((f"{above}.", f"{above}[")) for other, above in known)
    ]
    assert [(ref, path) for ref, path in hidden if path != "missing"] == []
    away = {ref for ref, path in hidden if path == "missing"}
    finished = {str(each.ref) for each in report.suppressed if each.rule == "finished work"}
    assert away == finished
    excused = [loss for loss in every_kind.losses(way) if loss.get("explained") == "finished work"]
    assert {name for loss in excused for name in loss["objects"]} <= away


def test_each_object_was_given_a_defect_that_is_told():
    assert every_kind.unseen_defects(SEEN) == set()
    back = {str(ref) for ref in observed.filled_in(SEEN) if ref in SEEN.inventories["velero-in-place"].objects}
    assert SEEN.facts["defects"].keys() == back


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_is_removed_after_a_restore_is_missed(kind):
    for way in observed.WAYS:
        after = SEEN.inventories[way]
        back = {ref for ref in after.objects if ref.full_kind == kind}
        rest = replace(after, objects={ref: data for ref, data in after.objects.items() if ref not in back})
        report = judge(BEFORE, rest, profile=PROFILE[way], tolerate=Tolerance(), digest_key=b"k")
        missed = {found.ref for found in report.findings if found.kind == "missing"}
        assert back & BEFORE.objects.keys() <= missed


# ---- every field -----------------------------------------------------------------------------------------

# What another object of that name may have another value in, and what may be different in any object.
ANEW = {
    *("metadata.creationTimestamp", "metadata.generation", "metadata.resourceVersion"),
    *("metadata.labels.velero.io/backup-name", "metadata.labels.velero.io/restore-name"),
}
MAY_DIFFER = {
    "CertificateSigningRequest.certificates.k8s.io": {
        *("spec.username", "spec.groups", "spec.extra.authentication.kubernetes.io/credential-id"),
    },
    "DaemonSet.apps": {"metadata.annotations.deprecated.daemonset.template.generation"},
    "Deployment.apps": {"metadata.annotations.deployment.kubernetes.io/revision"},
    "Job.batch": {
        "spec.selector.matchLabels.batch.kubernetes.io/controller-uid",
        "spec.template.metadata.labels.batch.kubernetes.io/controller-uid",
        "spec.template.metadata.labels.controller-uid",
    },
    "Lease.coordination.k8s.io": {"spec.renewTime"},
    # Each object is compared alone, so nobody can tell whether a uid is that of its claim, owner or account.
    "PersistentVolume": {"spec.claimRef.resourceVersion", "spec.claimRef.uid", "spec.csi.volumeHandle"},
    "PersistentVolumeClaim": {"metadata.annotations.pv.kubernetes.io/bind-completed"},
    "Pod": {"metadata.ownerReferences.[].uid", "spec.nodeName"},
    "ReplicaSet.apps": {"metadata.annotations.deployment.kubernetes.io/revision", "metadata.ownerReferences.[].uid"},
    "Secret": {"data.ca.crt", "data.token", "metadata.annotations.kubernetes.io/service-account.uid"},
    "Service": {"spec.clusterIP", "spec.healthCheckNodePort", "spec.ports.[].nodePort"},
}
MAY_MOVE = {  # even in the very same object
    "Gauge.every-kind.example.com": {"metadata.generation"},
    "Lease.coordination.k8s.io": {"spec.renewTime"},
    "Node": {"metadata.annotations.node.alpha.kubernetes.io/ttl"},
}
NAMES = {("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace"), ("metadata", "uid")}


def unseen(way):
    """Return kind and field of each change of one field, after a restore, that nobody is told of."""
    after = SEEN.inventories[way]
    found = set()
    for ref in BEFORE.objects.keys() & after.objects.keys():
        item = orjson.loads(after.objects[ref])
        baseline = told(way, ref, item)
        for path, value in observed.leaves(item):
            if path in NAMES or path[0] == "status":
                continue
            field = ".".join("[]" if isinstance(step, int) else step for step in path)
            for other in (observed.another(value), observed.GONE):
                if told(way, ref, observed.changed(item, path, other)) == baseline:
                    found.add((ref.full_kind, field))
    return found


def told(way, ref, item):
    """Return what is told of one object alone."""
    objects = {ref: orjson.dumps(item, option=orjson.OPT_SORT_KEYS)}
    before = replace(BEFORE, objects={ref: BEFORE.objects[ref]}, system={})
    after = replace(SEEN.inventories[way], objects=objects, system={})
    report = judge(before, after, profile=PROFILE[way], tolerate=Tolerance(), digest_key=b"k")
    return {change for found in report.findings for change in found.changes}


@pytest.mark.parametrize("way", observed.WAYS)
def test_each_changed_field_is_seen(way):
    allowed = MAY_MOVE if way == "etcd" else MAY_DIFFER
    anew = set() if way == "etcd" else ANEW
    assert {each for each in unseen(way) if each[1] not in anew} <= {
        (kind, field) for kind, fields in allowed.items() for field in fields
    }


def paths_of(value, path=()):
    """Yield the path of each field, as comparisons walk them."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths_of(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            name = inner.get("name") if isinstance(inner, dict) else None
            yield from paths_of(inner, (*path, Element(f"name={name}" if name else str(index))))


def test_the_index_of_rules_finds_all_that_cover_a_field():
    covered = 0
    profile = PROFILE["velero-in-place"]
    for ref, data in BEFORE.objects.items():
        index = RuleIndex(profile, ref.full_kind)
        patterns = [
            (parse_pattern(path), rule)
            for rule in profile.rules
            if rule.applies_to(ref.full_kind)
            for path in rule.paths
        ]
        for path in paths_of(orjson.loads(data)):
            wanted = [rule for pattern, rule in patterns if pattern.covers(path)]
            assert list(index.candidates(path)) == wanted
            covered += bool(wanted)
    assert covered > 500

"""Whose data is in a backup, and why that of the others is not: each reason red and green."""

import pytest
from coverage_objects import (
    CLAIM,
    POD,
    YOUNG,
    claimed,
    etcd,
    files,
    taking,
    thing,
    upload,
    velero,
    with_claims,
)

from clusterguard.coverage.found import InlineVolume, PodUse
from clusterguard.coverage.volumes import NoData, volume_rows

EXCLUDED = {"velero.io/exclude-from-backup": "true"}


def rows(cluster, *sources, **more):
    return volume_rows(cluster, [taking(each, cluster) for each in sources], **more)


def one(cluster, *sources, **more):
    [row] = rows(cluster, *sources, **more)
    return row


def used(**how):
    return {("shop", "data"): (PodUse("db-0", "data", **how),)}


def test_a_copy_of_its_files_that_is_complete_is_data():
    row = one(with_claims(claimed()), velero(transfers=[files()]))
    assert (row.state, row.method, row.by, row.reason) == ("protected", "files", ("schedule nightly",), None)


def test_a_snapshot_whose_data_was_moved_is_data():
    assert one(with_claims(claimed()), velero(transfers=[upload()])).method == "moved"


@pytest.mark.parametrize("phase", ["Failed", "Canceled", "InProgress", "New", "SomethingNew"])
@pytest.mark.parametrize("copy", [files, upload])
def test_a_copy_that_is_not_complete_is_none(copy, phase):
    row = one(with_claims(claimed()), velero(transfers=[copy(phase=phase)], snapshots=(1, 1)))
    assert (row.state, row.reason) == ("unprotected", NoData.FAILED)


def test_a_complete_copy_counts_beside_one_that_failed():
    assert one(with_claims(claimed()), velero(transfers=[files(phase="Failed"), files()])).state == "protected"


@pytest.mark.parametrize(
    ("transfer", "state"),
    [
        (files("shop/db-7:x", claim="data"), "protected"),
        (files("shop/db-7:x", claim="other"), "unprotected"),
        (files("shop/db-7:x", uid="u-1"), "protected"),
        (files("shop/db-0:data", uid="u-2", claim="data"), "unprotected"),
        (files("other/db-0:data", claim="data"), "unprotected"),
        (files("shop/db-7:data"), "unprotected"),
        (upload("other"), "unprotected"),
        (upload(claim="other"), "unprotected"),
    ],
    ids=[
        "claim of another Pod", "another claim", "the same claim", "an earlier claim of that name",
        "another namespace", "another Pod", "moved from elsewhere", "moved from another claim",
    ],
)  # fmt: skip
def test_a_copy_belongs_to_one_claim(transfer, state):
    # The source takes no snapshots, so that nothing but the copy can hold the data.
    assert one(with_claims(claimed()), velero(transfers=[transfer], snapshotVolumes=False)).state == state


@pytest.mark.parametrize(
    ("counts", "claims", "state"),
    [
        ((1, 1), 1, "protected"),
        ((2, 2), 1, "protected"),
        ((0, 0), 1, "unprotected"),
        ((1, 0), 1, "unprotected"),
        ((2, 1), 1, "unprotected"),
        ((1, 1), 2, "unprotected"),
    ],
)
def test_snapshots_in_the_storage_count_when_they_are_complete_and_enough(counts, claims, state):
    cluster = with_claims(*(claimed(f"data-{number}", uid=f"u-{number}") for number in range(claims)))
    found = rows(cluster, velero(snapshots=counts))
    assert {each.state for each in found} == {state}
    assert {each.method for each in found} == {"counted" if state == "protected" else ""}


@pytest.mark.parametrize(
    ("cluster", "spec", "reason"),
    [
        (with_claims(claimed(volume="")), {}, NoData.UNBOUND),
        (with_claims(claimed(source="hostPath")), {"defaultVolumesToFsBackup": True}, NoData.HOST_PATH),
        (with_claims(claimed(), classes=()), {}, NoData.NO_SNAPSHOT_CLASS),
        (with_claims(claimed(), classes=("other.example.com",)), {}, NoData.NO_SNAPSHOT_CLASS),
        (with_claims(claimed()), {"snapshotVolumes": False}, NoData.SNAPSHOTS_OFF),
        (with_claims(claimed(source="local")), {}, NoData.OPT_IN_MISSING),
        (with_claims(claimed(source="nfs")), {"snapshotVolumes": False}, NoData.OPT_IN_MISSING),
        (
            with_claims(claimed(source="local"), uses=used(opted_out=True)),
            {"defaultVolumesToFsBackup": True},
            NoData.EXCLUDED_BY_ANNOTATION,
        ),
        (
            with_claims(claimed(source="local"), uses=used(running=False)),
            {"defaultVolumesToFsBackup": True},
            NoData.NO_RUNNING_POD,
        ),
        (with_claims(claimed(source="local"), uses={}), {"defaultVolumesToFsBackup": True}, NoData.NO_RUNNING_POD),
        (with_claims(claimed(source="local"), uses=used(opted_in=True, running=False)), {}, NoData.NO_RUNNING_POD),
        (with_claims(claimed(source="local"), uses=used(opted_in=True)), {}, NoData.NOT_RECORDED),
        (with_claims(claimed(source="local")), {"defaultVolumesToFsBackup": True}, NoData.NOT_RECORDED),
        (with_claims(claimed()), {"snapshotMoveData": True}, NoData.NOT_RECORDED),
        (with_claims(claimed()), {"resourcePolicy": {"kind": "configmap", "name": "r"}}, NoData.NOT_RECORDED),
        (with_claims(claimed()), {"includedNamespaces": ["other"]}, NoData.CLAIM_LEFT_OUT),
        (with_claims(claimed()), {"excludedResources": ["persistentvolumeclaims"]}, NoData.CLAIM_LEFT_OUT),
    ],
)
def test_why_the_data_of_a_claim_is_in_no_backup(cluster, spec, reason):
    # As many snapshots as anybody could want: none of these may be taken for this claim's.
    row = one(cluster, velero(snapshots=(9, 9), **spec))
    assert row.reason is reason
    assert row.state == ("excused" if reason is NoData.UNBOUND else "unprotected")


def test_files_are_not_snapshots_where_a_pod_opts_in():
    cluster = with_claims(claimed(), uses=used(opted_in=True))
    assert one(cluster, velero(snapshots=(1, 1))).reason is NoData.NOT_RECORDED


def test_a_claim_may_be_kept_out_by_its_label_or_be_too_new():
    for labels, created, reason in ((EXCLUDED, "", NoData.EXCLUDED_BY_LABEL), ({}, YOUNG, NoData.NEWER)):
        cluster = with_claims(claimed(), things={CLAIM: [thing("data", created=created, **labels)]})
        assert one(cluster, velero(snapshots=(1, 1))).reason is reason


def test_a_pod_brings_its_claims_whatever_their_labels():
    spec = {"labelSelector": {"matchLabels": {"app": "db"}}, "snapshots": (1, 1)}
    cluster = with_claims(claimed(), uses=used(labels={"app": "db"}), things={POD: [thing("db-0", app="db")]})
    assert one(cluster, velero(**spec)).state == "protected"
    other = with_claims(claimed(), uses=used(labels={"app": "web"}))
    assert one(other, velero(**spec)).reason is NoData.CLAIM_LEFT_OUT


def test_an_etcd_snapshot_has_no_data_of_volumes():
    assert one(with_claims(claimed()), etcd()).reason is NoData.ETCD_ONLY
    assert one(with_claims(claimed())).reason is NoData.NO_BACKUP


def test_the_most_telling_reason_of_several_sources_is_told():
    cluster = with_claims(claimed(source="hostPath"))
    assert one(cluster, etcd(), velero(), velero(includedNamespaces=["other"])).reason is NoData.HOST_PATH


def test_one_source_with_the_data_is_enough():
    row = one(with_claims(claimed()), etcd(), velero("schedule b", transfers=[upload()]))
    assert (row.state, row.by) == ("protected", ("schedule b",))


def test_an_ignored_namespace_is_told_and_excused():
    row = one(with_claims(claimed()), etcd(), ignored={"shop"})
    assert (row.state, row.reason) == ("excused", NoData.IGNORED)


# ---- volumes without a claim ---------------------------------------------------------------------------------


def inline(source, *, read_only=False, pods=("web-1",)):
    volume = InlineVolume("shop", "Deployment web", "cache", source, pods, read_only)
    return with_claims(inline=(volume,))


@pytest.mark.parametrize(
    ("cluster", "state", "reason"),
    [
        (inline("emptyDir"), "excused", NoData.EMPTY_DIR),
        (inline("csi"), "excused", NoData.EPHEMERAL),
        (inline("hostPath", read_only=True), "excused", NoData.NODE_FILES),
        (inline("hostPath"), "unprotected", NoData.HOST_PATH),
        (inline("nfs"), "unprotected", NoData.OPT_IN_MISSING),
    ],
)
def test_volumes_that_pods_name_themselves(cluster, state, reason):
    row = one(cluster, velero())
    assert (row.name, row.state, row.reason) == ("shop/Deployment web:cache", state, reason)


def test_their_files_count_when_those_of_every_pod_were_copied():
    copied = [files("shop/web-1:cache")]
    assert one(inline("nfs"), velero(transfers=copied)).state == "protected"
    assert one(inline("emptyDir"), velero(transfers=copied)).state == "protected"
    assert one(inline("nfs", pods=("web-1", "web-2")), velero(transfers=copied)).state == "unprotected"
    assert one(inline("nfs"), velero(transfers=[files("shop/web-1:cache", phase="Failed")])).state == "unprotected"


@pytest.mark.parametrize(
    ("phase", "state", "reason"),
    [("Released", "unprotected", NoData.RELEASED), ("Failed", "unprotected", NoData.RELEASED),
     ("Available", "excused", NoData.UNCLAIMED)],
)  # fmt: skip
def test_volumes_that_nobody_claims(phase, state, reason):
    row = one(with_claims(unclaimed={"pv-9": phase}), velero())
    assert (row.name, row.state, row.reason) == ("pv-9", state, reason)


def test_every_reason_has_words():
    assert all(each.words for each in NoData)

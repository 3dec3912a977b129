"""Which volumes a backup or a restore left out: Velero does not tell, so the cluster is asked."""

from dataclasses import replace

import pytest

from clusterguard.errors import ResourceNotFoundError, WaitTimeoutError
from clusterguard.model.inventory import ObjectRef
from clusterguard.velero.claims import ClaimedVolume
from clusterguard.velero.outcome import RestoredItem, Rule, judge_backup, judge_restore
from clusterguard.velero.resources import Backup, DataDownload, DataUpload, PodVolumeBackup, PodVolumeRestore, Restore
from clusterguard.velero.volume_infos import VolumeRecord
from clusterguard.velero.volumes import (
    claims_of,
    require_all_restored,
    require_claims_restored,
    require_every_claim,
    require_every_volume,
)


def pod(name="web-0", namespace="shop", *, claim="data-web-0", phase="Running", mounted=True):
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}] if claim else []
    mounts = [{"name": "data", "mountPath": "/data"}] if mounted else []
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "containers": [{"name": "web", "volumeMounts": mounts}],
            "volumes": [*volumes, {"name": "tmp", "emptyDir": {}}],
        },
        "status": {"phase": phase},
    }


def transfer(kind, pod="web-0", namespace="shop", volume="data"):
    return kind.model_validate({"spec": {"pod": {"namespace": namespace, "name": pod}, "volume": volume}})


class Cluster:
    """Velero's objects, and the cluster they are in."""

    def __init__(self, *, pods=(), saved=(), filled=(), volume=None):
        self.api = self
        self._pods, self._volume = pods, volume
        self._transfers = {PodVolumeBackup: saved, PodVolumeRestore: filled, DataUpload: [], DataDownload: []}

    def resource(self, kind, *, api_version):
        return kind

    def list(self, kind, namespace=None, *, labels=None, label_selector=""):
        if kind in self._transfers:
            assert set(labels.values()) <= {"b", "r"}
            return self._transfers[kind]
        return [each for each in self._pods if namespace in {None, each["metadata"]["namespace"]}]

    def get(self, kind, name, namespace=None):
        if self._volume is None:
            raise ResourceNotFoundError(f"no {kind} {name}")
        return {"spec": {"volumeName": "pv"}} if kind == "PersistentVolumeClaim" else {"spec": self._volume}


def backup(**more):
    return replace(_backup(), **more)


def _backup():
    return judge_backup(
        Backup.model_validate(
            {
                "metadata": {"name": "b"},
                "status": {"phase": "Completed", "progress": {"itemsBackedUp": 1, "totalItems": 1}},
            }
        )
    )


def restore(**spec):
    item = RestoredItem(ref=ObjectRef(kind="Pod", namespace="shop", name="db"), action="created")
    return judge_restore(
        Restore.model_validate(
            {
                "metadata": {"name": "r"},
                "spec": spec,
                "status": {"phase": "Completed", "progress": {"itemsRestored": 1, "totalItems": 1}},
            }
        ),
        items=[item],
    )


def test_a_backup_with_every_volume_is_fine():
    cluster = Cluster(pods=[pod()], saved=[transfer(PodVolumeBackup)])
    assert require_every_volume(backup(), cluster, namespaces=["shop"]).ok


@pytest.mark.parametrize(
    ("volume", "phase", "told"),
    [
        (
            {"hostPath": {"path": "/x"}},
            "Running",
            "PersistentVolume pv is of the type hostPath, which file-system backup",
        ),
        ({"local": {"path": "/x"}}, "Running", "Velero left it out, and does not say why"),
        ({"local": {"path": "/x"}}, "Pending", "its Pod is Pending"),
        (None, "Running", "no PersistentVolumeClaim data-web-0"),
    ],
)
def test_a_volume_that_is_left_out_is_a_finding_with_its_reason(volume, phase, told):
    cluster = Cluster(pods=[pod(phase=phase)], volume=volume)
    outcome = require_every_volume(backup(), cluster, namespaces=["shop"])
    (finding,) = outcome.findings
    assert finding.rule is Rule.VOLUME_LEFT_OUT
    assert finding.detail.startswith("shop/web-0:data: ")
    assert told in finding.detail


def test_volumes_of_other_namespaces_are_not_asked_for():
    cluster = Cluster(pods=[pod(), pod(namespace="other")], saved=[transfer(PodVolumeBackup)])
    assert require_every_volume(backup(), cluster, namespaces=["shop"]).ok
    assert not require_every_volume(backup(), cluster).ok


def test_a_backup_without_any_claim_has_no_data():
    (finding,) = require_every_volume(backup(), Cluster(pods=[pod(claim="")])).findings
    assert "no Pod of the backup uses a PersistentVolumeClaim" in finding.detail


def test_what_no_container_mounts_needs_no_backup():
    assert claims_of(pod(mounted=False)) == {}
    assert claims_of(pod()) == {"data": "data-web-0"}


def test_findings_come_beside_those_that_were_there():
    outcome = backup()
    outcome = require_every_volume(require_every_volume(outcome, Cluster(pods=[pod()])), Cluster(pods=[pod()]))
    assert len(outcome.findings) == 2


def test_a_restore_that_filled_every_volume_is_fine_whatever_the_namespace_is_called_now():
    cluster = Cluster(saved=[transfer(PodVolumeBackup)], filled=[transfer(PodVolumeRestore, namespace="shop-restored")])
    assert require_all_restored(restore(), cluster, backup="b").ok


def test_a_volume_that_was_not_filled_is_a_finding():
    cluster = Cluster(
        saved=[transfer(PodVolumeBackup), transfer(PodVolumeBackup, pod="db-0")], filled=[transfer(PodVolumeRestore)]
    )
    (finding,) = require_all_restored(restore(), cluster, backup="b").findings
    assert (finding.rule, finding.detail.partition(": ")[0]) == (Rule.VOLUME_LEFT_OUT, "shop/db-0:data")


def test_a_backup_without_volume_data_fills_none():
    assert "has no volume data" in require_all_restored(restore(), Cluster(), backup="b").findings[0].detail


# ---- by CSI snapshots ----------------------------------------------------------------------------------------

MOVED = VolumeRecord(volume="shop/data", method="CSISnapshot", moved=True, handle="k1", result="succeeded")
STAYS = VolumeRecord(volume="shop/data", method="CSISnapshot", handle="s1", ready=True)


def claim(**fields):
    fields = {"volume": "pv", "driver": "d", "storage_class": "fast", "pods": ("db",)} | fields
    return ClaimedVolume(namespace="shop", name="data", annotations={}, **fields)


@pytest.mark.parametrize(
    ("records", "claims", "moved", "rules"),
    [
        ([MOVED], [claim()], True, []),
        ([STAYS], [claim()], False, []),
        ([STAYS], [claim()], True, [Rule.VOLUME_LEFT_OUT]),
        ([], [claim()], False, [Rule.VOLUME_LEFT_OUT]),
        ([], [], False, [Rule.VOLUME_LEFT_OUT]),
        ([], [claim(volume="")], False, [Rule.CLAIM_UNBOUND]),
        ([MOVED], [claim(waits=True, pods=())], True, [Rule.CLAIM_UNUSED]),
        ([STAYS], [claim(waits=True, pods=())], False, []),
        ([MOVED], [claim(waits=False, pods=())], True, []),
    ],
)
def test_every_claim_has_its_data_where_it_was_asked_for(records, claims, moved, rules):
    outcome = require_every_claim(backup(volumes=records), claims, moved=moved)
    assert [each.rule for each in outcome.findings] == rules


def test_what_is_tolerated_of_claims_is_told_and_does_not_count():
    outcome = require_every_claim(
        backup(volumes=[MOVED]), [claim(waits=True, pods=())], moved=True, tolerate={Rule.CLAIM_UNUSED}
    )
    assert (outcome.ok, [each.rule for each in outcome.tolerated]) == (True, [Rule.CLAIM_UNUSED])


def test_an_unbound_claim_that_velero_told_of_is_told_once():
    text = "error executing custom action: rpc error: PVC shop/data has no volume backing this claim"
    from clusterguard.velero.outcome import Message

    run = Backup.model_validate({"metadata": {"name": "b"}, "status": {"phase": "PartiallyFailed", "errors": 1}})
    judged = judge_backup(run, messages=[Message(severity="error", namespace="shop", text=text)])
    outcome = require_every_claim(judged, [claim(volume="")], moved=False)
    assert [each.rule for each in outcome.findings].count(Rule.CLAIM_UNBOUND) == 1


class Storage(Cluster):
    """A cluster with a restored claim, whose snapshot its storage knows or not."""

    def __init__(self, *, status=None, source=True):
        super().__init__()
        self._status, self._source = status, source

    def get(self, kind, name, namespace=None):
        assert (kind, name, namespace) == ("PersistentVolumeClaim", "data", "copy")
        return {"spec": {"dataSource": {"kind": "VolumeSnapshot", "name": "s"}} if self._source else {}}

    def wait_for(self, kind, name, namespace, *, until, what, timeout_seconds):
        assert (kind, name, namespace) == ("VolumeSnapshot", "s", "copy")
        if not until({"status": self._status or {}}):
            raise WaitTimeoutError(what, seconds=timeout_seconds, last_seen="")


def brought_back(cluster, *, moved=False):
    claims = {"snapshots": [] if moved else ["shop/data"], "moved": ["shop/data"] if moved else []}
    outcome = require_claims_restored(restore(namespaceMapping={"shop": "copy"}), cluster, **claims, wait_seconds=1)
    return [each.rule for each in outcome.findings]


def test_a_snapshot_that_the_storage_does_not_know_is_a_finding():
    assert brought_back(Storage(status={"readyToUse": True})) == []
    assert brought_back(Storage(status={"readyToUse": False})) == [Rule.SNAPSHOT_NOT_READY]
    assert brought_back(Storage()) == [Rule.SNAPSHOT_NOT_READY]
    assert brought_back(Storage(source=False)) == [Rule.VOLUME_LEFT_OUT]


def test_moved_data_that_the_restore_did_not_bring_is_a_finding():
    cluster = Cluster()
    assert brought_back(cluster, moved=True) == [Rule.VOLUME_LEFT_OUT]
    target = {"targetVolume": {"namespace": "copy", "pvc": "data"}}
    cluster._transfers[DataDownload] = [DataDownload.model_validate({"spec": target})]
    assert brought_back(cluster, moved=True) == []

"""Which volumes a backup or a restore left out: Velero does not tell, so the cluster is asked."""

import pytest

from clusterguard.errors import ResourceNotFoundError
from clusterguard.model.inventory import ObjectRef
from clusterguard.velero.outcome import RestoredItem, Rule, judge_backup, judge_restore
from clusterguard.velero.resources import Backup, PodVolumeBackup, PodVolumeRestore, Restore
from clusterguard.velero.volumes import claims_of, repositories_of, require_all_restored, require_every_volume


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
        self._transfers = {PodVolumeBackup: saved, PodVolumeRestore: filled}

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


def backup():
    return judge_backup(
        Backup.model_validate(
            {
                "metadata": {"name": "b"},
                "status": {"phase": "Completed", "progress": {"itemsBackedUp": 1, "totalItems": 1}},
            }
        )
    )


def restore():
    item = RestoredItem(ref=ObjectRef(kind="Pod", namespace="shop", name="db"), action="created")
    return judge_restore(
        Restore.model_validate(
            {
                "metadata": {"name": "r"},
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


def test_there_is_a_repository_for_each_namespace_with_volumes():
    saved = [transfer(PodVolumeBackup, namespace=name) for name in ("shop", "bank", "shop")]
    assert repositories_of(Cluster(saved=saved), "b") == ("bank", "shop")

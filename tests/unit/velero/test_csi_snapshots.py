"""Whether CSI snapshots can be taken at all: everything that is missing is told before anything is backed up."""

import pytest

from clusterguard.errors import ResourceNotFoundError, VeleroError, WaitTimeoutError
from clusterguard.velero.claims import claimed_volumes
from clusterguard.velero.csi import CLASS_LABEL, SnapshotClasses, missing_classes, require_server, require_snapshots

DRIVER = "csi.example.com"


def claim(name="data", *, volume="pv", annotations=None, mode="Filesystem"):
    metadata = {"name": name, "namespace": "shop", "annotations": annotations or {}, "labels": {"of": name}}
    return {"metadata": metadata, "spec": {"volumeName": volume, "storageClassName": "fast", "volumeMode": mode}}


def pod(claims=("data",), name="db", phase="Running"):
    volumes = [{"name": each, "persistentVolumeClaim": {"claimName": each}} for each in claims]
    metadata = {"name": name, "namespace": "shop", "labels": {"app": name}}
    return {"metadata": metadata, "spec": {"volumes": volumes}, "status": {"phase": phase}}


def snapshot_class(name="only", driver=DRIVER, **metadata):
    return {"metadata": {"name": name, **metadata}, "driver": driver}


def workload(kind, *args, ready=1):
    containers = [{"command": ["/velero"], "args": list(args)}]
    status = {"numberReady": ready, "desiredNumberScheduled": 1, "updatedNumberScheduled": 1, "numberAvailable": ready}
    return {"metadata": {"generation": 1}, "spec": {"template": {"spec": {"containers": containers}}}, "status": status}


class Cluster:
    """A cluster whose storage makes snapshots, as long as nothing is taken away from it."""

    namespace = "velero"

    def __init__(self):
        self.api = self
        self.server = "https://test"
        self.items = {
            "PersistentVolumeClaim": [claim()],
            "Pod": [pod()],
            "PersistentVolume": [{"metadata": {"name": "pv"}, "spec": {"capacity": {}, "csi": {"driver": DRIVER}}}],
            "StorageClass": [{"metadata": {"name": "fast"}, "volumeBindingMode": "WaitForFirstConsumer"}],
            "CSINode": [{"metadata": {"name": "n"}, "spec": {"drivers": [{"name": DRIVER}]}}],
            "VolumeSnapshotClass": [snapshot_class()],
            "VolumeSnapshot": [],
            "VolumeSnapshotContent": [],
        }
        self.one = {
            "Deployment": workload("Deployment", "server", "--features=EnableCSI"),
            "DaemonSet": workload("DaemonSet"),
        }
        self.status = {"readyToUse": True, "boundVolumeSnapshotContentName": "content"}
        self.calls = []

    def resource(self, kind, *, api_version=None):
        if kind not in self.items | self.one:
            raise ResourceNotFoundError(f"no kind {kind}")
        return kind

    def list(self, kind, namespace=None, *, label_selector="", metadata_only=False):
        key, _, value = label_selector.partition("=")
        return [each for each in self.items[kind] if not key or each["metadata"].get("labels", {}).get(key) == value]

    def get(self, kind, name, namespace=None):
        if self.one.get(kind) is None:
            raise ResourceNotFoundError(f"no {kind} {name}")
        return self.one[kind]

    def create(self, manifest):
        self.calls.append(("create", manifest["spec"]["volumeSnapshotClassName"]))

    def patch(self, kind, name, *, patch):
        self.calls.append(("patch", patch["spec"]["deletionPolicy"]))

    def delete(self, kind, name, namespace=None):
        self.calls.append(("delete", name))

    def wait_for(self, kind, name, namespace, *, until, what, timeout_seconds):
        if not until(None if what == "a snapshot to go" else {"status": self.status}):
            raise WaitTimeoutError(what, seconds=timeout_seconds, last_seen="")


@pytest.fixture
def cluster():
    return Cluster()


def look(cluster):
    require_snapshots(cluster, claimed_volumes(cluster), name="trial", seconds=1)


def test_a_cluster_that_can_is_tried_once_and_nothing_stays(cluster):
    cluster.items["PersistentVolumeClaim"].append(claim("more"))
    look(cluster)
    assert cluster.calls == [("create", "only"), ("patch", "Delete"), ("delete", "trial")]


@pytest.mark.parametrize("kind", ["VolumeSnapshot", "VolumeSnapshotContent", "VolumeSnapshotClass"])
def test_without_the_snapshot_api_nothing_is_tried(cluster, kind):
    del cluster.items[kind]
    with pytest.raises(VeleroError, match=f"no kind {kind}") as caught:
        look(cluster)
    assert (caught.value.code, cluster.calls) == ("snapshots-impossible", [])


@pytest.mark.parametrize(
    ("what", "there", "told"),
    [
        ("CSINode", [], "does not run, or is not ready"),
        ("VolumeSnapshotClass", [], "no VolumeSnapshotClass is of its driver"),
        ("VolumeSnapshotClass", [snapshot_class(driver="other")], "only of other"),
        ("VolumeSnapshotClass", [snapshot_class("a"), snapshot_class("b")], "several VolumeSnapshotClasses (a, b)"),
        ("PersistentVolume", [{"metadata": {"name": "pv"}, "spec": {"hostPath": {}}}], "of the type hostPath"),
        ("PersistentVolumeClaim", [claim(annotations={CLASS_LABEL: "gone"})], "gone, which is not there"),
    ],
)
def test_what_is_missing_is_told_and_nothing_is_tried(cluster, what, there, told):
    cluster.items[what] = there
    with pytest.raises(VeleroError) as caught:
        look(cluster)
    assert told in caught.value.message
    assert cluster.calls == []


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ({}, "no snapshot controller"),
        ({"boundVolumeSnapshotContentName": "content"}, "has not taken a snapshot"),
        ({"error": {"message": "driver does not support it"}}, "driver does not support it"),
    ],
)
def test_a_driver_that_cannot_is_found_by_trying(cluster, status, told):
    cluster.status = status
    with pytest.raises(VeleroError) as caught:
        look(cluster)
    assert told in caught.value.message
    assert cluster.calls[-1] == ("delete", "trial"), "what was tried stays"


def test_a_class_is_chosen_as_velero_chooses(cluster):
    (volume,) = claimed_volumes(cluster)
    default = {"annotations": {"snapshot.storage.kubernetes.io/is-default-class": "true"}}
    labelled = snapshot_class("labelled", labels={CLASS_LABEL: "true"})
    classes = [snapshot_class("a"), snapshot_class("default", **default), labelled]
    assert SnapshotClasses(items=classes).chosen_for(volume).name == "labelled"
    assert SnapshotClasses(items=classes[:2]).chosen_for(volume).name == "default"
    assert SnapshotClasses(items=classes[:1]).chosen_for(volume).name == "a"


def test_a_class_of_another_driver_that_a_claim_names_is_refused(cluster):
    cluster.items["PersistentVolumeClaim"] = [claim(annotations={CLASS_LABEL: "other"})]
    (volume,) = claimed_volumes(cluster)
    items = [snapshot_class("other", "other"), snapshot_class("mine")]
    chosen = SnapshotClasses(items=items).chosen_for(volume)
    assert (chosen.name, "other, not of" in chosen.problem) == ("", True)


def test_a_class_is_made_only_for_drivers_without_any(cluster):
    volumes = claimed_volumes(cluster)
    assert missing_classes(cluster, volumes, prefix="run") == []
    cluster.items["VolumeSnapshotClass"] = [snapshot_class(driver="other")]
    (made,) = missing_classes(cluster, volumes, prefix="run")
    assert (made["driver"], CLASS_LABEL in made["metadata"]["labels"]) == (DRIVER, True)


def test_a_server_without_the_feature_is_refused(cluster):
    require_server(cluster, moves_data=True)
    cluster.one["Deployment"] = workload("Deployment", "server")
    with pytest.raises(VeleroError, match="--features=EnableCSI"):
        require_server(cluster, moves_data=False)


@pytest.mark.parametrize("agent", [None, workload("DaemonSet", ready=0)])
def test_data_is_not_moved_without_a_node_agent(cluster, agent):
    cluster.one["DaemonSet"] = agent
    require_server(cluster, moves_data=False)
    with pytest.raises(VeleroError) as caught:
        require_server(cluster, moves_data=True)
    assert caught.value.code == "snapshots-impossible"


def test_claims_are_those_with_the_labels_and_those_of_such_pods(cluster):
    cluster.items["PersistentVolumeClaim"] = [claim(), claim("other"), claim("unused", volume="")]
    cluster.items["Pod"] = [pod(), pod(["other"], "web"), pod(["unused"], "done", "Succeeded")]
    found = {each.name: each for each in claimed_volumes(cluster)}
    assert {name: each.pods for name, each in found.items()} == {"data": ("db",), "other": ("web",), "unused": ()}
    assert "waits for a Pod" in found["unused"].why_unbound
    assert (found["data"].driver, found["data"].source, found["data"].waits) == (DRIVER, "csi", True)
    assert [each.name for each in claimed_volumes(cluster, selector="app=web")] == ["other"]
    assert [each.name for each in claimed_volumes(cluster, selector="of=data")] == ["data"]


def test_a_cluster_without_claims_has_none(cluster):
    cluster.items["PersistentVolumeClaim"] = []
    assert claimed_volumes(cluster) == ()

"""Each drill that we ship is green as it is, and red without its restore and for each defect: green means something."""

import base64
import gzip
from datetime import timedelta
from pathlib import Path

import pytest

from busy_shop import look_at_busy_shop
from clusterguard.clusters.embedded import control_plane
from clusterguard.drills import DrillRunner, DrillSettings, Verdict, load_drill, load_drills
from clusterguard.drills.authoring.folder import drill_files_of, write_files
from clusterguard.drills.requirements import skip_reason
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.stores import LocalStore

pytestmark = pytest.mark.programs

FOLDER = Path(__file__).parents[2] / "drills"
SHIPPED = [drill for path in sorted(FOLDER.glob("*.drill.yaml")) for drill in load_drills(path)]
# Some need containers or nodes, which only `pytest drills/ --drill-cluster kind` has.
HERE = [drill for drill in SHIPPED if skip_reason(drill, default_cluster="embedded") is None]
ETCD = [drill for drill in HERE if drill.metadata.labels.get("backup") == "etcd"]


def loses_the_cluster(drill):
    """Tell whether it gets a cluster of its own, so that the others keep theirs."""
    return drill.name == "lost-etcd" or "members" in drill.metadata.labels


# `pytest drills/ --drill-mutate` runs them all; here one of them shows what else a green one leaves and says.
QUICK = [
    pytest.param(drill, marks=() if drill.name == "changed-objects" else pytest.mark.slow, id=drill.id)
    for drill in ETCD
]
# Each shows itself in `pytest drills/` what its checks find after the fault; a lost cluster is only slow to be asked.
RED = [pytest.param(drill, marks=pytest.mark.slow if loses_the_cluster(drill) else (), id=drill.id) for drill in ETCD]
PASSWORD = "only-for-drills"


@pytest.fixture
def run(own_cluster, tmp_path):
    def run(drill, **settings):
        defaults = {"open": lambda _: own_cluster, "evidence": tmp_path / "evidence"}
        result = DrillRunner(settings=DrillSettings(**(defaults | settings))).run(drill)
        files = [file for file in (tmp_path / "evidence").rglob("*") if file.is_file()]
        written = b"".join(
            gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes() for file in files
        )
        assert PASSWORD.encode() not in written
        assert base64.b64encode(PASSWORD.encode()) not in written
        return result

    return run


def test_there_are_drills():
    names = {drill.name for drill in ETCD}
    assert names >= {"deleted-pods", "deleted-namespace", "deleted-workloads", "changed-objects"}


@pytest.mark.parametrize("drill", QUICK)
def test_it_is_green_and_nothing_stays_of_it(run, own_cluster, drill):
    result = run(drill, mutate=100, **({"open": None} if loses_the_cluster(drill) else {}))
    assert result.verdict is Verdict.PASS, result
    assert (result.mutation.score, result.mutation.stopped) == (100, "")
    tried = {each.defect for each in result.mutation.with_outcome("found")}
    assert {"object-left-out", "label-dropped", "secret-changed", "config-cut", "image-changed"} <= tried
    assert ("member-changed" in tried) == ("members" in drill.metadata.labels)
    assert result.red_after_fault[0] >= 1
    assert 0 < result.rto.restore < result.rto.total
    assert 0 <= result.rpo < 60
    if drill.spec.canary is False:
        return  # nothing was restored
    details = " ".join(step.detail for step in result.steps)
    assert "has renewed its Lease since" in details or "have renewed" in details
    assert "the marker from before the backup is back, the one from after it is gone" in details
    names = {item["metadata"]["name"] for item in own_cluster.api.list(own_cluster.api.resource("Namespace"))}
    assert names == {"default", "kube-node-lease", "kube-public", "kube-system"}


class WithoutItsEtcd:
    """A cluster whose controllers cannot be stopped, as one that somebody else runs."""

    def __init__(self, cluster):
        self._cluster = cluster

    def __getattr__(self, name):
        if name in {"controllers_stopped", "replace_in_member"}:
            raise AttributeError(name)
        return getattr(self._cluster, name)


@pytest.mark.slow
def test_through_the_api_it_finds_what_can_be_put_there(run, own_cluster):
    drill = next(drill for drill in ETCD if drill.name == "changed-objects")
    result = run(drill, mutate=100, open=lambda _: WithoutItsEtcd(own_cluster))
    assert (result.verdict, result.mutation.score, result.mutation.stopped) == (Verdict.PASS, 100, ""), result
    outcomes = {each.defect: each.outcome for each in result.mutation.tried}
    expected = {"object-left-out": "notApplied", "replicas-changed": "notApplied"}
    expected |= dict.fromkeys(("label-dropped", "secret-changed", "selector-changed", "later-state"), "found")
    assert outcomes.items() >= expected.items()


@pytest.mark.parametrize("drill", RED)
def test_without_its_restore_it_is_red(run, drill):
    own = {"open": None} if loses_the_cluster(drill) else {}
    result = run(drill, omit_restore=True, longest_wait=timedelta(seconds=1), **own)
    assert result.verdict is Verdict.FAIL, result
    red = {step.title for step in result.steps if step.phase == "verify" and step.verdict is Verdict.FAIL}
    assert ({"sameMembers"} if drill.spec.canary is False else {"restored", "markers"}) <= red
    assert result.rto is None
    assert result.diff or loses_the_cluster(drill), "what cannot be asked has no differences"


def test_with_an_older_snapshot_it_is_red(run, own_cluster, tmp_path, monkeypatch):
    """Somebody restores the wrong snapshot: an intact one, of the same cluster, but from before there was a shop."""
    older = EtcdSnapshotter(store=LocalStore(tmp_path / "older"), access=own_cluster.etcd)
    older.save("older")
    restore = EtcdSnapshotter.restore
    monkeypatch.setattr(EtcdSnapshotter, "restore", lambda _, __, cluster: restore(older, "older", cluster))
    result = run(next(drill for drill in ETCD if drill.name == "changed-objects"), longest_wait=timedelta(seconds=1))
    assert result.verdict is Verdict.FAIL, result
    assert "missing" in result.reason
    assert "is not back" in next(step.detail for step in result.steps if step.title == "markers")


@pytest.mark.slow
def test_with_another_snapshot_on_one_member_it_is_red(run, tmp_path, monkeypatch):
    """Two snapshots of one cluster, each intact: members that hold different data must never serve together."""
    save, build = EtcdSnapshotter.save, control_plane.run
    other = LocalStore(tmp_path / "other")

    def save_two(self, name, **options):
        save(EtcdSnapshotter(store=other, access=self._access), "other")
        return save(self, name, **options)

    def build_of_two(argv, **options):
        if any("etcd-3.prepared" in word for word in argv):
            argv = [*argv[:3], str(other.local_path("other.db")), *argv[4:]]
        return build(argv, **options)

    monkeypatch.setattr(EtcdSnapshotter, "save", save_two)
    monkeypatch.setattr(control_plane, "run", build_of_two)
    result = run(next(drill for drill in ETCD if drill.name == "lost-quorum"), open=None)
    assert result.verdict is Verdict.FAIL, result
    assert (result.code, "one snapshot" in result.reason) == ("rollback-failed", True), result.reason


def test_a_drill_of_a_live_namespace_finds_every_defect_and_holds_no_secret(run, own_cluster, tmp_path):
    seen = look_at_busy_shop(own_cluster.api)
    files, stand_in = drill_files_of(seen, engine="etcd", origin="context:prod")
    text = "".join(files.values())
    for secret in (PASSWORD, "correct-horse-battery"):
        assert secret not in text
        assert base64.b64encode(secret.encode()).decode() not in text
    assert {each.ref.kind for each in stand_in.manifests} >= {
        *("ConfigMap", "CronJob", "CustomResourceDefinition", "DaemonSet", "Deployment", "HorizontalPodAutoscaler"),
        *("Ingress", "LimitRange", "Menu", "NetworkPolicy", "PersistentVolume", "PersistentVolumeClaim", "Pod"),
        *("PodDisruptionBudget", "ResourceQuota", "Role", "RoleBinding", "Secret", "Service", "ServiceAccount"),
    }
    assert not {each.ref.kind for each in stand_in.manifests} & {"ReplicaSet", "EndpointSlice", "Event", "Lease"}
    result = run(load_drill(write_files(tmp_path / "drill", files)[-1]), mutate=100)
    assert result.verdict is Verdict.PASS, result
    assert (result.mutation.score, result.mutation.stopped, result.mutation.with_outcome("notApplied")) == (100, "", ())
    tried = {each.defect for each in result.mutation.tried}
    assert tried >= {"secret-changed", "rule-widened", "subject-changed", "network-opened", "definition-older"}


@pytest.mark.slow  # `pytest drills/` is the same for all of them; that nothing stays is shown for an interrupted one
def test_pytest_runs_a_drill_on_a_cluster_of_its_own(python, tmp_path):
    report = tmp_path / "report.xml"
    ended = python("pytest", "drills/deleted-pods.drill.yaml", f"--junitxml={report}", "-p", "no:cacheprovider")
    assert ended.code == 0, ended.output
    for words in ("1 passed", "recovery time", "PASS  deleted-pods", "pods were simulated"):
        assert words in ended.output
    assert '"clusterguard.rto_seconds"' in report.read_text()
    assert list((tmp_path / "state" / "clusterguard" / "clusters").iterdir()) == []

"""etcd restores on a real kubeadm control plane: kubelet, static pods, containers."""

from __future__ import annotations

import contextlib
import re
import secrets
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from witnesses import is_there, marker

from clusterguard.clusters.kind import KindCluster
from clusterguard.clusters.kubeadm import KubeadmControlPlane, Timeouts, etcdutl
from clusterguard.clusters.kubeadm.commands import LOCK
from clusterguard.clusters.node_view import view_node
from clusterguard.errors import ClusterError, ResourceNotFoundError, RestoreError, WaitTimeoutError
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.stores import open_store
from clusterguard.validate import Selection, wait_ready

KILLED = Path(__file__).parent / "killed_restore.py"


class Target:
    """The cluster with a control plane of the test's own."""

    def __init__(self, cluster, shell, **options):
        self.name, self.etcd, self.api = cluster.name, cluster.etcd, cluster.api
        self.control_plane = KubeadmControlPlane([shell], api=lambda: cluster.api, **options)


def works(api):
    """The cluster takes writes, and its controllers act on them: a namespace gets its service account."""
    name = f"works-{secrets.token_hex(4)}"
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    until = time.monotonic() + 120
    while True:
        try:
            api.get(api.resource("ServiceAccount"), "default", name)
        except ResourceNotFoundError:
            assert time.monotonic() < until, "the controllers do not act"
            time.sleep(0.5)
        else:
            break
    api.delete(api.resource("Namespace"), name)


def break_line_of(target):
    """Break the connection to the node that a restore works over."""
    (node,) = target.control_plane._nodes
    node.shell._holder._process.kill()


def new_name():
    return f"cg-{secrets.token_hex(4)}"


@pytest.fixture
def web(cluster, workload_image):
    """A pod that answers HTTP."""
    api, name = cluster.api, new_name()
    container = {
        "name": "web",
        "image": workload_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", "mkdir /www && echo served > /www/index.html && exec httpd -f -p 8080 -h /www"],
    }
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
    api.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec})
    wait_ready(api, Selection(kind="Pod", namespace="default", names=(name,)), timeout_seconds=120)
    yield name
    with contextlib.suppress(ResourceNotFoundError):
        api.delete(api.resource("Pod"), name, "default", grace_seconds=0)


# ---- the whole way -----------------------------------------------------------------------------------------


def test_a_restored_pod_counts_once_its_containers_run_again(cluster, shell, snapshotter, web):
    api, pods = cluster.api, cluster.api.resource("Pod")
    before = api.get(pods, web, "default")
    name = snapshotter.save(new_name()).name
    later = marker(api, new_name())
    api.delete(pods, web, "default", grace_seconds=0)
    node = before["spec"]["nodeName"]
    until = time.monotonic() + 60
    while before["metadata"]["uid"] in view_node(api, node).pods:
        assert time.monotonic() < until
        time.sleep(0.2)

    started = datetime.now(UTC)
    result = snapshotter.restore(name, cluster)

    selection = Selection(kind="Pod", namespace="default", names=(web,))
    # Its restored status says that it is ready; that counts only once its kubelet runs it, however fast that goes.
    with contextlib.suppress(WaitTimeoutError):
        wait_ready(api, selection, timeout_seconds=0, fresh_since=started)
        assert before["metadata"]["uid"] in view_node(api, node).pods

    evidence = wait_ready(api, selection, timeout_seconds=120, fresh_since=started)
    assert evidence.freshness == "the kubelet of each pod's node runs its containers now"
    after = api.get(pods, web, "default")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"]["containerStatuses"][0]["restartCount"] > 0
    address = f"http://{after['status']['podIP']}:8080/"
    assert shell.run(["curl", "--silent", "--max-time", "5", address]).strip() == "served"
    assert not is_there(api, later)
    assert result.revision_after > result.revision_before
    assert result.warnings == ()
    works(api)


def test_pods_that_end_while_the_api_server_is_away_come_back(cluster, snapshotter, workload_image):
    # A kubelet that ended them while nobody could be told would say "Failed" about the restored ones.
    api, name, graces = cluster.api, new_name(), (1, 2, 3, 5, 7, 9, 11)
    container = {"name": "web", "image": workload_image, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "999"]}
    for grace in graces:
        metadata = {"name": f"{name}-{grace}", "namespace": "default", "labels": {"app": name}}
        spec = {"containers": [container], "terminationGracePeriodSeconds": grace}
        api.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    names = tuple(f"{name}-{grace}" for grace in graces)
    selection = Selection(kind="Pod", namespace="default", names=names)
    wait_ready(api, selection, timeout_seconds=120)
    snapshot = snapshotter.save(name).name
    for grace in graces:
        api.delete(api.resource("Pod"), f"{name}-{grace}", "default")

    started = datetime.now(UTC)
    snapshotter.restore(snapshot, cluster)

    assert wait_ready(api, selection, timeout_seconds=60, fresh_since=started).objects
    for grace in graces:
        api.delete(api.resource("Pod"), f"{name}-{grace}", "default", grace_seconds=0)


@pytest.mark.slow
def test_containers_that_the_restored_state_does_not_know_are_ended(cluster, snapshotter, workload_image):
    api = cluster.api
    name = snapshotter.save(new_name()).name
    later = new_name()
    container = {"name": "web", "image": workload_image, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "999"]}
    api.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": later, "namespace": "default"},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 0}})  # fmt: skip
    wait_ready(api, Selection(kind="Pod", namespace="default", names=(later,)), timeout_seconds=120)
    pod = api.get(api.resource("Pod"), later, "default")
    assert snapshotter.restore(name, cluster).warnings == ()
    assert pod["metadata"]["uid"] not in view_node(api, pod["spec"]["nodeName"]).pods


def test_a_plan_is_what_a_run_executes(cluster, shell, snapshotter, store):
    name = snapshotter.save(new_name()).name
    later = marker(cluster.api, new_name())
    told = []
    target = Target(cluster, shell, run="same", on_command=told.append)
    planned = snapshotter.plan_restore(name, target)
    assert is_there(cluster.api, later), "a plan touches nothing"
    snapshotter.restore(name, target)
    lines = [line.line for step in planned.steps for line in step.lines]
    executed = [target.control_plane._nodes[0].line(command) for command in told]
    bump = next(word for line in executed for word in line.split() if word.startswith("--bump-revision"))
    assert [line for line in executed if bump not in line] == [line for line in lines if "--bump-revision" not in line]
    assert not is_there(cluster.api, later)


@pytest.mark.slow
def test_data_moves_to_another_directory_and_back(cluster, shell, snapshotter):
    name = snapshotter.save(new_name()).name
    later = marker(cluster.api, new_name())
    folder = f"/var/lib/{new_name()}"
    result = snapshotter.restore(name, Target(cluster, shell, data_dir=folder))
    assert any("etcd.local.dataDir" in warning for warning in result.warnings)
    assert f"path: {folder}" in shell.run(["cat", "/etc/kubernetes/manifests/etcd.yaml"])
    assert not is_there(cluster.api, later)
    works(cluster.api)
    snapshotter.restore(name, Target(cluster, shell, data_dir=f"{folder}-2"))
    works(cluster.api)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["etcd's image", "this machine"])
def test_a_node_without_etcdutl_gets_it_from(cluster, shell, snapshotter, toolchain, place, monkeypatch):
    name = snapshotter.save(new_name()).name
    later = marker(cluster.api, new_name())
    told = []
    target = Target(cluster, shell)
    if place == "this machine":
        monkeypatch.setattr(etcdutl, "_in_image", lambda *_, **__: ("false",))  # an image without etcdutl
    target.control_plane = KubeadmControlPlane(
        [shell],
        api=lambda: cluster.api,
        etcdutl=lambda: toolchain.ensure("etcdutl")["etcdutl"],
        on_command=told.append,
    )
    there = shell.run(["sh", "-c", "command -v etcdutl || true"]).strip()
    if there:
        shell.run(["mv", there, f"{there}.hidden"])
    try:
        result = snapshotter.restore(name, target)
    finally:
        if there:
            shell.run(["mv", f"{there}.hidden", there])
    assert ("ctr -n k8s.io run" in result.command) == (place == "etcd's image")
    assert any(command.target.startswith("/etc/kubernetes/clusterguard/etcdutl") for command in told) == (
        place == "this machine"
    )
    assert not is_there(cluster.api, later)


# ---- killed ------------------------------------------------------------------------------------------------

POINTS = [
    ("build the new data directory", 0.3, "back"),
    ("from here on a second run", 0, "back"),
    ("the kubelet stops kube-apiserver", 0.1, "back"),
    ("see their containers gone: etcd", 0, "back"),
    ("the old member is kept", 0, "back"),
    ("the restored member goes live", 0, "back"),
    ("the kubelet starts etcd", 0, "back"),
    ("etcd serves", 1, "back"),
    ("the API server is ready", 0.5, "back"),
    ("the restored state is proven", 0, "back"),
    ("the restored leader leases", 0, "restored"),
    ("the kubelet starts kube-controller-manager", 0.1, "restored"),
    ("the kubelet forgets", 0, "restored"),
    ("the old member and manifest", 0, "restored"),
    ("nothing is left to do", 0, "restored"),
]


QUICK = {"the restored member goes live", "the restored leader leases"}


@pytest.mark.parametrize(
    ("point", "delay", "outcome"),
    [pytest.param(*each, id=each[0], marks=() if each[0] in QUICK else pytest.mark.slow) for each in POINTS],
)
def test_killed_at_any_step_the_cluster_works_again(cluster, snapshotter, store, point, delay, outcome):
    name = snapshotter.save(new_name()).name
    later = marker(cluster.api, new_name())
    killed = subprocess.run(
        [sys.executable, str(KILLED), cluster.name, store, name, point, str(delay)],
        timeout=300, capture_output=True, check=False,
    )  # fmt: skip
    assert killed.returncode == -9, killed.stderr.decode()[-2000:]
    attached = KindCluster.attach(cluster.name)
    with attached.control_plane.exclusive():
        attached.control_plane.recover()
    attached.close()
    assert is_there(cluster.api, later) == (outcome == "back")
    works(cluster.api)


# ---- faults ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_etcd_that_does_not_come_back_is_rolled_back(cluster, shell, snapshotter):
    name = snapshotter.save(new_name()).name
    later = marker(cluster.api, new_name())

    spoilt = []

    def spoil(command):
        if command.why == "the kubelet starts etcd" and not spoilt:
            manifest = shell.read("/etc/kubernetes/clusterguard/manifests/etcd.yaml").decode()
            spoilt.append(re.search(r"--data-dir=(\S+)", manifest)[1])
            shell.run(["truncate", "--size=0", f"{spoilt[0]}/member/snap/db"])

    target = Target(cluster, shell, timeouts=Timeouts(etcd=25), on_command=spoil)
    with pytest.raises(RestoreError) as caught:
        snapshotter.restore(name, target)
    assert caught.value.__cause__.what.endswith("etcd serves")
    assert (caught.value.__cause__.seconds, bool(caught.value.__cause__.last_seen)) == (25, True)
    assert caught.value.rolled_back
    assert is_there(cluster.api, later)
    works(cluster.api)


def test_a_full_disk_is_refused_before_anything_is_touched(cluster, shell, snapshotter):
    name = snapshotter.save(new_name()).name
    before = shell.run(["ls", "-lR", "/etc/kubernetes"])
    shell.run(["sh", "-c", "mkdir -p /mnt/small && mount -t tmpfs -o size=8m tmpfs /mnt/small"])
    try:
        with pytest.raises(RestoreError) as caught:
            snapshotter.restore(name, Target(cluster, shell, data_dir="/mnt/small/etcd"))
        assert caught.value.__cause__.fields["problems"] == ["no-room"]
        assert "Nothing was touched" in caught.value.message
        assert shell.run(["ls", "-lR", "/etc/kubernetes"]) == before
        assert not shell.run(["ls", "/mnt/small"]).strip()
    finally:
        shell.run(["umount", "/mnt/small"])


def test_a_node_that_freezes_half_way_is_recovered_when_it_is_back(cluster, shell, snapshotter):
    name = snapshotter.save(new_name()).name
    later = marker(cluster.api, new_name())

    def freeze(command):
        if command.why == "the restored member goes live":
            subprocess.run(["docker", "pause", shell.name], check=True, capture_output=True)

    try:
        with pytest.raises(RestoreError) as caught:
            snapshotter.restore(name, Target(cluster, shell, on_command=freeze))
        assert caught.value.code == "rollback-failed"
    finally:
        subprocess.run(["docker", "unpause", shell.name], check=True, capture_output=True)
    assert not caught.value.rolled_back
    plane = KindCluster.attach(cluster.name).control_plane
    with plane.exclusive():
        assert "rolled back" in plane.recover()
    assert is_there(cluster.api, later)
    works(cluster.api)


def test_an_api_server_that_is_killed_while_it_starts_is_waited_for(cluster, shell, snapshotter):
    name = snapshotter.save(new_name()).name
    later = marker(cluster.api, new_name())
    killed = []

    def kill(command):
        if command.why == "the API server is ready":
            # The kubelet starts it anew, as it does with a container that crashed.
            until = "for _ in $(seq 100); do pgrep -x kube-apiserver && break; sleep 0.1; done"
            killed.append(shell.run(["sh", "-c", f"{until}; pkill -9 -x kube-apiserver"]))

    snapshotter.restore(name, Target(cluster, shell, on_command=kill))
    assert len(killed) == 1
    assert killed[0].strip()
    assert not is_there(cluster.api, later)
    works(cluster.api)


def test_a_node_that_restarts_half_way_is_recovered(cluster, shell, snapshotter):
    name = snapshotter.save(new_name()).name
    later = marker(cluster.api, new_name())

    def restart(command):
        if command.why == "the API server is ready":
            subprocess.run(["docker", "restart", "--time=0", shell.name], check=True, capture_output=True)

    with contextlib.suppress(RestoreError):  # its lock went with the node; it may have gone back by itself all the same
        snapshotter.restore(name, Target(cluster, shell, on_command=restart))
        pytest.fail("a restore that lost its node did not say so")
    attached = KindCluster.attach(cluster.name)
    with attached.control_plane.exclusive():
        attached.control_plane.recover()
    attached.close()
    until = time.monotonic() + 120
    while not cluster.api.ready():
        assert time.monotonic() < until
        time.sleep(0.5)
    assert is_there(cluster.api, later)
    works(cluster.api)


def test_a_line_that_breaks_half_way_is_rolled_back_under_the_lock(cluster, shell, snapshotter):
    name = snapshotter.save(new_name()).name
    later = marker(cluster.api, new_name())
    taken = []

    def break_line(command):
        if command.why == "the API server is ready" and not taken:
            break_line_of(target)
            taken.append("broken")
        elif taken == ["broken"]:  # the first command of the rollback takes the lock again
            taken.append("rolls back")
        elif taken == ["broken", "rolls back"]:
            with pytest.raises(ClusterError, match="another process holds"), shell.lock(LOCK):
                pass
            taken.append("locked")

    target = Target(cluster, shell, on_command=break_line)
    with pytest.raises(RestoreError) as caught:
        snapshotter.restore(name, target)
    assert caught.value.rolled_back
    assert taken == ["broken", "rolls back", "locked"]
    assert is_there(cluster.api, later)
    works(cluster.api)


def test_a_run_whose_line_broke_steps_aside_for_another(cluster, shell, snapshotter):
    name = snapshotter.save(new_name()).name
    later = marker(cluster.api, new_name())

    def let_another_come(command):
        if command.why == "the API server is ready":
            break_line_of(target)
            other = KindCluster.attach(cluster.name).control_plane
            with other.exclusive():
                assert "rolled back" in other.recover()

    target = Target(cluster, shell, on_command=let_another_come)
    with pytest.raises(RestoreError) as caught:
        snapshotter.restore(name, target)
    assert caught.value.code == "restore-taken-over"
    assert is_there(cluster.api, later)
    works(cluster.api)


@pytest.mark.parametrize(
    "point",
    [
        "the restored state is proven",
        pytest.param("the kubelet starts kube-controller-manager", marks=pytest.mark.slow),
    ],
)
def test_a_line_that_breaks_once_it_is_proven_undoes_nothing(cluster, shell, snapshotter, point):
    name = snapshotter.save(new_name()).name
    later = marker(cluster.api, new_name())
    broken = []

    def break_line(command):
        if command.why.startswith(point) and not broken:
            broken.append(break_line_of(target))

    target = Target(cluster, shell, on_command=break_line)
    assert snapshotter.restore(name, target).warnings == ()
    assert broken == [None]
    assert not is_there(cluster.api, later)
    works(cluster.api)
    with target.control_plane.exclusive():
        assert target.control_plane.recover() is None


def test_ctrl_c_while_preparing_leaves_nothing_on_the_disk_of_etcd(cluster, shell, snapshotter):
    name = snapshotter.save(new_name()).name

    def interrupt(command):
        if command.why.startswith("it belongs to whom"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        snapshotter.restore(name, Target(cluster, shell, on_command=interrupt))
    left = shell.run(["sh", "-c", "ls -d /etc/kubernetes/clusterguard/*.json /var/lib/*/.clusterguard/prep* || true"])
    assert not left.strip()


def test_lost_data_is_restored(cluster, shell, store):
    snapshotter = EtcdSnapshotter(store=open_store(store), access=cluster.etcd)
    earlier = marker(cluster.api, new_name())
    name = snapshotter.save(new_name()).name
    cluster.lose_etcd()
    snapshotter.restore(name, cluster)
    assert is_there(cluster.api, earlier)
    works(cluster.api)


def test_a_node_of_another_cluster_is_refused(cluster, shell):
    class Foreign:
        def resource(self, kind):
            return kind

        def get(self, *_, **__):
            return {"data": {"ca.crt": "another"}}

        def list(self, *_, **__):
            return []

    plane = KubeadmControlPlane([shell], api=Foreign)
    with pytest.raises(ClusterError) as caught:
        plane.check(needed_bytes=1)
    assert caught.value.fields["problems"] == ["other-cluster"]


# ---- the command line --------------------------------------------------------------------------------------


def test_the_command_line_saves_plans_and_restores_through_the_node(cluster, shell, tmp_path):
    def run(*words):
        done = subprocess.run([sys.executable, "-m", "clusterguard", "etcd", *words, "--store", str(tmp_path),
                               "--node-shell", f"docker:{shell.name}"], timeout=300, capture_output=True, text=True,
                              check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = ["--cluster", f"kubeconfig:{cluster.kubeconfig}"]
    run("save", "first")
    later = marker(cluster.api, new_name())
    plan = run("restore", "first", *where, "--plan")
    assert f"docker exec --interactive {shell.name} etcdutl snapshot restore" in plan.replace(" \\\n", " ")
    assert is_there(cluster.api, later)
    assert "raised to" in run("restore", "first", *where, "--yes")
    assert not is_there(cluster.api, later)

"""What only a real control plane can show of drills: finalizers, kubeconfigs, bytes of snapshots, Ctrl-C."""

import os
import re
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from clusterguard.clusters.base import EtcdAccess
from clusterguard.drills import DrillRunner, DrillSettings, Verdict, load_drill
from clusterguard.drills.events import StepFinished

pytestmark = pytest.mark.programs

DRILLS = Path(__file__).parents[3] / "drills"


def config_map(name, namespace, **metadata):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace, **metadata}}


@pytest.fixture
def namespace(request):
    return "t-" + re.sub("[^a-z0-9]+", "-", request.node.name)[-40:].strip("-")


@pytest.fixture
def spec(namespace):
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    return {
        "scope": {"namespaces": [namespace]},
        "setup": [{"apply": {"manifest": [space, config_map("web", namespace)]}}],
        "backup": [{"etcdSnapshot": {"name": "before"}}],
        "fault": [{"delete": {"kind": "ConfigMap", "namespace": namespace, "name": "web"}}],
        "restore": [{"etcdRestore": {"from": "before"}}],
        "verify": [{"restored": {}}],
    }


@pytest.fixture
def run(tmp_path, shared_cluster):
    """Run a drill with a spec; nothing is restored, since the cluster is everybody's."""

    def run(spec, *, tell=lambda _: None, **settings):
        document = {"apiVersion": "clusterguard.dev/v1alpha1", "kind": "Drill", "metadata": {"name": "small"}}
        file = tmp_path / "small.drill.yaml"
        file.write_text(yaml.safe_dump(document | {"spec": spec}))
        defaults = {
            "open": lambda _: shared_cluster,
            "omit_restore": True,
            "longest_wait": timedelta(milliseconds=300),
        }
        return DrillRunner(settings=DrillSettings(**(defaults | settings)), on_event=tell).run(load_drill(file))

    return run


@pytest.fixture
def names(shared_cluster):
    """The names of a kind in a namespace."""

    def names(kind, namespace=None):
        api = shared_cluster.api
        return {item["metadata"]["name"] for item in api.list(api.resource(kind), namespace)}

    return names


def test_a_namespace_stuck_in_terminating_is_told_with_the_finalizer_that_holds_it(run, spec, names, namespace):
    held = config_map("held", namespace, finalizers=["example.com/hold"])
    spec["setup"][0]["apply"]["manifest"].append(held)
    spec["fault"] = [{"delete": {"kind": "Namespace", "name": namespace}, "timeout": "3s"}]
    release = {"metadata": {"finalizers": None}}
    spec["cleanup"] = [{"patch": {"kind": "ConfigMap", "namespace": namespace, "name": "held", "patch": release}}]
    result = run(spec)
    assert result.verdict is Verdict.ERROR, result
    assert f"Namespace {namespace} goes: not within 3 s" in result.reason
    assert "example.com/hold" in result.reason
    assert "finalizer" in result.hint
    (fault,) = [phase for phase in result.phases if phase.name == "fault"]
    assert fault.seconds >= 3
    assert namespace not in names("Namespace")  # once cleanup let go of it


def test_setup_does_not_take_over_somebodys_namespace(run, spec, shared_cluster, names, namespace):
    api = shared_cluster.api
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    try:
        result = run(spec)
        assert result.verdict is Verdict.ERROR
        assert f"Namespace {namespace} exists already, and not from this run" in result.reason
        assert namespace in names("Namespace")
        assert "web" not in names("ConfigMap", namespace)
    finally:
        api.delete(api.resource("Namespace"), namespace)


@pytest.mark.parametrize(
    ("allowed", "told"),
    [((), "is not allowed by name; nothing was touched"), (("*",), "gives no access to its etcd")],
)
def test_a_kubeconfig_is_no_permission(run, spec, shared_cluster, names, namespace, allowed, told):
    before = names("ConfigMap", "default")
    cluster_ref = f"kubeconfig:{shared_cluster.kubeconfig}"
    result = run(spec, open=None, cluster=cluster_ref, allowed_contexts=allowed)
    assert result.verdict is Verdict.ERROR
    assert told in result.reason
    assert namespace not in names("Namespace")
    assert names("ConfigMap", "default") == before


def test_an_etcd_that_does_not_answer_is_an_error_and_everything_is_cleaned_up(
    run, spec, shared_cluster, names, namespace
):
    class WithoutEtcd:
        etcd = EtcdAccess(endpoints=("http://127.0.0.1:1",))

        def __getattr__(self, name):
            return getattr(shared_cluster, name)

    result = run(spec, open=lambda _: WithoutEtcd())
    assert result.verdict is Verdict.ERROR
    assert "backup: etcdSnapshot: http://127.0.0.1:1" in result.reason
    assert namespace not in names("Namespace")


def test_a_snapshot_that_rots_in_the_store_fails(run, spec, tmp_path, names, namespace):
    spec["storage"] = {"shelf": {"directory": {"path": "shelf"}}}
    spec["backup"] = [
        {"etcdSnapshot": {"name": "before", "storage": "shelf"}},
        {"verifyBackup": {"backup": "before"}},
    ]

    def rot(event):
        if isinstance(event, StepFinished) and event.result.title == "etcdSnapshot":
            (file,) = (tmp_path / "shelf").glob("*.db")
            data = bytearray(file.read_bytes())
            data[len(data) // 2] ^= 1
            file.write_bytes(data)

    result = run(spec, tell=rot)
    assert result.verdict is Verdict.FAIL, result
    assert result.reason.startswith("backup: verifyBackup: ")
    assert "small.drill.yaml:" in result.reason
    assert namespace not in names("Namespace")


def test_ctrl_c_takes_the_cluster_down(tmp_path, toolchain):
    """The person at the keyboard gets the prompt back, with nothing left behind and a record of how far it came."""
    state, evidence = tmp_path / "state", tmp_path / "evidence"
    words = ["clusterguard", "drill", "run", str(DRILLS / "deleted-pods.drill.yaml"), "--evidence", str(evidence)]
    drill = subprocess.Popen(
        [sys.executable, "-m", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "XDG_STATE_HOME": str(state)},
    )
    output = ""
    for line in drill.stdout:
        output += line
        if line.startswith("backup"):
            drill.send_signal(signal.SIGINT)
            break
    output += drill.communicate(timeout=60)[0]
    assert drill.returncode == 130, output
    assert "interrupted" in output
    assert "Traceback" not in output
    assert list((state / "clusterguard" / "clusters").iterdir()) == []
    (result,) = evidence.rglob("result.json")
    assert '"interrupted"' in result.read_text()

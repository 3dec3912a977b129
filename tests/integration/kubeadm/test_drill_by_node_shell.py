"""A drill that restores etcd, on a cluster that is reached like any kubeadm cluster: by kubeconfig and node shell."""

from pathlib import Path

import pytest

from clusterguard.drills import DrillRunner, DrillSettings, Verdict, load_drills

DRILLS = Path(__file__).parents[3] / "drills"


@pytest.fixture
def settings(cluster):
    return {
        "cluster": f"context:{cluster.context}",
        "kubeconfig": cluster.kubeconfig,
        "allowed_contexts": (cluster.context,),
    }


@pytest.fixture
def drill():
    (drill,) = load_drills(DRILLS / "deleted-pods.drill.yaml")
    return drill


def test_it_is_green_and_the_certificates_go_with_the_run(shell, settings, drill, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = DrillRunner(settings=DrillSettings(**settings, node_shell=f"docker:{shell.name}")).run(drill)
    assert result.verdict is Verdict.PASS, result
    assert list(tmp_path.rglob("*.key")) == []


def test_without_a_node_nothing_is_touched(settings, drill):
    result = DrillRunner(settings=DrillSettings(**settings)).run(drill)
    assert result.verdict is Verdict.ERROR, result
    assert "nothing was touched" in result.reason

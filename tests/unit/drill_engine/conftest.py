"""Whole drills on a cluster in memory."""

import copy
from datetime import timedelta

import pytest
import yaml
from fake_cluster import FakeCluster, FakeSnapshotter
from signing_keys import KEY

from clusterguard.drills import DrillRunner, DrillSettings, load_drill

SPEC = {
    "scope": {"namespaces": ["shop"]},
    "setup": [
        {
            "apply": {
                "manifest": [
                    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}},
                    {
                        "apiVersion": "v1",
                        "kind": "ConfigMap",
                        "metadata": {"name": "web", "namespace": "shop"},
                        "data": {"page": "open"},
                    },
                ]
            }
        }
    ],
    "backup": [{"etcdSnapshot": {"name": "before"}}],
    "fault": [{"delete": {"kind": "ConfigMap", "namespace": "shop", "name": "web"}}],
    "restore": [{"etcdRestore": {"from": "before"}}],
    "verify": [{"restored": {}}],
}


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setattr("clusterguard.drills.run.EtcdSnapshotter", FakeSnapshotter)
    return FakeCluster()


@pytest.fixture
def api(cluster):
    return cluster.api


@pytest.fixture
def spec():
    """A drill that passes as it is, to be changed."""
    return copy.deepcopy(SPEC)


@pytest.fixture
def load(tmp_path):
    """Write a drill with a spec, and load it."""

    def load(spec, **metadata):
        document = {
            "apiVersion": "clusterguard.dev/v1alpha1",
            "kind": "Drill",
            "metadata": {"name": "small", **metadata},
            "spec": spec,
        }
        path = tmp_path / "small.drill.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return load_drill(path)

    return load


@pytest.fixture
def opened():
    """The words that clusters were opened by."""
    return []


@pytest.fixture
def events():
    """What the drill told."""
    return []


@pytest.fixture
def run(load, cluster, opened, events):
    """Run a drill with a spec on the cluster in memory, which belongs to somebody else."""

    def run(spec, **settings):
        def give(cluster_ref):
            opened.append(cluster_ref)
            return cluster

        defaults = {"open": give, "longest_wait": timedelta(milliseconds=300)}
        runner = DrillRunner(settings=DrillSettings(**(defaults | settings)), on_event=events.append)
        return runner.run(load(spec))

    return run


@pytest.fixture
def bundle(run, spec, tmp_path):
    """Run the drill; return the folder of its signed bundle."""

    def bundle(key=KEY):
        result = run(spec, evidence=tmp_path / "evidence", evidence_key=key)
        return tmp_path / "evidence" / f"small-{result.run_id}"

    return bundle

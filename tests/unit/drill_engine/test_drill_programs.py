"""Drills get their programs before they run."""

from pathlib import Path

import pytest

from clusterguard.drills import load_drill
from clusterguard.drills.programs import programs_for

DRILLS = Path(__file__).parents[3] / "drills"


def needs(name, default="embedded"):
    return set(programs_for([load_drill(DRILLS / f"{name}.drill.yaml")], default_cluster=default))


def test_an_etcd_drill_needs_a_control_plane_and_no_velero():
    needed = needs("deleted-pods")
    assert {"etcd", "etcdutl", "kube-apiserver", "kwok"} <= needed
    assert not needed & {"velero", "velero-plugin-for-aws", "versitygw"}


def test_a_velero_drill_needs_the_server_its_plugin_and_an_s3_server():
    assert {"etcd", "velero", "velero-plugin-for-aws", "versitygw"} <= needs("velero-new-cluster")


@pytest.mark.parametrize("default", ["context:staging", "embedded:mine"])
def test_a_cluster_that_is_there_needs_nothing(default):
    assert needs("deleted-pods", default) == set()

"""One kind cluster for all drills here, as if it were the run's own: Velero is put into it once."""

import os
import time
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import yaml

from clusterguard.clusters.kind import Docker, KindCluster
from clusterguard.drills import DrillRunner, DrillSettings, load_drill
from clusterguard.errors import ProvisioningError, ResourceNotFoundError

DRILLS = Path(__file__).parents[3] / "drills"


@pytest.fixture(scope="session")
def cluster():
    try:
        Docker().require()
    except ProvisioningError as error:
        pytest.skip(f"NOT RUN: {error}")
    with KindCluster() as cluster:
        yield cluster


@pytest.fixture
def spec():
    """The shipped drill that loses a claim with its data, to be changed."""
    return yaml.safe_load((DRILLS / "velero-volume-in-place.drill.yaml").read_text())["spec"]


@pytest.fixture
def run(cluster, tmp_path):
    """Run a drill with a spec in the cluster."""

    def run(spec, *, tell=lambda _: None, **settings):
        document = {
            "apiVersion": "clusterguard.dev/v1alpha1",
            "kind": "Drill",
            "metadata": {"name": "changed"},
            "spec": spec,
        }
        path = tmp_path / "changed.drill.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        if not (tmp_path / "manifests").exists():
            (tmp_path / "manifests").symlink_to(DRILLS / "manifests")
        drill = load_drill(path, environ=os.environ, root=DRILLS)
        defaults = {"cluster": "kind", "open": lambda _: cluster, "longest_wait": timedelta(seconds=40)}
        return DrillRunner(settings=DrillSettings(**(defaults | settings)), on_event=tell).run(drill)

    return run


@pytest.fixture
def clean(cluster):
    """Wait for a cluster whose power was cut, and remove what a drill left that could not clean up."""
    return partial(_clean, cluster)


@pytest.fixture(autouse=True)
def nothing_left(clean):
    yield
    clean()


def _clean(cluster):
    deadline = time.monotonic() + 120
    while not cluster.api.ready() and time.monotonic() < deadline:
        time.sleep(0.5)
    api = cluster.api
    namespaces = api.resource("Namespace")
    with suppress(ResourceNotFoundError):
        api.delete(namespaces, "shop")
        api.wait_for(
            namespaces, "shop", until=lambda seen: seen is None, what="namespace shop goes", timeout_seconds=120
        )

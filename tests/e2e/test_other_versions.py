"""Shipped drills at the edges of what is supported: the oldest and the newest Kubernetes, the oldest Velero.

The newest Velero is the one of the toolchain. The first run compiles Kubernetes twice and Velero once, which takes
most of an hour on two cores; they rest in the toolchain's cache.
"""

from pathlib import Path

import pytest

from clusterguard.clusters import EmbeddedCluster
from clusterguard.drills import DrillRunner, DrillSettings, Verdict, load_drills
from clusterguard.model.support import SUPPORTED, parse_version
from clusterguard.toolchain.programs import PROGRAMS
from other_versions import OtherToolchain, kubernetes_programs, velero_program

pytestmark = [pytest.mark.programs, pytest.mark.slow, pytest.mark.timeout(5 * 3600)]

FOLDER = Path(__file__).parents[2] / "drills"
KUBERNETES = ("1.30.14", "1.37.2")
VELERO = "1.14.0"
ETCD_DRILLS = ("deleted-pods", "changed-objects", "lost-etcd")
VELERO_DRILLS = (
    "velero-deleted-namespace",
    "velero-cluster-scoped",
    "velero-second-location",
    "velero-selected-objects",
)


@pytest.fixture
def passes(tmp_path, monkeypatch):
    def passes(name, given):
        (drill,) = load_drills(FOLDER / f"{name}.drill.yaml")
        with EmbeddedCluster(toolchain=OtherToolchain(given), home=tmp_path) as cluster:
            # A Velero of 1.14 that runs outside of its cluster finds that by this variable alone.
            monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
            result = DrillRunner(settings=DrillSettings(open=lambda _: cluster)).run(drill)
            assert result.verdict is Verdict.PASS, result
            return cluster.api.server_version()

    return passes


def test_these_are_the_edges():
    newest_velero = PROGRAMS["velero"].modules.version
    for program, oldest, newest in (("Kubernetes", *KUBERNETES), ("Velero", VELERO, newest_velero)):
        major, end = SUPPORTED[program].below
        tested = parse_version(oldest)[:2], parse_version(newest)[:2]
        assert tested == (SUPPORTED[program].at_least, (major, end - 1))


@pytest.mark.parametrize("name", [*ETCD_DRILLS, VELERO_DRILLS[0]])
@pytest.mark.parametrize("version", KUBERNETES)
def test_a_drill_passes_on_kubernetes(passes, name, version):
    assert passes(name, kubernetes_programs(version)) == f"v{version}"


@pytest.mark.parametrize("name", VELERO_DRILLS)
def test_a_drill_passes_with_velero(passes, name):
    passes(name, velero_program(VELERO))

"""The pytest plugin: drill files become tests, and tests get clusters.

Every pytest run of the environment loads this module, so it imports nothing that takes time: what runs drills
is imported when the first drill file is collected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from clusterguard.clusters.base import Cluster
    from clusterguard.etcd import EtcdSnapshotter
    from clusterguard.validate import RestoreValidator

__all__ = ["drill_cluster", "etcd_snapshotter", "restore_validator"]

_SUFFIX = ".drill.yaml"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the ``--drill-*`` options."""
    group = parser.getgroup("drills", "disaster-recovery drills (clusterguard)")
    group.addoption(
        "--drill-cluster",
        metavar="WORD",
        help="cluster of drills that name none: embedded (default), embedded:NAME, context:NAME, kubeconfig:PATH",
    )
    group.addoption(
        "--drill-selector", metavar="LABELS", help="run only drills with these labels, such as tier=nightly"
    )
    group.addoption(
        "--drill-allow-context",
        metavar="GLOB",
        action="append",
        help="kubeconfig contexts that drills may destroy in; without it only clusters of this run",
    )
    group.addoption("--drill-kubeconfig", metavar="FILE", help="the kubeconfig of context: clusters")
    group.addoption("--drill-evidence", metavar="DIR", help="keep journal and result of every drill here")
    group.addoption(
        "--drill-keep",
        choices=("never", "on-failure", "always"),
        help="leave created clusters running for a look (default: never)",
    )
    group.addoption("--drill-plan", action="store_true", help="print what would be done, and do nothing of it")
    group.addoption(
        "--drill-omit-restore",
        action="store_true",
        help="leave the restore out: every drill must go red, or it proves nothing",
    )
    group.addoption("--drill-longest-wait", metavar="DURATION", help="cap on the timeout of every check, such as 10s")
    group.addoption("--drill-min", metavar="N", type=int, help="fail unless at least N drills ran")
    parser.addini("drill_cluster", "see --drill-cluster")
    parser.addini("drill_allow_context", "see --drill-allow-context", type="args")
    parser.addini("drill_evidence", "see --drill-evidence")


def pytest_configure(config: pytest.Config) -> None:
    """Describe the marker; with ``--drill-plan`` nothing runs."""
    config.addinivalue_line("markers", "drill(**labels): a drill file, with its labels")
    if config.getoption("--drill-plan"):
        config.option.collectonly = True


def pytest_collect_file(parent: pytest.Collector, file_path: Path) -> pytest.Collector | None:
    """Collect drill files."""
    if not file_path.name.endswith(_SUFFIX):
        return None
    from clusterguard.pytest_plugin.items import DrillFile, Session

    if config_plugin(parent.config) is None:
        parent.config.pluginmanager.register(Session(parent.config), "clusterguard-session")
    collector: DrillFile = DrillFile.from_parent(parent, path=file_path)
    return collector


def config_plugin(config: pytest.Config) -> object | None:
    """Return the part of the plugin that only runs with drills have."""
    return config.pluginmanager.get_plugin("clusterguard-session")


@pytest.fixture(scope="session")
def drill_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Give the cluster that ``--drill-cluster`` names, by default an embedded one of this session."""
    from clusterguard.clusters import open_cluster
    from clusterguard.pytest_plugin.items import settings_from

    settings = settings_from(request.config)
    with open_cluster(settings.cluster, kubeconfig=settings.kubeconfig) as cluster:
        yield cluster


@pytest.fixture
def etcd_snapshotter(drill_cluster: Cluster, tmp_path: Path) -> EtcdSnapshotter:
    """Give a snapshotter between the cluster's etcd and a directory of this test."""
    from clusterguard.etcd import EtcdSnapshotter
    from clusterguard.stores import LocalStore

    return EtcdSnapshotter(store=LocalStore(tmp_path / "snapshots"), access=drill_cluster.etcd)


@pytest.fixture
def restore_validator(drill_cluster: Cluster) -> RestoreValidator:
    """Give a validator of the cluster."""
    from clusterguard.validate import RestoreValidator

    return RestoreValidator(api=drill_cluster.api)

"""The pytest plugin: drill files become tests, and tests get clusters.

Every pytest run of the environment loads this module, so it imports nothing that takes time: what runs drills
is imported when the first drill file is collected.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clusterguard.clusters.base import Cluster
    from clusterguard.etcd import EtcdSnapshotter
    from clusterguard.validate import RestoreValidator

__all__ = ["drill_cluster", "etcd_snapshotter", "restore_validator"]

PROPERTIES = "clusterguard."  # how the names of a drill's properties begin
VERDICT = f"{PROPERTIES}verdict"  # the property of a report that tells how a drill ended
SKIP_REASON = f"{PROPERTIES}skip_reason"  # the property of one that was skipped; it has no verdict then

REHEARSAL = "rehearse"  # what the ids of rehearsals begin with

_SUFFIX = ".drill.yaml"
_FIXTURE = "drill_cluster"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the ``--drill-*`` options."""
    group = parser.getgroup("drills", "disaster-recovery drills (clusterguard)")
    group.addoption(
        "--drill-cluster",
        metavar="WORD",
        help="cluster of drills that name none: embedded (default), embedded:NAME, kind, kind:NAME, context:NAME, "
        "kubeconfig:PATH",
    )
    group.addoption(
        "--drill-selector", metavar="LABELS", help="run only drills with these labels, such as tier=nightly"
    )
    group.addoption(
        "--drill-allow-context",
        metavar="GLOB",
        action="append",
        help="contexts that drills and the fixture drill_cluster may destroy in, beside clusters that this run "
        "creates: kind-NAME of kind:NAME, clusterguard-NAME of embedded:NAME, the path of kubeconfig:PATH",
    )
    group.addoption("--drill-kubeconfig", metavar="FILE", help="the kubeconfig of context: clusters")
    group.addoption(
        "--drill-node-shell",
        metavar="WORD",
        help="how to become root on the control-plane node of context: clusters of kubeadm: local, docker:NAME, "
        "ssh:[USER@]HOST",
    )
    group.addoption(
        "--drill-evidence", metavar="DIR", help="keep the evidence of every drill here: a folder, or s3://BUCKET/PREFIX"
    )
    group.addoption("--drill-evidence-key", metavar="FILE", help="sign it with this private key")
    group.addoption(
        "--drill-evidence-passphrase-file", metavar="FILE", help="file with its passphrase; or set COSIGN_PASSWORD"
    )
    group.addoption(
        "--drill-keep",
        choices=("never", "on-failure", "always"),
        help="leave created clusters running for a look (default: never)",
    )
    group.addoption(
        "--drill-lock-timeout",
        metavar="DURATION",
        help="wait so long for another run that is at work in a cluster, such as 30m (default: not at all)",
    )
    group.addoption("--drill-plan", action="store_true", help="print what would be done, and do nothing of it")
    group.addoption(
        "--drill-omit-restore",
        action="store_true",
        help="leave the restore out: every drill must go red, or it proves nothing",
    )
    group.addoption(
        "--drill-mutate",
        action="store_true",
        help="once a drill is proven, put defects into what was restored, one at a time: its checks must find them",
    )
    group.addoption(
        "--drill-mutate-min",
        metavar="PERCENT",
        type=float,
        default=100,
        help="with --drill-mutate: fail a drill that finds a smaller share of the defects (default: 100)",
    )
    group.addoption("--drill-longest-wait", metavar="DURATION", help="cap on the timeout of every check, such as 10s")
    group.addoption(
        "--drill-summary",
        metavar="FILE",
        help="write a table of drills and rehearsals here, in Markdown, with what those that did not pass had to say",
    )
    group.addoption("--drill-min", metavar="N", type=int, help="fail unless at least N drills ran")
    rehearsals = parser.getgroup("rehearsals", "rehearsals of backups (clusterguard)")
    rehearsals.addoption(
        "--rehearse",
        metavar="FILE|URL",
        action="append",
        default=[],
        help="a test that this backup restores whole, as `clusterguard rehearse` has it; may be given several times",
    )
    rehearsals.addoption(
        "--rehearse-identity", metavar="FILE", action="append", help="file with a private key, for what is encrypted"
    )
    rehearsals.addoption("--rehearse-passphrase-file", metavar="FILE", help="file with the passphrase of age")
    rehearsals.addoption(
        "--rehearse-encryption-config", metavar="FILE", help="the EncryptionConfiguration of the cluster's API server"
    )
    rehearsals.addoption("--rehearse-prefix", metavar="PREFIX", help="of etcd's keys (default: /registry)")
    rehearsals.addoption("--rehearse-kubernetes-version", metavar="MINOR", help="rehearse on this minor version")
    parser.addini("drill_cluster", "see --drill-cluster")
    parser.addini("drill_allow_context", "see --drill-allow-context", type="args")
    parser.addini("drill_evidence", "see --drill-evidence")
    parser.addini("drill_evidence_key", "see --drill-evidence-key")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """See to it that nothing runs with ``--drill-plan``, before pytest-xdist decides how to run it."""
    if config.getoption("--drill-plan"):
        config.option.collectonly = True


def pytest_configure(config: pytest.Config) -> None:
    """Describe the marker, and look at what the options say.

    Raises:
        pytest.UsageError: A value cannot be read.
    """
    config.addinivalue_line("markers", "drill(**labels): a drill file, with its labels")
    config.addinivalue_line("markers", "rehearsal: a backup that is rehearsed, by --rehearse")
    _check_options(config)
    if config.option.collectonly or hasattr(config, "workerinput"):
        return
    least = config.getoption("--drill-min")
    if least is not None:
        config.pluginmanager.register(_Minimum(config, least), "clusterguard-minimum")
    _write_summary(config, os.environ.get("GITHUB_STEP_SUMMARY"), append=True)
    _write_summary(config, config.getoption("--drill-summary"), append=False)


def _write_summary(config: pytest.Config, path: str | None, *, append: bool) -> None:
    if path:
        from clusterguard.pytest_plugin.summary import Summary

        config.pluginmanager.register(Summary(Path(path), append=append))


def _check_options(config: pytest.Config) -> None:
    """Read the options that have a grammar of their own: a mistake in them is reported before anything is collected."""
    if selector := config.getoption("--drill-selector"):
        from clusterguard.documents.values import check_selector

        _read("--drill-selector", selector, check_selector)
    for option in ("--drill-longest-wait", "--drill-lock-timeout"):
        if duration := config.getoption(option):
            from clusterguard.model.durations import parse_duration

            _read(option, duration, parse_duration)


def _read(option: str, text: str, read: Callable[[str], object]) -> None:
    try:
        read(text)
    except ValueError as error:
        raise pytest.UsageError(f"{option}: {error}") from error


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the drills that were skipped, with the reason: a drill that proved nothing must not pass unseen."""
    reports = terminalreporter.stats.get("skipped", [])
    reasons = [(report.location[2], dict(report.user_properties).get(SKIP_REASON)) for report in reports]
    if any(reason for _, reason in reasons):
        terminalreporter.section("drills skipped", yellow=True)
        for name, reason in reasons:
            if reason:
                terminalreporter.write_line(f"{name}: {reason}")


class _Minimum:
    """Goes red when fewer drills came to a verdict than were asked for."""

    def __init__(self, config: pytest.Config, least: int) -> None:
        self._config = config
        self._least = least
        self._came_to_a_verdict: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the drills, each once however often it was tried. With pytest-xdist only reports come here."""
        if VERDICT in dict(report.user_properties) and not report.nodeid.startswith(f"{REHEARSAL}::"):
            self._came_to_a_verdict.add(report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Decide."""
        if len(self._came_to_a_verdict) >= self._least:
            return
        if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say so."""
        if (ran := len(self._came_to_a_verdict)) < self._least:
            text = f"drills: {ran} came to a verdict, --drill-min asks for {self._least}"
            terminalreporter.write_line(text, red=True)


def pytest_collect_file(parent: pytest.Collector, file_path: Path) -> pytest.Collector | None:
    """Collect drill files."""
    if not file_path.name.endswith(_SUFFIX):
        return None
    from clusterguard.errors import ConfigError

    try:
        from clusterguard.pytest_plugin.items import DrillFile
    except ConfigError as error:  # a verb of another package cannot be loaded
        raise pytest.UsageError(f"{error.message}\n  → {error.hint}") from error
    _have_session(parent.config)
    collector: DrillFile = DrillFile.from_parent(parent, path=file_path)
    return collector


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add rehearsals, and keep what works on one cluster together, before pytest-xdist looks for groups."""
    if config.getoption("--rehearse"):
        from clusterguard.pytest_plugin.rehearsals import rehearsal_items

        _have_session(config)
        items.extend(rehearsal_items(session))
    users = [
        item for item in items if item.get_closest_marker("drill") or _FIXTURE in getattr(item, "fixturenames", ())
    ]
    if users:
        from clusterguard.pytest_plugin.items import group_by_cluster

        group_by_cluster(config, users)


def _have_session(config: pytest.Config) -> None:
    """See to the part of the plugin that only runs with drills or rehearsals have."""
    if config.pluginmanager.get_plugin("clusterguard-session") is None:
        from clusterguard.pytest_plugin.items import Session

        config.pluginmanager.register(Session(config), "clusterguard-session")


@pytest.fixture(scope="session")
def drill_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Give the cluster that ``--drill-cluster`` names, by default an embedded one of this session.

    One that was there before has to be allowed, as for drills, and is locked for the session.
    """
    from clusterguard.clusters.lock import lock_cluster
    from clusterguard.clusters.node_shell import open_node_shells
    from clusterguard.clusters.opening import CREATED, existing_cluster, open_cluster, require_allowed
    from clusterguard.pytest_plugin.items import settings_from, shown_progress

    settings = settings_from(request.config)
    cluster_ref = settings.cluster
    require_allowed(cluster_ref, settings.allowed_contexts)
    with ExitStack() as stack:
        with shown_progress(request.config) as progress:
            if cluster_ref in CREATED:
                cluster = stack.enter_context(open_cluster(cluster_ref, progress=progress))
            else:
                nodes = open_node_shells(settings.node_shell)
                there = existing_cluster(cluster_ref, kubeconfig=settings.kubeconfig, nodes=nodes, progress=progress)
                cluster = stack.enter_context(there)
                wait = settings.lock_timeout.total_seconds()
                lock = lock_cluster(cluster.api, what="tests that use drill_cluster", wait_seconds=wait)
                stack.callback(lock.release)
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

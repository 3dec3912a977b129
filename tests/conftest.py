"""What the tests of every kind share: the real programs, and one cluster for all that only look or tidy up."""

from __future__ import annotations

import faulthandler
import os
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from clusterguard import process
from clusterguard.terminal.console import ProgressLines

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from clusterguard.clusters import EmbeddedCluster
    from clusterguard.toolchain import Toolchain

pytest_plugins = ["pytester"]

# How fast this machine is right now says nothing about a property.
settings.register_profile("clusterguard", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("clusterguard")

# Files that are one unit of work: apart, the first would only wait for each other, since a machine has one Velero
# server at a time (it wants port 8080), and each worker with one of the others would start the shared cluster anew.
TOGETHER = (
    ("tests/faults/",),
    ("tests/integration/velero", "tests/integration/deploy/test_on_an_api_server.py"),
    (
        "tests/integration/clusters/test_embedded_cluster.py",
        "tests/integration/deploy/test_runs_with_least_access.py",
        "tests/integration/coverage/",
        "tests/integration/drills/",
        "tests/unit/test_docs.py",
    ),
)
# What takes longest begins first, so that no worker is left alone with it at the end.
LONGEST = (
    *TOGETHER[0],
    *TOGETHER[1],
    "tests/e2e/",
    "tests/integration/policies/",
    *TOGETHER[2],
    "tests/integration/etcd/",
    "tests/integration/cli/",
)
# A worker may have a control plane of its own, which wants half a gigabyte.
MOST_WORKERS = 4

# What tests with the mark `programs` may ask for.
PROGRAMS = (
    "age",
    "age-keygen",
    "etcd",
    "etcdctl",
    "etcdutl",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubectl",
    "kwok",
    "velero",
    "velero-plugin-for-aws",
    "versitygw",
)


def pytest_configure() -> None:
    """Let Ctrl-C reach the processes of tests where the suite itself runs in the background, deaf to it.

    AWS credentials of whoever runs the tests are dropped: a test that finds some uses its own, or another test's.
    """
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    global _stderr  # noqa: PLW0603 - capturing is off in this moment, and on whenever it is needed
    _stderr = os.dup(2)


_stderr = -1
_GRACE_SECONDS = 120


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """End the process, and say where each thread was, when a test is still at work long after its time limit.

    The limit raises an exception once. What the test does in answer, waiting for a child that never ends or for a
    thread, has no limit of its own: without this the suite would stand still, and nobody could tell where.
    """
    marker = item.get_closest_marker("timeout")
    limit = marker.args[0] if marker else float(item.config.getini("timeout") or 0)
    if not limit:
        return (yield)
    faulthandler.dump_traceback_later(limit + _GRACE_SECONDS, exit=True, file=_stderr)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run the whole suite on all cores. Parts of it, and what was asked for by a mark, run in this process."""
    if _whole(config) and getattr(config.option, "numprocesses", 0) is None:
        config.option.numprocesses = "logical"  # xdist's own word, which also heeds --pdb and its variable
        config.option.maxprocesses = config.option.maxprocesses or MOST_WORKERS


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Tell one more than there are cores: many a test waits for a real program."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    return len(os.sched_getaffinity(0)) + 1 if _whole(config) else None


def _whole(config: pytest.Config) -> bool:
    if hasattr(config, "workerinput") or config.option.collectonly:
        return False
    everything = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return everything and config.option.markexpr in config.getini("addopts")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Give a worker whole files, since their tests share what is slow to start, in the order of their collection."""
    if config.option.dist != "load":
        return None  # somebody chose another way
    from xdist.scheduler import LoadFileScheduling

    class LoadUnits(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return next((files[0] for files in TOGETHER if file.startswith(files)), file)

    config.option.loadscopereorder = False
    return LoadUnits(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let workers begin with what takes longest."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: next((n for n, each in enumerate(LONGEST) if item.nodeid.startswith(each)), 99))


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Get the real programs before the first test: compiling them is no part of any test's time limit."""
    config = session.config
    # Only the workers of pytest-xdist know their tests, but they have no terminal to say what takes so long.
    spread = getattr(config.option, "dist", "no") != "no" and _whole(config)
    wanted = spread or any(item.get_closest_marker("programs") for item in session.items)
    if not wanted or config.option.collectonly:
        return
    from clusterguard.toolchain import from_environment

    def say(line: str) -> None:
        # A worker of pytest-xdist has nowhere to say anything; it waits for the one that installs.
        if not hasattr(config, "workerinput"):
            print(line, flush=True)  # noqa: T201 - on the terminal, past pytest's own buffer

    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        # It takes minutes to compile, and few tests read the data of volumes.
        kopia = spread or any("kopia" in getattr(item, "fixturenames", ()) for item in session.items)
        from_environment(os.environ, progress=ProgressLines(say)).ensure(*PROGRAMS, *["kopia"] * kopia)


def pytest_unconfigure() -> None:
    """Collect the processes that tests killed behind the back of what started them, lest Python warns at its end."""
    process._collect_ended_children()


@pytest.fixture(scope="session")
def toolchain() -> Toolchain:
    """The real programs."""
    from clusterguard.toolchain import from_environment

    return from_environment(os.environ)


@pytest.fixture(scope="session")
def kopia(toolchain: Toolchain) -> Path:
    """The program that reads the data of volumes."""
    return toolchain.ensure("kopia")["kopia"]


@pytest.fixture(scope="session")
def shared_cluster(toolchain: Toolchain) -> Iterator[EmbeddedCluster]:
    """An embedded cluster of this session. Whoever uses it cleans up; whoever restores it starts one of their own."""
    from clusterguard.clusters import EmbeddedCluster

    with EmbeddedCluster(toolchain=toolchain) as cluster:
        yield cluster

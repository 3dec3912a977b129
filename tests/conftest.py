"""What the tests of every kind share: the real programs, and one cluster for all that only look or tidy up."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from clusterguard.terminal.console import ProgressLines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterguard.clusters import EmbeddedCluster
    from clusterguard.toolchain import Toolchain

pytest_plugins = ["pytester"]

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
    "kwok",
    "velero",
    "velero-plugin-for-aws",
    "versitygw",
)


def pytest_configure() -> None:
    """Let Ctrl-C reach the processes of tests where the suite itself runs in the background, deaf to it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Get the real programs before the first test: compiling them is no part of any test's time limit."""
    config = session.config
    wanted = any(item.get_closest_marker("programs") for item in session.items)
    if not wanted or config.option.collectonly:
        return
    from clusterguard.toolchain import from_environment

    def say(line: str) -> None:
        # A worker of pytest-xdist has nowhere to say anything; it waits for the one that installs.
        if not hasattr(config, "workerinput"):
            print(line, flush=True)  # noqa: T201 - on the terminal, past pytest's own buffer

    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        from_environment(os.environ, progress=ProgressLines(say)).ensure(*PROGRAMS)


@pytest.fixture(scope="session")
def toolchain() -> Toolchain:
    """The real programs."""
    from clusterguard.toolchain import from_environment

    return from_environment(os.environ)


@pytest.fixture(scope="session")
def shared_cluster(toolchain: Toolchain) -> Iterator[EmbeddedCluster]:
    """An embedded cluster of this session. Whoever uses it cleans up; whoever restores it starts one of their own."""
    from clusterguard.clusters import EmbeddedCluster

    with EmbeddedCluster(toolchain=toolchain) as cluster:
        yield cluster

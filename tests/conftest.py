"""What the tests of every kind share: the real programs, and one cluster for all that only look or tidy up."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from clusterguard.terminal.console import ProgressLines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterguard.clusters import EmbeddedCluster
    from clusterguard.toolchain import Toolchain

pytest_plugins = ["pytester"]


@pytest.fixture(scope="session")
def toolchain(request: pytest.FixtureRequest) -> Toolchain:
    """The real programs; what is missing is downloaded or compiled, and said so on the terminal meanwhile."""
    from clusterguard.toolchain import from_environment

    reporter = request.config.pluginmanager.getplugin("terminalreporter")
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def say(line: str) -> None:
        if reporter is not None and capture is not None:
            with capture.global_and_fixture_disabled():
                reporter.write_line(line)

    return from_environment(os.environ, progress=ProgressLines(say))


@pytest.fixture(scope="session")
def shared_cluster(toolchain: Toolchain) -> Iterator[EmbeddedCluster]:
    """An embedded cluster of this session. Whoever uses it cleans up; whoever restores it starts one of their own."""
    from clusterguard.clusters import EmbeddedCluster

    with EmbeddedCluster(toolchain=toolchain) as cluster:
        yield cluster

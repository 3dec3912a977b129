import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from clusterguard.clusters import EmbeddedCluster

ROOT = Path(__file__).parents[2]


class Ended(NamedTuple):
    code: int
    output: str


@pytest.fixture(scope="module")
def own_cluster(toolchain, tmp_path_factory):
    """A cluster that may be restored."""
    with EmbeddedCluster(toolchain=toolchain, home=tmp_path_factory.mktemp("clusters")) as cluster:
        yield cluster


@pytest.fixture
def python(tmp_path):
    """Run a Python module in a process of its own, with nobody's clusters around it."""

    def python(*arguments):
        env = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state"), "COLUMNS": "110", "PYTEST_ADDOPTS": ""}
        words = [sys.executable, "-m", *arguments]
        done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=150, env=env, cwd=ROOT)
        return Ended(done.returncode, done.stdout + done.stderr)

    return python

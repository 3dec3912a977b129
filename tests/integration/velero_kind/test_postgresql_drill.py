"""A real PostgreSQL on a real node, written to without a pause, lost and restored by the example that users run."""

import os
import secrets
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from clusterguard.clusters.kind import KindCluster
from clusterguard.drills import Verdict
from clusterguard.drills.csi_driver import VARIABLE, install_driver, names_driver
from clusterguard.process import run as run_program

pytestmark = [
    pytest.mark.kind,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not names_driver(), reason=f"{VARIABLE} names no CSI driver"),
]

EXAMPLE = Path(__file__).parents[3] / "examples/prove-postgresql.drill.yaml"
BASE_VARIABLE = "CLUSTERGUARD_BASE_IMAGE"
IMAGE_VARIABLE = "POSTGRES_IMAGE"
DB = {"namespace": "shop", "selector": "app=db"}

# Debian's server, started as the official image starts it: as root, with a cluster made in an empty folder.
START = """\
#!/bin/sh
set -e
as_postgres="setpriv --reuid=postgres --regid=postgres --init-groups"
if ! [ -s "$PGDATA/PG_VERSION" ]; then
  mkdir -p "$PGDATA" && chown postgres:postgres "$PGDATA" && chmod 0700 "$PGDATA"
  $as_postgres initdb --username=postgres --auth=trust
fi
exec $as_postgres postgres
"""
RECIPE = """\
ARG BASE
FROM ${BASE}
RUN apt-get update && apt-get install --yes --no-install-recommends postgresql && rm -rf /var/lib/apt/lists/* \\
    && ln -s /usr/lib/postgresql/*/bin /programs
ENV PATH=/programs:/usr/sbin:/usr/bin:/sbin:/bin
COPY start /start
CMD ["/start"]
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """An image with PostgreSQL: the one that is named, or Debian's made into one."""
    if IMAGE_VARIABLE in os.environ:
        yield os.environ[IMAGE_VARIABLE]
        return
    folder = tmp_path_factory.mktemp("image")
    (folder / "start").write_text(START)
    (folder / "start").chmod(0o755)
    (folder / "Dockerfile").write_text(RECIPE)
    tag = f"clusterguard-test-postgresql:{secrets.token_hex(4)}"
    base = f"BASE={os.environ.get(BASE_VARIABLE, 'debian:bookworm-slim')}"
    run_program(["docker", "build", "--build-arg", base, "--tag", tag, str(folder)], timeout_seconds=1200)
    yield tag
    run_program(["docker", "rmi", "--force", tag], timeout_seconds=120)


@pytest.fixture(scope="module")
def cluster(image):
    """A cluster with a CSI driver and the database's image, which the drills of this module share."""
    with KindCluster() as cluster:
        install_driver(cluster.api)
        cluster.load_image(image)
        yield cluster


@pytest.fixture
def postgresql(image, monkeypatch):
    monkeypatch.setenv(IMAGE_VARIABLE, image)
    return yaml.safe_load(EXAMPLE.read_text())["spec"]


def verified(result):
    return {step.title: step.verdict for step in result.steps if step.phase == "verify" and step.location}


@pytest.mark.parametrize("volumes", ["snapshot", "move"])
def test_a_postgresql_that_is_written_to_comes_back_with_every_row(run, postgresql, volumes):
    postgresql["backup"][0]["veleroBackup"]["volumes"] = volumes
    result = run(postgresql, longest_wait=timedelta(minutes=3))
    assert result.verdict is Verdict.PASS, result
    assert len(verified(result)) == 5


@pytest.mark.parametrize(
    ("change", "red"),
    [
        ("UPDATE drill SET value = 'x' WHERE n = 5000", "the same rows"),
        ("DELETE FROM orders WHERE n = 1", "whole orders"),
    ],
)
def test_one_row_changed_after_the_restore_is_red(run, postgresql, change, red):
    command = ["psql", "--username=postgres", "--set=ON_ERROR_STOP=1", f"--command={change}"]
    postgresql["restore"].append({"exec": {"command": command, "in": DB}, "timeout": "3m"})
    result = run(postgresql)
    assert result.verdict is Verdict.FAIL, result
    assert {title for title, verdict in verified(result).items() if verdict is not Verdict.PASS} == {red}

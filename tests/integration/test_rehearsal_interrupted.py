"""A rehearsal that is interrupted or killed leaves no program running, and no folder once somebody came after it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from clusterguard.clusters import EmbeddedCluster
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.stores import open_store
from etcd_member import member

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from clusterguard.toolchain import Toolchain

pytestmark = pytest.mark.programs

PHASES = ("restore", "start etcd", "start the API server", "compare")


@pytest.fixture(scope="module")
def snapshot(toolchain: Toolchain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("snapshot")
    with member(toolchain.ensure("etcd")["etcd"], folder) as running:
        for number in range(20):
            running.put(f"/registry/configmaps/shop/c{number}", value=b'{"kind":"ConfigMap","apiVersion":"v1",'
                        b'"metadata":{"name":"c%d","namespace":"shop"}}' % number)  # fmt: skip
        return folder / EtcdSnapshotter(store=open_store(folder), access=running.access).save("s").key


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
@pytest.mark.parametrize("phase", PHASES)
def test_nothing_is_left(snapshot: Path, tmp_path: Path, phase: str, number: signal.Signals) -> None:
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
    command = [sys.executable, "-m", "clusterguard", "rehearse", str(snapshot)]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(phase):
                break
        process.send_signal(number)
        # One that does not end says where its threads are, and the test goes on to be red.
        abort = threading.Timer(60, process.send_signal, [signal.SIGABRT])
        abort.start()
        said = process.stderr.read()
        abort.cancel()
        code = process.wait(timeout=60)
    assert code == (130 if number is signal.SIGINT else -9), said
    home = tmp_path / "clusterguard" / "clusters"
    wait_until_gone(home)
    if number is signal.SIGKILL:
        EmbeddedCluster.sweep(home=home)  # whoever starts a cluster next does so first
    assert list(home.iterdir()) == []


def wait_until_gone(home: Path) -> None:
    deadline = time.monotonic() + 30
    while left := list(running_under(home)):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def running_under(home: Path) -> Iterator[str]:
    for process in psutil.process_iter(["cmdline"]):
        if any(str(home) in word for word in process.info["cmdline"] or ()):
            yield " ".join(process.info["cmdline"])
